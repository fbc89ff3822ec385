"""What one party of a run received, sent and had of its own: all that a curious party has to go by.

A transcript is written down beside the honest run, which it does not change. What is written is what frames carried:
activations as a receiver read them, behind defences and codecs; gradients as they came, before the receiver's own
defences; what the party sent, behind its defences and before a codec.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import StudyError, nearest
from ..graph.parts import Ref
from ..runtime.blueprint import Crossing
from ..runtime.compute import total
from ..runtime.party import Flight, Instead, LocalParty, Runner
from ..schedules.actions import Action, Op
from ..wire import Kind

__all__ = ["OwnState", "Sight", "Transcript", "stacked", "together", "watch"]

Parts = list[tuple[int, Tensor]]
_MOST_STATES = 400


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """One tensor of one frame, or one field of one of the party's own batches.

    Attributes:
        number: Counts all that the party saw, in order.
        step: The step.
        training: Whether the batch trained.
        kind: ``"activation"``, ``"gradient"``, ``"label"``, or ``"own"`` for a field of the party's own.
        cut: The frame's name, ``head->server`` or ``head<-server``; of a field of its own, the field's.
        tensor: The tensor's name.
        sender: Who sent it.
        receiver: Who received it.
        rows: What it was [B, ...].
    """

    number: int
    step: int
    training: bool
    kind: str
    cut: str
    tensor: str
    sender: str
    receiver: str
    rows: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class OwnState:
    """Weights of one of the party's own segments after a step.

    Attributes:
        step: The step.
        segment: The segment.
        weights: Its parameters and buffers.
    """

    step: int
    segment: str
    weights: dict[str, Tensor]


class Transcript:
    """What a party saw, the last rows of each tensor.

    Args:
        party: The party.
        most: How many rows of each tensor of a cut are kept, of training and of evaluation apart: the last.
    """

    def __init__(self, party: str, most: int = 2000) -> None:
        if most < 1:
            raise StudyError("a transcript keeps at least one row", got=f"most={most}")
        self.party, self.most = party, most
        self.noted = 0
        """How many sights were ever noted."""
        self.states: list[OwnState] = []
        """Weights of the party's own segments, in order."""
        self.states_every = 0
        self._kept: dict[tuple[object, ...], deque[Sight]] = {}
        self._rows: dict[tuple[object, ...], int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def __repr__(self) -> str:
        what = ", ".join(f"{kind} {cut}" for kind, cut in self.crossings) or "nothing"
        return f"Transcript({self.party!r} saw {what}; {len(self)} batches)"

    @property
    def crossings(self) -> list[tuple[str, str]]:
        """What was seen: kind and name of each cut."""
        return sorted({(s.kind, s.cut) for kept in self._kept.values() for s in kept})

    def note(self, kind: str, cut: str, tensor: str, between: tuple[str, str], step: int, training: bool,
             rows: Tensor) -> None:  # fmt: skip
        """Write down one tensor [B, ...], as a copy, that ``between[0]`` sent to ``between[1]``."""
        copied = rows.detach().to("cpu", copy=True)
        self.keep(Sight(self.noted, step, training, kind, cut, tensor, *between, copied))
        self.noted += 1

    def keep(self, sight: Sight) -> None:
        """Keep a sight, and forget the oldest of the same kind where there are too many rows."""
        key = (sight.kind, sight.cut, sight.tensor, sight.training, sight.sender == self.party)
        kept = self._kept.setdefault(key, deque())
        kept.append(sight)
        self._rows[key] = self._rows.get(key, 0) + len(sight.rows)
        while self._rows[key] > self.most and len(kept) > 1:
            self._rows[key] -= len(kept.popleft().rows)

    def keep_state(self, state: OwnState) -> None:
        """Keep weights; where they become too many of a segment, only those of every second step."""
        self.states.append(state)
        if sum(kept.segment == state.segment for kept in self.states) > _MOST_STATES:
            self.states_every *= 2
            self.states = [kept for kept in self.states if kept.step % self.states_every == 0]

    def sights(
        self,
        kind: str | None = None,
        *,
        cut: str | None = None,
        tensor: str | None = None,
        training: bool | None = None,
        peer: str | None = None,
    ) -> list[Sight]:
        """Return what was seen in order, all of it or what is asked for.

        Args:
            kind: Of one kind.
            cut: Over one cut, by either of its names, ``head->server`` or ``head<-server``.
            tensor: One tensor, by its name.
            training: In training, or in evaluation.
            peer: From or to one other party.
        """
        names = None if cut is None else {cut.replace("<-", "->"), cut.replace("->", "<-")}
        found = [
            sight
            for kept in self._kept.values()
            for sight in kept
            if (kind is None or sight.kind == kind)
            and (names is None or sight.cut in names)
            and (tensor is None or sight.tensor == tensor)
            and (training is None or sight.training == training)
            and (peer is None or peer in (sight.sender, sight.receiver))
        ]
        return sorted(found, key=lambda sight: sight.number)

    def only(
        self,
        *,
        cut: str | None = None,
        tensor: str | None = None,
        training: bool | None = None,
        peer: str | None = None,
    ) -> Transcript:
        """Return a transcript of a part of what was seen, as `sights` chooses it, and of what the party itself has."""
        part = Transcript(self.party, self.most)
        chosen = self.sights(cut=cut, tensor=tensor, training=training, peer=peer)
        numbers = {sight.number for sight in chosen}
        own = [s for s in self.sights("own", training=training) if s.number not in numbers]
        for sight in sorted(chosen + own, key=lambda sight: sight.number):
            part.keep(sight)
        part.noted, part.states = self.noted, self.states
        return part

    def rows(self, kind: str, **which: object) -> Tensor:
        """Return the rows of one tensor in order [N, ...]; the arguments are those of `sights`.

        Raises:
            StudyError: Nothing of the kind was seen, or several tensors were.
        """
        return stacked(self.sights(kind, **which), self.party, kind)  # type: ignore[arg-type]

    def pairs(self, first: str, second: str) -> tuple[list[Sight], list[Sight]]:
        """Return sights of two kinds in training that are of the same rows, in order.

        ``pairs("activation", "gradient")`` are what a party sent or received and what came back or went back for it.
        """
        others = {(s.step, len(s.rows)): s for s in self.sights(second, training=True)}
        mine = [s for s in self.sights(first, training=True) if (s.step, len(s.rows)) in others]
        return mine, [others[s.step, len(s.rows)] for s in mine]


def stacked(sights: Iterable[Sight], party: str, kind: str) -> Tensor:
    """Return the rows of several sights of one tensor [N, ...].

    Raises:
        StudyError: There are none, or they are of several tensors.
    """
    found = list(sights)
    names = sorted({f"{s.cut} {s.tensor}" for s in found})
    if len(names) != 1:
        raise StudyError(
            f"what the party saw holds {'several tensors' if names else 'nothing'} of kind {kind!r}",
            party=party,
            got=", ".join(names) or None,
            expected="one",
            todo="choose with cut= and tensor=" if names else "watch a party that receives it",
        )
    return torch.cat([sight.rows for sight in found])


def watch(party: str, *, most: int = 2000, states_every: int = 0) -> tuple[Transcript, Instead]:
    """Return a transcript of ``party``, empty, and what writes it in ``study.simulate(..., instead=...)``.

    Args:
        party: The party's name.
        most: How many rows of each tensor are kept; see `Transcript`.
        states_every: Keep the weights of the party's own segments after every so many steps; 0: never. Where there
            would be more than 400 of a segment, steps are farther apart.
    """
    transcript = Transcript(party, most)
    transcript.states_every = states_every

    def instead(local: LocalParty, action: Action, honest: Runner) -> Runner:
        if local.name != party:
            names = [placed.name for placed in local.shared.blueprint.graph.parties]
            if party not in names:
                raise StudyError(f"no party is named {party!r}", todo=nearest(party, names))
            return honest
        if action.op in (Op.SEND, Op.RECEIVE):
            return _Watch(transcript, local, action, honest).run
        if action.op is Op.LOAD:
            return _own(transcript, local, honest)
        if action.op is Op.STEP and states_every:
            return _stepping(transcript, local, action, honest)
        return honest

    return transcript, instead


def together(*those: Instead) -> Instead:
    """Return what lets several watch, or cheat, in one run; the first is nearest to the honest action."""

    def instead(local: LocalParty, action: Action, honest: Runner) -> Runner:
        for each in those:
            honest = each(local, action, honest)
        return honest

    return instead


class _Watch:
    """Writes down what one action sends or receives."""

    def __init__(self, transcript: Transcript, local: LocalParty, action: Action, honest: Runner) -> None:
        self._transcript, self._local, self._honest = transcript, local, honest
        self._sends = action.op is Op.SEND
        self._between = (local.name, action.peer) if self._sends else (action.peer, local.name)
        self._parcel = local.shared.blueprint.parcel(action.what)

    def run(self, step: int, what: str) -> None:
        flight = self._local.flight(step)
        ledger = flight.gradients = _Ledger(flight.gradients, self._sends)
        try:
            self._honest(step, what)
        finally:
            flight.gradients = dict(ledger)
        for crossing in self._parcel:
            for name, rows in _READ[crossing.kind](flight, crossing, ledger):
                kind = crossing.kind.name.lower()
                self._transcript.note(kind, crossing.name, name, self._between, step, flight.training, rows)


class _Ledger(dict[Ref, Parts]):
    """The gradients of a step, with what was taken out of them: by a frame that left, or by a defence's look."""

    def __init__(self, gradients: dict[Ref, Parts], sends: bool) -> None:
        super().__init__(gradients)
        self._taken: dict[Ref, Parts] = {}
        self._sends = sends

    def pop(self, ref: Ref, *default: Parts | None) -> Parts | None:  # type: ignore[override]
        """Take the gradients of ``ref`` out: the last time they leave, the first time they are as they came."""
        parts = super().pop(ref, *default)
        if parts and (self._sends or ref not in self._taken):
            self._taken[ref] = parts
        return parts

    def carried(self, *refs: Ref) -> Tensor | None:
        """Return what a frame carried for the first of ``refs`` that it was about."""
        for ref in refs:
            parts = self._taken.get(ref) or self.get(ref)
            if parts:
                return total(parts) if self._sends else parts[-1][1]
        return None


def _gradients(flight: Flight, crossing: Crossing, ledger: _Ledger) -> Iterable[tuple[str, Tensor]]:
    for name, ref in zip(crossing.names, crossing.refs, strict=True):
        gradient = ledger.carried(Ref(crossing.cut.name, ref.output), ref)
        if gradient is not None:
            yield name, gradient


def _activations(flight: Flight, crossing: Crossing, ledger: _Ledger) -> Iterable[tuple[str, Tensor]]:
    for name, ref in zip(crossing.names, crossing.refs, strict=True):
        yield name, flight.values.get(Ref(crossing.cut.name, ref.output), flight.values[ref])


def _labels(flight: Flight, crossing: Crossing, ledger: _Ledger) -> Iterable[tuple[str, Tensor]]:
    for name in crossing.names:
        if name in flight.fields:
            yield name, flight.fields[name]


_Read = Callable[[Flight, Crossing, _Ledger], Iterable[tuple[str, Tensor]]]
_READ: dict[Kind, _Read] = {
    Kind.ACTIVATION: _activations, Kind.GRADIENT: _gradients, Kind.LABEL: _labels,
}  # fmt: skip


def _own(transcript: Transcript, local: LocalParty, honest: Runner) -> Runner:
    """Write down the party's own fields of one number a row: its labels."""

    def run(step: int, what: str) -> None:
        honest(step, what)
        flight = local.flight(step)
        for name, rows in flight.fields.items():
            if rows.numel() == len(rows):
                between = (local.name, local.name)
                transcript.note("own", name, name, between, step, flight.training, rows)

    return run


def _stepping(transcript: Transcript, local: LocalParty, action: Action, honest: Runner) -> Runner:
    """Keep the weights of a segment of the party's own, every now and then."""
    segment = action.what.partition("#")[0]

    def run(step: int, what: str) -> None:
        honest(step, what)
        if step % transcript.states_every == 0:
            weights = {name: tensor.cpu() for name, tensor in local.live[action.what].weights().items()}
            transcript.keep_state(OwnState(step, segment, weights))

    return run
