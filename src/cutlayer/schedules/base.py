"""What every schedule is: something that yields the actions of an epoch, in an order that can be performed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ..graph.split_graph import SplitGraph
from .actions import Action, Op, Program
from .calendar import Calendar
from .steps import Step, flat

__all__ = ["Schedule", "ending", "program_of", "verdict"]


class Schedule(Protocol):
    """WHEN: writes the program of a study. One function of ten to thirty lines that yields actions.

    It may have an ``ending(graph, calendar, epochs)`` too, which yields what is done once training is over.
    """

    @property
    def name(self) -> str:
        """The schedule's name."""
        ...

    def epoch(self, graph: SplitGraph, calendar: Calendar, epoch: int) -> Iterator[Action | Step]:
        """Yield the training actions of ``epoch``, those of all parties merged."""
        ...

    def evaluation(
        self, graph: SplitGraph, calendar: Calendar, epoch: int, split: str
    ) -> Iterator[Action | Step]:
        """Yield the actions that measure the network on ``split`` after ``epoch``."""
        ...

    def describe(self) -> str:
        """Return the schedule's settings in one line."""
        ...


def verdict(
    graph: SplitGraph, calendar: Calendar, epoch: int, split: str, loss: str | None = None
) -> Iterator[Action]:
    """Yield how all parties learn whether ``epoch`` was the best so far and whether to stop.

    The parties that compute ``loss`` (the graph's first unless given) tell their metrics of ``split`` to
    the first of them, who judges and tells everyone; then each party that holds segments keeps a
    snapshot if the epoch was the best.
    """
    step = calendar.first_step(epoch + 1)
    role = graph.losses[loss].role if loss is not None else graph.label_roles[0]
    measured = [graph.turns[t][role] for t in range(len(graph.turns)) if calendar.batches(t, split, epoch)]
    judge, *others = dict.fromkeys(measured)
    for party in others:
        yield Action(step, party, Op.TELL, f"metrics/{epoch}", judge)
        yield Action(step, judge, Op.HEAR, f"metrics/{epoch}", party)
    for placed in graph.parties:
        if placed.name != judge:
            yield Action(step, judge, Op.TELL, f"verdict/{epoch}", placed.name)
            yield Action(step, placed.name, Op.HEAR, f"verdict/{epoch}", judge)
    for placed in graph.parties:
        yield Action(step, placed.name, Op.SNAPSHOT, str(epoch))


def ending(schedule: Schedule, graph: SplitGraph, calendar: Calendar, epochs: int) -> Iterator[Action]:
    """Yield what ``schedule`` does once training is over: most do nothing."""
    last = getattr(schedule, "ending", None)
    if last is not None:
        yield from last(graph, calendar, epochs)


def program_of(
    schedule: Schedule,
    graph: SplitGraph,
    calendar: Calendar,
    epochs: int,
    splits: tuple[str, ...] = (),
    *,
    ended: bool = False,
) -> Program:
    """Return the program of all parties for ``epochs`` epochs, to print, compare and check.

    Args:
        schedule: Writes it.
        graph: Who has which segments.
        calendar: Which rows when.
        epochs: For how long.
        splits: What is measured after each epoch.
        ended: Whether training is over then, so that the schedule's ending is part of it.
    """
    actions: list[Action] = []
    for epoch in range(epochs):
        actions += flat(schedule.epoch(graph, calendar, epoch))
        for split in splits:
            actions += flat(schedule.evaluation(graph, calendar, epoch, split))
    if ended:
        actions += ending(schedule, graph, calendar, epochs)
    return Program(actions)
