"""What an optimizer step is made of: how many batches, whether gradients are clipped, which losses and rows teach."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..errors import StudyError
from ..graph.split_graph import SplitGraph
from .at_home import semi_supervised_step, unit, units
from .calendar import Batch, Calendar
from .clipping import clipped
from .micro import micro_step
from .steps import NO_COPIES, Step, training_step

__all__ = ["StepOptions"]


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """Settings that schedules have in common; which of them one does not have, and why, it says itself.

    Attributes:
        accumulate: Batches whose gradients are averaged for one optimizer step: micro-batches.
        in_flight: How many of these a party may have begun and not finished: its next forwards while it waits.
        clip: The most that the norm of the gradients of all parties of a step together may be; None for no bound.
        local: Clients learn from losses of their own role, and no gradient comes back over cuts behind these.
        unlabelled: Clients' rows of the split ``unlabelled`` teach encoder and decoder at home, a few batches after
            each batch with labels (algorithm 3).
        lacks: Options that a schedule does not have: why, and what to use instead.
    """

    accumulate: int = 1
    in_flight: int = 1
    clip: float | None = None
    local: bool = False
    unlabelled: bool = False
    lacks: ClassVar[Mapping[str, tuple[str, str]]] = {}

    def __post_init__(self) -> None:
        for name, (why, instead) in self.lacks.items():
            given = getattr(self, name)
            if given != getattr(type(self), name):
                raise StudyError(
                    f"{type(self).__name__} has no {name}: {why}", got=f"{name}={given}", todo=instead
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

    def options(self) -> list[str]:
        """Return these settings as words; none where they are as if nothing was said."""
        words = []
        if self.accumulate > 1:
            words.append(f"steps of {self.accumulate} batches, {self.in_flight} in flight")
        if self.clip is not None:
            words.append(f"gradients clipped to a norm of {self.clip:g}")
        words += ["local losses, no gradient back"] if self.local else []
        return [*words, *(["unlabelled rows at home"] if self.unlabelled else [])]

    def units(self, calendar: Calendar, turn: int, epoch: int) -> int:
        """Return how many batches a turn counts in ``epoch``: those with labels, or all if it has none with labels."""
        return units(calendar, turn, epoch) if self.unlabelled else calendar.batches(turn, "train", epoch)

    def groups(
        self, calendar: Calendar, turn: int, epoch: int, first: int, end: int
    ) -> Iterator[tuple[Batch, ...]]:
        """Yield what is trained on together, of a turn's batches from ``first`` to before ``end``."""
        for begin in range(first, end, self.accumulate):
            if self.unlabelled:
                yield tuple(unit(calendar, turn, epoch, begin))
            else:
                numbers = range(begin, min(begin + self.accumulate, end))
                yield tuple(Batch("train", turn, epoch, number) for number in numbers)

    def step_on(
        self,
        graph: SplitGraph,
        turn: int,
        step: int,
        batches: tuple[Batch, ...],
        copies: frozenset[str] = NO_COPIES,
    ) -> Step:
        """Return the step on a group of batches, each of which has a number of step of its own.

        Args:
            graph: What is trained.
            turn: Who takes part.
            step: The first batch's step number.
            batches: The group.
            copies: Roles whose copy with the turn's number is trained, in place of their one state.
        """
        if self.unlabelled:
            return semi_supervised_step(graph, turn, step, batches, copies=copies, local=self.local)
        if len(batches) == 1:
            made = training_step(graph, turn, step, batches[0], copies=copies, local=self.local)
        else:
            names = tuple(map(str, batches))
            made = micro_step(graph, turn, step, names, self.in_flight, copies=copies, local=self.local)
        return self.bounded(graph, made)

    def bounded(self, graph: SplitGraph, step: Step) -> Step:
        """Return ``step`` with its gradients clipped, if they are to be."""
        return step if self.clip is None else clipped(graph, step, self.clip)
