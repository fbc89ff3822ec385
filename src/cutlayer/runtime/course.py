"""The whole of a training as epochs of items, and where in it which party acts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice

from ..graph.split_graph import SplitGraph
from ..schedules.actions import Action, Op
from ..schedules.base import Schedule, ending, verdict
from ..schedules.calendar import Batch, Calendar
from ..schedules.steps import Step
from .positions import Position, next_own
from .stopping import EarlyStopping

__all__ = ["Course"]

_END_OF_TRAINING = 2**40


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
        """Return who has, at ``position``, a state that is handed over: whoever gives one next, or took the last."""
        found: dict[str, str] = {}  # by state, who gives it first
        for epoch in range(position.epoch, self.epochs):
            start = position.item if epoch == position.epoch else 0
            for item in chain(islice(self.training(epoch), start, None), self._rest(epoch)):
                if not isinstance(item, Step) and item.op in (Op.GIVE, Op.TAKE):
                    found.setdefault(item.what, item.party if item.op is Op.GIVE else "")
            if found:
                return frozenset(found.values()) - {""}
        for epoch in range(min(position.epoch, self.epochs - 1), -1, -1):
            items = list(islice(self.training(epoch), position.item if epoch == position.epoch else None))
            for item in reversed(items):
                if not isinstance(item, Step) and item.op is Op.TAKE:
                    return frozenset({item.party} if "#" not in item.what else ())
        return frozenset()

    def done(self, position: Position, turn: int) -> int:
        """Return up to which of its training batches ``turn`` got in the epoch of ``position`` before it."""
        batches = [
            Batch.parse(name)
            for item in islice(self.training(position.epoch), position.item)
            if isinstance(item, Step)
            for name in item.batches
        ]
        return max((batch.number + 1 for batch in batches if batch.turn == turn), default=0)

    def _rest(self, epoch: int) -> Iterator[Action | Step]:
        for split in self.splits:
            yield from self.evaluation(epoch, split)
        yield from self.verdict(epoch)
