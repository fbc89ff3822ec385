"""WHAT is split: segments placed on roles, the cuts between them, and the losses."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

from torch import Tensor

from ..codecs import EXACT
from ..errors import GraphError, nearest
from .coding import Choice, choose, reserve
from .defending import Defences, defend
from .digests import graph_digest
from .guards import refuse_labels, refuse_raw, refuse_raw_columns, run_segment
from .parts import (
    Cut,
    Loss,
    Party,
    Ref,
    Role,
    Segment,
    Share,
    TensorSpec,
    valid_name,
)
from .placements import Places, as_placement
from .reconstruction import check_reconstructions

__all__ = ["SplitGraph", "Turn"]

Named = TypeVar("Named", Role, Segment, Loss, Cut)

Turn = Mapping[str, str]
"""Which party fills each role while one cohort trains: role name -> party name."""


class SplitGraph:
    """A directed acyclic graph of modules placed on roles, with one or several losses.

    It checks itself when it is built and answers every question about what crosses between parties.

    Args:
        roles: The places, with the parties that fill them and the data fields they hold.
        segments: The modules, each on one role. Their order breaks ties in the order of execution.
        losses: Where predictions meet labels.
        shares: Label fields that a role openly sends to another.
        example: For each role a few rows of its fields, ``{role: {field: Tensor[B, ...]}}``; with
            it the shapes at every cut are known and a raw field that would cross is noticed.
        name: Name of the configuration.
        codecs: How what crosses is written: a codec for all cuts, or ``{"head->server": "int8", "head<-server": …}``
            by cut and direction; exactly as it is unless said.

    Raises:
        GraphError: A cycle, an input or label that nobody holds at that place, one module on two
            roles, a raw field or its columns that would cross a cut, a label that feeds what crosses, a
            segment that leads to no loss, a codec for a cut that is none or that cannot write what crosses there.
        StudyError: There is no such codec.
    """

    def __init__(
        self,
        *,
        roles: Iterable[Role],
        segments: Iterable[Segment],
        losses: Iterable[Loss],
        shares: Iterable[Share] = (),
        example: Mapping[str, Mapping[str, Tensor]] | None = None,
        name: str = "custom",
        codecs: Choice = None,
    ) -> None:
        self.name = name
        self.roles = _by_name(roles, "role")
        self.segments = _by_name(segments, "segment")
        self.losses = _by_name(losses, "loss")
        self.shares = tuple(shares)
        self._check_parties()
        self._check_modules()
        self.wiring = {
            s.name: tuple(self._resolve(s, text) for text in s.inputs) for s in self.segments.values()
        }
        self.order = self._topological_order()
        self._check_losses()
        self._check_reach()
        refuse_labels(self)
        check_reconstructions(self)
        self.example, self.specs = example, dict[Ref, TensorSpec]()
        self.untried = frozenset((role.name, field) for role in self.roles.values() for field in role.fields)
        if example is not None:
            self._infer_specs(example)
            self.untried = refuse_raw_columns(self, example)
        self.cuts = choose(self._find_cuts(), codecs)
        reserve(self)

    @classmethod
    def over(
        cls,
        people: Places,
        *,
        segments: Iterable[Segment],
        losses: Iterable[Loss],
        shares: Iterable[Share] = (),
        name: str = "custom",
        codecs: Choice = None,
    ) -> SplitGraph:
        """Build a graph of one's own over the data's holdings, which know parties, fields and shapes.

        Args:
            people: The holdings, or their parties. A role that segments name and the data does not know is
                one party of that name.
            segments: The modules, each on one role.
            losses: Where predictions meet labels.
            shares: Label fields that a role openly sends to another.
            name: Name of the configuration.
            codecs: How what crosses is written.
        """
        placed = tuple(segments)
        people = as_placement(people, "people")
        example = {role: people.example(role) for role in people.roles}
        roles = [
            Role(role, parties, {field: TensorSpec.of(rows) for field, rows in example[role].items()})
            for role, parties in people.roles.items()
        ]
        others = dict.fromkeys(s.role for s in placed if s.role not in people.roles)
        roles += [Role(role, (role,)) for role in others]
        return cls(
            roles=roles,
            segments=placed,
            losses=losses,
            shares=shares,
            example=example,
            name=name,
            codecs=codecs,
        )

    def with_codecs(self, codecs: Choice) -> SplitGraph:
        """Return the same graph, over the same modules, in which what crosses is written by other codecs.

        Args:
            codecs: As when a graph is built; None: everything crosses as it is.

        Raises:
            StudyError: There is no such codec.
            GraphError: There is no such cut or direction, or the codec cannot write what crosses there.
        """
        other = self._with_cuts(replace(cut, codec=EXACT, return_codec=EXACT) for cut in self.cuts)
        other.cuts = choose(other.cuts, codecs)
        reserve(other)
        return other

    def with_defences(self, defences: Defences) -> SplitGraph:
        """Return the same graph, over the same modules, with other defences at its cuts.

        Args:
            defences: ``["nopeek:0.1", cl.MaxNorm()]`` for every cut where they fit, in order, or by cut,
                ``{"head->server": ["nopeek:0.1"]}``; None: none.

        Raises:
            StudyError: There is no such defence.
            GraphError: There is no such cut, or a defence cannot stand there.
        """
        return self._with_cuts(defend(self, self.cuts, defences))

    def _with_cuts(self, cuts: Iterable[Cut]) -> SplitGraph:
        other = copy.copy(self)
        other.__dict__.pop("digest", None)
        other.cuts = tuple(cuts)
        return other

    # Questions about parties and places

    @cached_property
    def parties(self) -> tuple[Party, ...]:
        """All parties, in the order of the roles."""
        return tuple(Party(party, role.name) for role in self.roles.values() for party in role.parties)

    def role_of(self, party: str) -> Role:
        """Return the role that ``party`` fills."""
        for role in self.roles.values():
            if party in role.parties:
                return role
        raise GraphError(f"no party is named {party!r}", todo=nearest(party, [p.name for p in self.parties]))

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        """The cohorts that train in turn: a role with one party serves all, one with n parties has n turns."""
        count = max(len(role.parties) for role in self.roles.values())
        return tuple(
            {role.name: role.parties[index % len(role.parties)] for role in self.roles.values()}
            for index in range(count)
        )

    def segments_of(self, role: str) -> tuple[Segment, ...]:
        """Return the segments on ``role`` in the order of execution."""
        return tuple(self.segments[name] for name in self.order if self.segments[name].role == role)

    @cached_property
    def label_roles(self) -> tuple[str, ...]:
        """Roles at which a loss is computed, so which see labels and predictions."""
        return tuple(dict.fromkeys(loss.role for loss in self.losses.values()))

    # Questions about edges

    def consumers(self, ref: Ref) -> tuple[str, ...]:
        """Return the segments that read ``ref``, in the order of execution."""
        return tuple(name for name in self.order if ref in self.wiring[name])

    @cached_property
    def trainable(self) -> frozenset[str]:
        """Segments that have, or stand behind segments that have, parameters to train."""
        found: set[str] = set()
        for name in self.order:
            own = any(p.requires_grad for p in self.segments[name].module.parameters())
            if own or any(isinstance(r, Ref) and r.segment in found for r in self.wiring[name]):
                found.add(name)
        return frozenset(found)

    def needs_gradient(self, ref: Ref) -> bool:
        """Return whether a gradient flows back into ``ref``."""
        spec = self.specs.get(ref)
        return ref.segment in self.trainable and (spec is None or spec.dtype.is_floating_point)

    def cuts_from(self, role: str) -> tuple[Cut, ...]:
        """Return the cuts over which ``role`` sends forwards."""
        return tuple(cut for cut in self.cuts if cut.source == role)

    def cuts_into(self, role: str) -> tuple[Cut, ...]:
        """Return the cuts over which ``role`` receives forwards."""
        return tuple(cut for cut in self.cuts if cut.target == role)

    @cached_property
    def digest(self) -> str:
        """Hash of everything the parties must agree on here: places, wiring, shapes, module structure."""
        return graph_digest(self)

    # Descriptions

    def describe(self) -> str:
        """Return the graph as plain text: roles, segments, cuts, losses."""
        from .describe import text

        return text(self)

    def mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart."""
        from .describe import mermaid

        return mermaid(self)

    def svg(self) -> str:
        """Return the graph as a stand-alone SVG drawing, one lane for each role."""
        from .drawing import svg

        return svg(self)

    def disclosure(
        self, party: str, batch_size: int = 1, relay: str | None = None, host: str | None = None
    ) -> str:
        """Return the one-page disclosure statement of ``party``: what leaves it, to whom, and what never does.

        ``relay`` is the party that passes hand-overs on, empty where they go straight to the next, None where
        that is not known (``Study.disclosure`` knows). ``host`` is the party through which all frames go, where
        parties are on different machines.
        """
        from .disclosure import statement

        return statement(self, party, batch_size, relay, host)

    def __repr__(self) -> str:
        return f"<SplitGraph {self.name}: {', '.join(self.order)}; {len(self.parties)} parties>"

    # Checks

    def _check_parties(self) -> None:
        seen: dict[str, str] = {}
        for role in self.roles.values():
            for party in role.parties:
                if party in seen:
                    raise GraphError(
                        f"party {party!r} fills two roles, {seen[party]!r} and {role.name!r}",
                        todo="give one role all the segments and fields of that party",
                    )
                seen[party] = role.name
        counts = {role.name: len(role.parties) for role in self.roles.values() if len(role.parties) > 1}
        if len(set(counts.values())) > 1:
            raise GraphError(
                "roles that take turns together need the same number of parties",
                got=", ".join(f"{name}: {count}" for name, count in counts.items()),
                todo="give each role one party, or the same number everywhere",
            )

    def _check_modules(self) -> None:
        owner: dict[int, tuple[str, str]] = {}
        for segment in self.segments.values():
            if segment.role not in self.roles:
                raise GraphError(
                    f"segment {segment.name!r} is placed on the unknown role {segment.role!r}",
                    todo=nearest(segment.role, list(self.roles)),
                )
            things = [(id(segment.module), "the module")]
            things += [(id(p), f"parameter {n!r}") for n, p in segment.module.named_parameters()]
            things += [(id(b), f"buffer {n!r}") for n, b in segment.module.named_buffers()]
            for key, label in things:
                if key in owner:
                    other, role = owner[key]
                    raise GraphError(
                        f"{label} of segment {segment.name!r} (role {segment.role!r}) is also in segment "
                        f"{other!r} (role {role!r})",
                        todo="give each segment a module of its own (copy.deepcopy), or put both layers in one segment",
                    )
                owner[key] = (segment.name, segment.role)

    def _resolve(self, segment: Segment, text: str) -> Ref | str:
        """Return what an input's name means: a segment's output, or a data field of the segment's role."""
        name, _, output = text.partition(":")
        if name in self.segments:
            outputs = self.segments[name].outputs
            if output and output not in outputs:
                raise GraphError(
                    f"segment {segment.name!r} reads {text!r}, which {name!r} does not make",
                    todo=nearest(output, outputs),
                )
            if text in self.roles[segment.role].fields:
                raise GraphError(
                    f"{text!r} is both a segment and a data field of role {segment.role!r}", todo="rename one"
                )
            return Ref(name, output or outputs[0])
        if text in self.roles[segment.role].fields:
            return text
        holders = [role.name for role in self.roles.values() if text in role.fields]
        if holders:
            raise GraphError(
                f"segment {segment.name!r} on role {segment.role!r} reads the raw field {text!r} of role "
                f"{holders[0]!r}: a raw field never crosses a cut",
                todo=f"place a segment on {holders[0]!r} that reads {text!r}, and send its output",
            )
        known = [*self.segments, *self.roles[segment.role].fields]
        raise GraphError(
            f"segment {segment.name!r} on role {segment.role!r} reads {text!r}, which is neither a data field "
            "of its role nor a segment",
            todo=nearest(text, known),
        )

    def _topological_order(self) -> tuple[str, ...]:
        needs = {n: {r.segment for r in refs if isinstance(r, Ref)} for n, refs in self.wiring.items()}
        order: list[str] = []
        while len(order) < len(needs):
            ready = next((n for n in needs if n not in order and needs[n] <= set(order)), None)
            if ready is None:
                left = [n for n in needs if n not in order]
                raise GraphError(
                    "the segments form a cycle",
                    got=", ".join(f"{n} reads {'+'.join(sorted(needs[n] - set(order)))}" for n in left),
                    todo="split a segment in two so that each is run once a step",
                )
            order.append(ready)
        return tuple(order)

    def _check_losses(self) -> None:
        if not self.losses:
            raise GraphError("the graph has no loss, so nothing would be trained", todo="add a Loss")
        for loss in self.losses.values():
            if loss.role not in self.roles:
                raise GraphError(
                    f"loss {loss.name!r} is placed on the unknown role {loss.role!r}",
                    todo=nearest(loss.role, list(self.roles)),
                )
            segment, _, output = loss.prediction.partition(":")
            if segment not in self.segments:
                raise GraphError(
                    f"loss {loss.name!r} reads the unknown segment {segment!r}",
                    todo=nearest(segment, list(self.segments)),
                )
            if output and output not in self.segments[segment].outputs:
                raise GraphError(
                    f"loss {loss.name!r} reads {loss.prediction!r}, which {segment!r} does not make",
                    todo=nearest(output, self.segments[segment].outputs),
                )
            if self.segments[segment].role != loss.role:
                raise GraphError(
                    f"loss {loss.name!r} on role {loss.role!r} reads segment {segment!r} of role "
                    f"{self.segments[segment].role!r}",
                    todo=f"give role {loss.role!r} a last segment (nn.Identity() will do) that reads {segment!r}",
                )
            self._check_label(loss)
        for share in self.shares:
            self._check_share(share)

    def _check_label(self, loss: Loss) -> None:
        if loss.target in self.roles[loss.role].fields:
            return
        if any(s.field == loss.target and s.target == loss.role for s in self.shares):
            return
        holders = [role.name for role in self.roles.values() if loss.target in role.fields]
        held = f"role {holders[0]!r} holds it" if holders else "no role holds it"
        raise GraphError(
            f"loss {loss.name!r} on role {loss.role!r} uses the label {loss.target!r}, "
            f"which that role does not hold; {held}",
            todo="compute the loss where the label is (U-shape), give the label to that role, or share it openly "
            "with Share(field, source, target)",
        )

    def _check_share(self, share: Share) -> None:
        for role in (share.source, share.target):
            if role not in self.roles:
                raise GraphError(
                    f"share of {share.field!r} names the unknown role {role!r}",
                    todo=nearest(role, list(self.roles)),
                )
        if share.field not in self.roles[share.source].fields:
            raise GraphError(
                f"role {share.source!r} shares the label {share.field!r}, which it does not hold"
            )
        if not any(loss.target == share.field and loss.role == share.target for loss in self.losses.values()):
            raise GraphError(
                f"role {share.source!r} would send the raw field {share.field!r} to {share.target!r}, "
                "where no loss needs it",
                todo="only labels of a loss may be shared",
            )
        if any(share.field in refs for refs in self.wiring.values()):
            raise GraphError(
                f"the field {share.field!r} is both an input and a shared label: a raw input never crosses a cut"
            )

    def _check_reach(self) -> None:
        useful = {loss.prediction.partition(":")[0] for loss in self.losses.values()}
        for name in reversed(self.order):
            if name in useful:
                useful |= {r.segment for r in self.wiring[name] if isinstance(r, Ref)}
        for name in self.order:
            if name not in useful:
                raise GraphError(
                    f"segment {name!r} leads to no loss, so it would never be trained",
                    todo="connect or remove it",
                )

    # Shapes

    def _infer_specs(self, example: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Run the example through once, to know the shapes at the cuts and to notice raw fields that cross."""
        values: dict[Ref, Tensor] = {}
        for name in self.order:
            segment = self.segments[name]
            inputs = []
            for ref in self.wiring[name]:
                if isinstance(ref, Ref):
                    inputs.append(values[ref])
                    continue
                field = example.get(segment.role, {}).get(ref)
                if field is None:
                    raise GraphError(f"the example lacks field {ref!r} of role {segment.role!r}")
                inputs.append(field)
            outputs = run_segment(segment, inputs)
            for output, tensor in zip(segment.outputs, outputs, strict=True):
                ref = Ref(name, output)
                values[ref] = tensor
                self.specs[ref] = TensorSpec.of(tensor)
                refuse_raw(self, ref, tensor, example)

    def _find_cuts(self) -> tuple[Cut, ...]:
        cuts = [
            Cut(f"{s.field}->{s.target}", "label", s.source, s.target, s.field, (s.field,),
                (self.roles[s.source].fields[s.field],), (False,))
            for s in self.shares
        ]  # fmt: skip
        for name in self.order:
            segment = self.segments[name]
            crossing: dict[str, list[Ref]] = {}
            for output in segment.outputs:
                ref = Ref(name, output)
                for role in dict.fromkeys(self.segments[c].role for c in self.consumers(ref)):
                    if role != segment.role:
                        crossing.setdefault(role, []).append(ref)
            for role, refs in crossing.items():
                cuts.append(
                    Cut(f"{name}->{role}", "activation", segment.role, role, name, tuple(r.output for r in refs),
                        tuple(self.specs.get(r) for r in refs), tuple(self.needs_gradient(r) for r in refs))
                )  # fmt: skip
        return tuple(_by_name(cuts, "cut", check=False).values())


def _by_name(things: Iterable[Named], what: str, *, check: bool = True) -> dict[str, Named]:
    found: dict[str, Named] = {}
    for thing in things:
        name = valid_name(thing.name, what) if check else thing.name
        if name in found:
            raise GraphError(
                f"two {'losses' if what == 'loss' else what + 's'} are named {name!r}", todo="rename one"
            )
        found[name] = thing
    return found
