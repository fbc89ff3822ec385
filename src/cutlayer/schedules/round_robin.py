"""Round robin: clients take turns, each taking over the last one's segment state (Gupta & Raskar 2018, algorithm 2)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal

from ..errors import StudyError, nearest
from ..graph.split_graph import SplitGraph
from .actions import Action, Op
from .calendar import Batch, Calendar
from .step_options import StepOptions
from .steps import Step, data_roles, evaluation_step, hand_over, repeated

__all__ = ["RoundRobin"]


@dataclass(frozen=True, kw_only=True)
class RoundRobin(StepOptions):
    """Clients take turns; the result equals one client that has all the data in the same order.

    Attributes:
        handover: ``"peer"``: the state goes straight to the next client; ``"server"``: sealed, through
            the server, which passes it on unopened.
        turn: Batches in a turn; 0 means an epoch of the client's own data.
        updates: Weights are handed over as what changed in them since the beginning, to the last bit: the initial
            weights are everybody's, by the study's seed.
    """

    handover: Literal["peer", "server"] = "peer"
    turn: int = 0
    updates: bool = False
    name: str = "round_robin"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.handover not in ("peer", "server"):
            raise StudyError(f"handover={self.handover!r}", todo=nearest(self.handover, ["peer", "server"]))
        if self.turn < 0:
            raise StudyError(
                "a turn has at least one batch",
                got=str(self.turn),
                todo="0 means a whole epoch of the client's data",
            )

    def describe(self) -> str:
        """Return the settings in one line."""
        count = "1 batch" if self.turn == 1 else f"{self.turn} batches"
        length = count if self.turn else "an epoch of the client's data"
        way = "peer to peer" if self.handover == "peer" else "through the server"
        words = [f"round robin, a turn is {length}, hand-over {way}{' of updates' if self.updates else ''}"]
        return ", ".join([*words, *self.options()])

    def epoch(self, graph: SplitGraph, calendar: Calendar, epoch: int) -> Iterator[Action | Step]:
        """Yield the turns of ``epoch``: hand-over, then training steps; at the end the learning rate moves on."""
        step = calendar.first_step(epoch)
        holder = self._holder(calendar, epoch)
        for turn, first, count in self._turns(calendar, epoch):
            yield from self._pass_on(graph, holder, turn, step)
            holder = turn
            step = yield from self._train(graph, calendar, Batch("train", turn, epoch, first), count, step)
        if holder is None:
            return
        for name in graph.order:
            if any(p.requires_grad for p in graph.segments[name].module.parameters()):
                yield Action(step, graph.turns[holder][graph.segments[name].role], Op.ADVANCE, name)

    def _train(
        self, graph: SplitGraph, calendar: Calendar, batch: Batch, count: int, step: int
    ) -> Generator[Step, None, int]:
        """Yield the steps on ``count`` batches from ``batch`` on; return the number of the step after them."""
        end = batch.number + count
        if self.accumulate == 1 and not self.unlabelled:
            yield from repeated(self.step_on(graph, batch.turn, step, (batch,)), batch, end)
            return step + count
        for batches in self.groups(calendar, batch.turn, batch.epoch, batch.number, end):
            yield self.step_on(graph, batch.turn, step, batches)
            step += len(batches)
        return step

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

    def _turns(self, calendar: Calendar, epoch: int) -> Iterator[tuple[int, int, int]]:
        """Yield (turn, first batch, number of batches) until every client's epoch is used up."""
        done = [0] * len(calendar.rows)
        total = [self.units(calendar, turn, epoch) for turn in range(len(calendar.rows))]
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
                what = f"{role.name}:update" if self.updates else role.name
                yield from hand_over(what, giver, taker, step, self.relay(graph))

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
