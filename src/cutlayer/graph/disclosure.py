"""The disclosure statement: what leaves a party, to whom, when and how much, and what never does.

It is read off the graph before anything is trained, and written for the person who has to agree to it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import GraphError
from .describe import Size, count, crew, size_of, spec_text, word
from .parts import Cut, Role, Segment
from .reconstruction import roles_at_home, taught_at_home
from .sizes import amount, written

if TYPE_CHECKING:
    from .split_graph import SplitGraph

__all__ = ["statement"]

WIDTH = 100

_LIMITS = (
    "Activations and gradients are made from the records and the labels, and can tell something about both: "
    "with effort, a receiver may guess labels from gradients or reconstruct parts of a record from its "
    "activations. Nothing in this statement measures how much. It lists what is sent while the "
    "network is trained, evaluated and used. How records were prepared, and how the parties found out which "
    "records they have in common, was settled before and is not covered."
)

_NUMBERS = (
    "A few numbers for each epoch and split, to the other parties of the study: the loss, metrics such as "
    "accuracy, over how many rows, and the verdict whether training goes on."
)
_NORM = "With every training step: the norm of its gradients, or of all parties' gradients, one number."
_HEADERS = "With every message: names of the cut and its tensors, their shapes and the number of the step."
_COUNTS = (
    "Once, before training: how many rows it has in each split, from which all derive the order of work."
)

_RAW = (
    "No cut carries a column of them as it is, or only scaled, shifted or negated (tried on random rows); "
    "what layers make of them does leave."
)
_UNSEEN = "No cut names them; whether segments pass on columns of them was not tried."
_SEAL = (
    "how well it is sealed depends on the parties' keys; in a simulation there are none, and the seal hides "
    "nothing."
)
_UPDATES = (
    "The weights go as what changed in them since the beginning, packed, so the length of what is sealed tells roughly "
    "how far they are from the initial ones."
)


def statement(
    graph: SplitGraph,
    party: str,
    batch_size: int,
    relay: str | None = None,
    host: str | None = None,
    *,
    averager: str | None = None,
    silent: Collection[str] = (),
    clips: bool = False,
    unlabelled: bool = False,
    updates: bool = False,
    promises: Sequence[str] = (),
) -> str:
    """Return the disclosure statement of ``party``: about one page of plain text.

    Args:
        graph: What is trained.
        party: Whose statement it is.
        batch_size: Rows in a training batch, for the sizes.
        relay: The party that passes hand-overs on; empty: they go straight to the next; None: not known.
        host: The party through which all frames go, over TLS and sealed for whom they are; None in a simulation.
        averager: The party that averages the states of roles with many parties; empty: each party keeps its own;
            None: they are handed over from one to the next.
        silent: Cuts over which no gradient comes back.
        clips: Whether parties tell norms of their gradients.
        unlabelled: Whether parties with a decoder train on rows without labels.
        updates: Whether weights are handed over as what changed in them.
        promises: What the study's defences promise by differential privacy, in words.

    Raises:
        GraphError: No party has that name (or that of relay, host or averager), or the batch size is not positive.
    """
    if batch_size < 1:
        raise GraphError("a batch has at least one row", party=party, got=f"batch_size={batch_size}")
    role = graph.role_of(party)
    for other in (relay, host, averager):
        if other:
            graph.role_of(other)
    page = _Page(graph, role, party, batch_size, relay, host)
    page.averager, page.silent, page.clips = averager, silent, clips
    page.unlabelled, page.updates = unlabelled, updates
    sections = [
        (f"WHAT LEAVES {party}", page.leaves()),
        (f"WHAT COMES IN TO {party}", page.arrives()),
        (f"WHAT NEVER LEAVES {party}", page.stays()),
        *([("WHAT IS DONE TO WHAT CROSSES", [*found, *promises])] if (found := page.defended()) else []),
        *([("HOW IT TRAVELS", page.travels())] if host else []),
        ("WHAT THIS STATEMENT CANNOT SAY", [_LIMITS]),
    ]
    lines = [f"DISCLOSURE STATEMENT OF {party}", "", *page.who()]
    for title, entries in sections:
        lines += ["", title]
        for entry in entries:
            bullet = "  " if len(entries) == 1 and title.startswith("WHAT THIS") else "  - "
            lines += textwrap.wrap(
                entry,
                WIDTH,
                initial_indent=bullet,
                subsequent_indent=" " * len(bullet),
                break_on_hyphens=False,
            )
    return "\n".join(lines) + "\n"


class _Page:
    """The answers of a graph for one party."""

    def __init__(
        self,
        graph: SplitGraph,
        role: Role,
        party: str,
        batch_size: int,
        relay: str | None = None,
        host: str | None = None,
    ) -> None:
        self.graph, self.role, self.party, self.batch_size = graph, role, party, batch_size
        self.relay, self.host = relay, host
        self.averager: str | None = None
        self.silent: Collection[str] = ()
        self.clips = self.unlabelled = self.updates = False
        self.segments = graph.segments_of(role.name)
        self.size = sum((size_of(s.module) for s in self.segments), Size())
        self.shared = {share.field for share in graph.shares if share.source == role.name}
        self.labels = {x.target for x in graph.losses.values() if not x.reconstructs} & set(role.fields)

    def who(self) -> list[str]:
        several = len(self.role.parties) > 1
        place = (
            f"one of {count(len(self.role.parties), 'party')}: {crew(self.role.parties)}"
            if several
            else "its only party"
        )
        runs = ", ".join(
            f"{s.name} ({count(size_of(s.module).parameters, 'parameter')})" for s in self.segments
        )
        fields = ", ".join(
            f"{word(name)} {spec_text(spec)}{' (label)' if name in self.labels else ''}"
            for name, spec in self.role.fields.items()
        )
        return [
            f"Configuration  {self.graph.name}; digest of the graph {self.graph.digest[:16]}",
            *_wrapped(f"Role           {self.role.name} ({place})"),
            *_wrapped(f"Runs           {runs or 'nothing'}"),
            *_wrapped(f"Holds          {fields or 'no data of its own'}"),
            f"Batch          B = {count(self.batch_size, 'row')} in training; evaluation may take more",
        ]

    def leaves(self) -> list[str]:
        entries = [
            self._label(cut, "to") for cut in self.graph.cuts_from(self.role.name) if cut.kind == "label"
        ]
        entries += [
            self._activation(cut, "to") for cut in self.graph.cuts_from(self.role.name) if cut.kind != "label"
        ]
        entries += [
            self._gradient(cut, "to") for cut in self._returning(self.graph.cuts_into(self.role.name))
        ]
        if self.averager is None:
            entries += self._state("to the others of the role")
            entries += self._relayed("to the next of the role")
        else:
            entries += self._averaged(leaves=True)
        if self.role.name in self.graph.label_roles:
            entries.append(_NUMBERS)
        if self.clips and (self.size.parameters or self.role.name in self.graph.label_roles):
            entries.append(_NORM)
        if len(self.graph.parties) == 1:
            return ["Nothing: the study has no other party."]
        return [*entries, _HEADERS, *([_COUNTS] if self.role.fields else [])]

    def arrives(self) -> list[str]:
        entries = [
            self._label(cut, "from") for cut in self.graph.cuts_into(self.role.name) if cut.kind == "label"
        ]
        entries += [
            self._activation(cut, "from")
            for cut in self.graph.cuts_into(self.role.name)
            if cut.kind != "label"
        ]
        entries += [
            self._gradient(cut, "from") for cut in self._returning(self.graph.cuts_from(self.role.name))
        ]
        if self.averager is None:
            entries += self._state("from the others of the role")
            entries += self._relayed("from the last of the role")
        else:
            entries += self._averaged(leaves=False)
        others = [
            p.name for p in self.graph.parties if p.role in self.graph.label_roles and p.name != self.party
        ]
        if others:
            entries.append(
                "A few numbers for each epoch: losses and metrics, and the verdict whether training goes on, "
                f"from {self._named(others)}."
            )
        return entries or ["Nothing."]

    def stays(self) -> list[str]:
        raw = [name for name in self.role.fields if name not in self.labels]
        kept = [name for name in self.role.fields if name in self.labels - self.shared]
        entries = []
        if raw:
            entries.append(f"Its raw records: {self._fields(raw)}. {_UNSEEN if self._untried(raw) else _RAW}")
        if kept:
            entries.append(f"Its labels: {self._fields(kept)}. No activation that crosses is made from them.")
        if self.role.fields:
            entries.append("The ids of its records: no message carries them.")
        if self.unlabelled and self.role.name in roles_at_home(self.graph):
            names = ", ".join(s.name for s in self.segments if s.name in taught_at_home(self.graph))
            entries.append(
                f"Rows without labels: no message is made of them, in training or evaluation. They teach {names} here, "
                "whose state they change."
            )
        if outputs := self._private_outputs():
            entries.append(f"Results of its segments that no cut carries: {', '.join(outputs)}.")
        if self.size.parameters:
            entries.append(self._weights())
        return entries or ["It holds nothing of its own that could leave."]

    def defended(self) -> list[str]:
        """Return what the defences at this party's cuts do, in order."""
        return [
            f"At cut {word(cut.name)}: {defence.statement()}"
            for cut in self.graph.cuts
            if self.role.name in (cut.source, cut.target)
            for defence in cut.defences
        ]

    def travels(self) -> list[str]:
        """Say what the way over the network shows, and to whom."""
        if self.party == self.host:
            return [
                f"{self.party} hosts the study: it listens, and every other party dials to it, over TLS in which "
                "both sides show a certificate of the study's own authority.",
                "Frames between two other parties pass through here sealed from end to end: their sizes, times and "
                "addresses are seen, their contents are not.",
            ]
        entries = [
            f"Every connection goes to {self.host}, which {self.party} dials, over TLS in which both sides show a "
            f"certificate of the study's own authority. {self.host} reads what is for {self.host}.",
            f"To {self.host} besides: the study's digest by parts, how many rows there are in each split and one "
            "hash of all their ids together, its certificate, up to which step it has snapshots, and errors in words.",
        ]
        holders = [role for role in self.graph.roles.values() if role.fields]
        if len(holders) > 1 and self.role in holders:
            entries.append(
                "To parties that hold other columns, or the labels, of the same rows and of more besides: a hash "
                "of each id with a key that only the two have, so that rows are matched. Whoever gets it can try "
                "out ids of a form that it knows."
            )
        others = [party.name for party in self.graph.parties if party.name not in (self.party, self.host)]
        if others:
            entries.insert(
                1,
                f"Frames for other parties pass through {self.host} sealed from end to end, with keys that the "
                f"two processes forget when they end: {self.host} sees their sizes, times and addresses, not "
                "their contents.",
            )
        return entries

    # Entries

    def _label(self, cut: Cut, way: str) -> str:
        loud = f"!! LABELS ARE OPENLY SHARED !! The field {word(cut.producer)}, as it is, {way} "
        return (
            f"{loud}{self._partners(cut)}: {amount(cut.specs, self.batch_size)}. "
            "When: with every training batch and every evaluation batch."
        )

    def _activation(self, cut: Cut, way: str) -> str:
        names = ", ".join(map(word, cut.tensors))
        return (
            f"Activations over cut {word(cut.name)} ({names} of segment {cut.producer}) {way} "
            f"{self._partners(cut)}: {written(cut, self.batch_size)}. "
            "When: every training batch, every evaluation batch, and whenever the parties predict together."
        )

    def _gradient(self, cut: Cut, way: str) -> str:
        return (
            f"Gradients over cut {word(cut.backward_name)} (of the loss, by the activations of "
            f"{cut.producer}) {way} {self._partners(cut)}: {written(cut, self.batch_size, back=True)}. "
            "When: every training batch, never in evaluation."
        )

    def _state(self, way: str) -> list[str]:
        if len(self.role.parties) == 1 or not self.segments:
            return []
        if self.host:
            way_there = f"It goes through {self.host}, sealed so that only the next one can open it."
            return [f"{self._handed(self.segments, f'{way} {self.role.name}')} {way_there}"]
        way_there = {
            None: "Whoever passes it on does so unopened; how well it is sealed depends on the parties' keys, "
            "which a simulation has not.",
            "": "It goes straight there.",
        }.get(self.relay, f"It goes through {self.relay}, which passes it on unopened; {_SEAL}")
        return [f"{self._handed(self.segments, f'{way} {self.role.name}')} {way_there}"]

    def _relayed(self, way: str) -> list[str]:
        """Return what this party passes on for others, if it is the relay."""
        if self.party != self.relay:
            return []
        handed = [role for role in self.graph.roles.values() if len(role.parties) > 1 and role != self.role]
        return [
            f"Sealed, only to pass it on unopened, with every hand-over: "
            f"{self._handed(segments, f'{way} {role.name}', capital=False)} "
            f"{'It cannot be opened here.' if self.host else f'It is not opened here; {_SEAL}'}"
            for role in handed
            if (segments := self.graph.segments_of(role.name))
        ]

    def _handed(self, segments: Iterable[Segment], way: str, *, capital: bool = True) -> str:
        """Return what a hand-over holds, and what its length tells."""
        text = _state_text(segments, way, capital=capital)
        return f"{text} {_UPDATES}" if self.updates else text

    def _returning(self, cuts: Iterable[Cut]) -> list[Cut]:
        return [cut for cut in cuts if cut.has_gradient and cut.name not in self.silent]

    def _averaged(self, *, leaves: bool) -> list[str]:
        """Return which states go to or come from the party that averages them."""
        entries = []
        for role in self.graph.roles.values():
            segments = self.graph.segments_of(role.name)
            if len(role.parties) == 1 or not segments or not self.averager:
                continue
            names = ", ".join(segment.name for segment in segments)
            size = sum((size_of(segment.module) for segment in segments), Size())
            what = f"of {names} (weights and buffers: {count(size.parameters, 'parameter')}, "
            what += f"{count(size.state_bytes, 'byte')})"
            each = f"each of {count(len(role.parties), 'party')} ({crew(role.parties)})"
            if self.role == role and leaves:
                entries.append(
                    f"Its own state {what} to {self.averager}, at the end of each round. {self.averager} averages it "
                    "with the others' and can read it before; from a party's weights, and from how they change, "
                    "traces of its records can be found."
                )
            elif self.role == role:
                entries.append(
                    f"The average {what} from {self.averager}, for each round and each evaluation."
                )
            elif self.party == self.averager and leaves:
                entries.append(f"The average {what} to {each}, for each round and each evaluation.")
            elif self.party == self.averager:
                entries.append(
                    f"The state {what} from {each}, at the end of each round. It averages them, and can read each one."
                )
        return entries

    def _weights(self) -> str:
        names = ", ".join(s.name for s in self.segments)
        amount = count(self.size.parameters, "parameter")
        what = f"the weights, buffers and optimizer state of {names} ({amount})"
        if len(self.role.parties) == 1 or self.averager == "":
            return f"{what[0].upper()}{what[1:]}: no other party ever has them."
        if self.averager is not None:
            memory = f"The optimizer state of {names}"
            return (
                f"To any party but {self.averager}: the weights and buffers of {names}. {memory}: to nobody."
            )
        if self.relay:
            hides = "" if self.host else " (the seal of a simulation hides nothing)"
            what += f", other than sealed, through {self.relay}{hides}"
        return f"To any party outside the role {self.role.name}: {what}."

    def _private_outputs(self) -> list[str]:
        crossing = {(cut.producer, tensor) for cut in self.graph.cuts for tensor in cut.tensors}
        scored = {loss.prediction.partition(":")[0] for loss in self.graph.losses.values()}
        return [
            (f"{word(output)} of {s.name}" if len(s.outputs) > 1 else s.name)
            + (" (predictions)" if s.name in scored else "")
            for s in self.segments
            for output in s.outputs
            if (s.name, output) not in crossing
        ]

    def _untried(self, names: Iterable[str]) -> bool:
        return any((self.role.name, name) in self.graph.untried for name in names)

    def _fields(self, names: Iterable[str]) -> str:
        return ", ".join(f"{word(name)} {spec_text(self.role.fields[name])}" for name in names)

    def _partners(self, cut: Cut) -> str:
        """Return who is at the other end of ``cut``, as seen from this party in its own turns."""
        other = cut.target if cut.source == self.role.name else cut.source
        turns = [turn for turn in self.graph.turns if turn[self.role.name] == self.party]
        return self._named(list(dict.fromkeys(turn[other] for turn in turns)), other)

    def _named(self, parties: list[str], role: str = "") -> str:
        if len(parties) == 1:
            return parties[0] if parties[0] == role or not role else f"{parties[0]} (role {role})"
        if not role:
            return f"{count(len(parties), 'party')} ({crew(parties)})"
        return f"the one of role {role} whose turn it is ({count(len(parties), 'party')}: {crew(parties)})"


def _state_text(segments: Iterable[Segment], way: str, *, capital: bool = True) -> str:
    """Return what a hand-over holds, and its bytes."""
    placed = tuple(segments)
    names = ", ".join(s.name for s in placed)
    size = sum((size_of(s.module) for s in placed), Size())
    amount = f"{count(size.parameters, 'parameter')}, {count(size.state_bytes, 'byte')}"
    return (
        f"{'T' if capital else 't'}he state of {names}, {way}, at the end of a turn: weights and buffers "
        f"({amount}) and the optimizer's memory (with plain SGD nothing, with momentum one number "
        "a parameter, with Adam two)."
    )


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * 15, break_on_hyphens=False)
