"""Round robin: clients take turns, each taking over the last one's segment state (Gupta & Raskar 2018, algorithm 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..errors import StudyError, nearest
from ..graph.split_graph import SplitGraph
from .actions import Action, Op
from .at_home import semi_supervised_step, unit, units
from .calendar import Batch, Calendar
from .clipping import clipped
from .micro import micro_step
from .steps import Step, data_roles, evaluation_step, hand_over, training_step

__all__ = ["RoundRobin"]


@dataclass(frozen=True, kw_only=True)
class RoundRobin:
    """Clients take turns; the result equals one client that has all the data in the same order.

    Attributes:
        handover: ``"peer"``: the state goes straight to the next client; ``"server"``: sealed, through
            the server, which passes it on unopened.
        turn: Batches in a turn; 0 means an epoch of the client's own data.
        accumulate: Batches whose gradients are averaged for one optimizer step: micro-batches.
        in_flight: How many of these a party may have begun and not finished: its next forwards while it waits.
        clip: The most that the norm of all parties' gradients together may be; None for no bound.
        local: Clients learn from losses of their own role, and no gradient comes back over cuts behind these.
        unlabelled: Clients' rows of the split ``unlabelled`` teach encoder and decoder at home, a few batches after
            each batch with labels (algorithm 3).
    """

    handover: Literal["peer", "server"] = "peer"
    turn: int = 0
    accumulate: int = 1
    in_flight: int = 1
    clip: float | None = None
    local: bool = False
    unlabelled: bool = False
    name: str = "round_robin"

    def __post_init__(self) -> None:
        if self.handover not in ("peer", "server"):
            raise StudyError(f"handover={self.handover!r}", todo=nearest(self.handover, ["peer", "server"]))
        if self.turn < 0:
            raise StudyError(
                "a turn has at least one batch",
                got=str(self.turn),
                todo="0 means a whole epoch of the client's data",
            )

        for name in ("accumulate", "in_flight"):
            if getattr(self, name) < 1:
                raise StudyError(f"{name} is at least 1 batch", got=str(getattr(self, name)))
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise StudyError("clip is the bound of a norm, above 0", got=str(self.clip))
        self._check_unlabelled()
        if self.in_flight > self.accumulate:
            raise StudyError(
                "no more batches are in flight than an optimizer step has",
                got=f"in_flight={self.in_flight}, accumulate={self.accumulate}",
                todo="let accumulate be as large: later batches need the weights after the step",
            )

    def _check_unlabelled(self) -> None:
        """Refuse what would tie rows that stay at home to other parties or other rows."""
        for name, given, plain in (("accumulate", self.accumulate, 1), ("clip", self.clip, None)):
            if self.unlabelled and given != plain:
                raise StudyError(
                    f"with unlabelled=True there is no {name}: each batch without labels is a step at one party alone",
                    got=f"{name}={given}",
                    todo=f"leave {name} out",
                )

    def describe(self) -> str:
        """Return the settings in one line."""
        count = "1 batch" if self.turn == 1 else f"{self.turn} batches"
        length = count if self.turn else "an epoch of the client's data"
        way = "peer to peer" if self.handover == "peer" else "through the server"
        local = ", local losses, no gradient back" if self.local else ""
        clip = f", gradients clipped to a norm of {self.clip:g}" if self.clip is not None else ""
        micro = (
            f", steps of {self.accumulate} batches, {self.in_flight} in flight" if self.accumulate > 1 else ""
        )
        alone = ", unlabelled rows at home" if self.unlabelled else ""
        return f"round robin, a turn is {length}, hand-over {way}{micro}{clip}{local}{alone}"

    def epoch(self, graph: SplitGraph, calendar: Calendar, epoch: int) -> Iterator[Action | Step]:
        """Yield the turns of ``epoch``: hand-over, then training steps; at the end the learning rate moves on."""
        step = calendar.first_step(epoch)
        holder = self._holder(calendar, epoch)
        for turn, first, count in self._turns(calendar, epoch):
            yield from self._pass_on(graph, holder, turn, step)
            holder = turn
            for begin in range(first, first + count, self.accumulate):
                end = min(begin + self.accumulate, first + count)
                batches = [Batch("train", turn, epoch, n) for n in range(begin, end)]
                if self.unlabelled:
                    batches = unit(calendar, turn, epoch, begin)
                yield self._step(graph, turn, step, batches)
                step += len(batches)
        if holder is None:
            return
        for name in graph.order:
            if any(p.requires_grad for p in graph.segments[name].module.parameters()):
                yield Action(step, graph.turns[holder][graph.segments[name].role], Op.ADVANCE, name)

    def evaluation(
        self, graph: SplitGraph, calendar: Calendar, epoch: int, split: str
    ) -> Iterator[Action | Step]:
        """Yield one round over the parties that have rows of ``split``, then the metrics at the label holders."""
        step = calendar.first_step(epoch + 1)
        holder = trained = self._last_trained(calendar, epoch)
        scored: dict[str, None] = {}
        for turn in range(len(graph.turns)):
            batches = calendar.batches(turn, split, epoch)
            if not batches:
                continue
            yield from self._pass_on(graph, holder, turn, step)
            holder = turn
            for index in range(batches):
                yield evaluation_step(graph, turn, step, Batch(split, turn, epoch, index))
            scored.update({graph.turns[turn][role]: None for role in graph.label_roles})
        # The state goes back to where training left it, so that training needs to know of no evaluation.
        if holder is not None:
            yield from self._pass_on(graph, holder, trained, step)
        for party in scored:
            yield Action(step, party, Op.EVALUATE, f"{split}/{epoch}")

    def _step(self, graph: SplitGraph, turn: int, step: int, batches: list[Batch]) -> Step:
        if self.unlabelled:
            return semi_supervised_step(graph, turn, step, batches, local=self.local)
        if len(batches) == 1:
            made = training_step(graph, turn, step, batches[0], local=self.local)
        else:
            names = tuple(map(str, batches))
            made = micro_step(graph, turn, step, names, self.in_flight, local=self.local)
        return made if self.clip is None else clipped(graph, made, self.clip)

    def _turns(self, calendar: Calendar, epoch: int) -> Iterator[tuple[int, int, int]]:
        """Yield (turn, first batch, number of batches) until every client's epoch is used up."""
        done = [0] * len(calendar.rows)
        turns = range(len(calendar.rows))
        if self.unlabelled:
            total = [units(calendar, turn, epoch) for turn in turns]
        else:
            total = [calendar.batches(turn, "train", epoch) for turn in turns]
        while any(d < t for d, t in zip(done, total, strict=True)):
            for turn, batches in enumerate(total):
                count = min(self.turn or batches, batches - done[turn])
                if count:
                    yield turn, done[turn], count
                    done[turn] += count

    def _last_trained(self, calendar: Calendar, epoch: int) -> int | None:
        """Return the turn that trained last, in ``epoch`` or before; nobody at the very start."""
        for earlier in range(epoch, -1, -1):
            turns = [turn for turn, _, _ in self._turns(calendar, earlier)]
            if turns:
                return turns[-1]
        return None

    def _holder(self, calendar: Calendar, epoch: int) -> int | None:
        """Return the turn whose parties hold the state when ``epoch`` begins; nobody at the very start."""
        return self._last_trained(calendar, epoch - 1)

    def _pass_on(
        self, graph: SplitGraph, holder: int | None, turn: int | None, step: int
    ) -> Iterator[Action]:
        """Yield the hand-over from one turn's parties to the next one's, for each role that has many parties."""
        if holder is None or turn is None:
            return
        for role in graph.roles.values():
            giver, taker = graph.turns[holder][role.name], graph.turns[turn][role.name]
            if giver != taker and graph.segments_of(role.name):
                yield from hand_over(role.name, giver, taker, step, self.relay(graph))

    def relay(self, graph: SplitGraph) -> str:
        """Return the party that passes hand-overs on, empty where they go straight to the next client.

        It is one that serves every turn and, where there is one, holds no raw input.

        Raises:
            StudyError: ``handover="server"``, and no party takes part in every turn.
        """
        handed = any(len(role.parties) > 1 and graph.segments_of(role.name) for role in graph.roles.values())
        if self.handover == "peer" or not handed:
            return ""
        single = [role for role in graph.roles.values() if len(role.parties) == 1]
        if not single:
            raise StudyError(
                "handover='server' needs a party that takes part in every turn",
                todo="use handover='peer', or give one role a single party",
            )
        inputs = data_roles(graph, labels=False)
        return min(single, key=lambda role: role.name in inputs).parties[0]
