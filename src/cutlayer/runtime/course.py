"""The whole of a training as epochs of items, and where in it which party acts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice

from ..graph.split_graph import SplitGraph
from ..schedules.actions import Action, Op
from ..schedules.base import Schedule, ending, verdict
from ..schedules.calendar import UNLABELLED, Batch, Calendar
from ..schedules.steps import Step
from .positions import Position, next_own
from .stopping import EarlyStopping

__all__ = ["Course"]

_END_OF_TRAINING = 2**40
_ENDS = frozenset({Op.GIVE, Op.MERGE, Op.DROP})
_MOVES = _ENDS | {Op.TAKE, Op.FORK, Op.COPY}
"""What begins and ends states' and copies' stay with a party."""


class Course:
    """What all parties do, epoch by epoch: training items, then evaluations, then the verdict.

    Args:
        graph: Who does it.
        schedule: In which order.
        calendar: With which rows.
        epochs: For how long.
        evaluate: Splits that are measured after each epoch, where somebody has them.
        stopping: What the verdict goes by, if there is one.
    """

    def __init__(
        self,
        graph: SplitGraph,
        schedule: Schedule,
        calendar: Calendar,
        epochs: int,
        evaluate: Sequence[str],
        stopping: EarlyStopping | None,
    ) -> None:
        self.graph, self.schedule, self.calendar, self.epochs = graph, schedule, calendar, epochs
        self.splits = tuple(split for split in evaluate if any(rows.get(split) for rows in calendar.rows))
        self.stopping = stopping

    @property
    def end(self) -> Position:
        """Where everything is done."""
        return Position(self.epochs, 0)

    def training(self, epoch: int) -> Iterator[Action | Step]:
        """Yield the items of training in ``epoch``."""
        return self.schedule.epoch(self.graph, self.calendar, epoch)

    def evaluation(self, epoch: int, split: str) -> Iterator[Action | Step]:
        """Yield how ``split`` is measured after ``epoch``."""
        return self.schedule.evaluation(self.graph, self.calendar, epoch, split)

    def verdict(self, epoch: int) -> Iterator[Action]:
        """Yield how all learn whether to stop after ``epoch``."""
        if self.stopping is not None:
            stopping = self.stopping
            yield from verdict(self.graph, self.calendar, epoch, stopping.split, stopping.loss)

    def until(self, party: str, position: Position) -> Position:
        """Return up to where the state that ``party`` has at ``position`` stays as it is: its next action."""
        for epoch in range(position.epoch, self.epochs):
            start = position.item if epoch == position.epoch else 0
            index = next_own(self.training(epoch), party, start)
            if index is not None:
                return Position(epoch, index)
            if next_own(self._rest(epoch), party, 0) is not None:
                return Position(epoch, _END_OF_TRAINING)
        return self.end

    def first_step(self, epoch: int) -> int:
        """Return the number of the first step of ``epoch``; a schedule may count otherwise than a step a batch."""
        steps = getattr(self.schedule, "steps", None)
        if steps is None:
            return self.calendar.first_step(epoch)
        return sum(steps(self.calendar, earlier) for earlier in range(epoch))

    def ending(self) -> Iterator[Action]:
        """Yield what is done once training is over."""
        return ending(self.schedule, self.graph, self.calendar, self.epochs)

    def holders(self, position: Position) -> frozenset[str]:
        """Return who cannot be left out from ``position`` on: a state, or copies of a turn, are theirs to hand on."""
        for epoch in range(position.epoch, self.epochs):
            start = position.item if epoch == position.epoch else 0
            found = self._next_holders(chain(islice(self.training(epoch), start, None), self._rest(epoch)))
            if found is not None:
                return found
        for epoch in range(min(position.epoch, self.epochs - 1), -1, -1):
            items = list(islice(self.training(epoch), position.item if epoch == position.epoch else None))
            for item in reversed(items):
                if not isinstance(item, Step) and item.op is Op.TAKE:
                    return frozenset({item.party} if "#" not in item.what else ())
        return frozenset()

    def _next_holders(self, items: Iterator[Action | Step]) -> frozenset[str] | None:
        """Return whose states, or whose turns' copies, are there already when ``items`` begin; None: nothing moves."""
        found: dict[str, set[str]] = {}  # by state or copy; empty where it is first taken or made
        for item in items:
            if isinstance(item, Step) or item.op not in _MOVES:
                continue
            what = item.what.partition("*")[0]
            if what in found:
                continue
            turn = what.partition("#")[2]
            found[what] = set()
            if item.op in _ENDS and turn:
                crowded = [r for r, own in self.graph.roles.items() if len(own.parties) > 1]
                found[what] = {self.graph.turns[int(turn)][r] for r in crowded}
            elif item.op is Op.GIVE:
                found[what] = {item.party}
        return frozenset().union(*found.values()) if found else None

    def done(self, position: Position, turn: int) -> int:
        """Return up to which of its training batches ``turn`` got in the epoch of ``position`` before it."""
        batches = [
            Batch.parse(name)
            for item in islice(self.training(position.epoch), position.item)
            if isinstance(item, Step)
            for name in item.batches
        ]
        split = "train" if self.calendar.batches(turn, "train") else UNLABELLED
        return max((b.number + 1 for b in batches if (b.turn, b.split) == (turn, split)), default=0)

    def _rest(self, epoch: int) -> Iterator[Action | Step]:
        for split in self.splits:
            yield from self.evaluation(epoch, split)
        yield from self.verdict(epoch)
