"""What every schedule is: something that yields the actions of an epoch, in an order that can be performed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ..graph.split_graph import SplitGraph
from .actions import Action, Op, Program
from .calendar import Calendar

__all__ = ["Schedule", "program_of", "verdict"]


class Schedule(Protocol):
    """WHEN: writes the program of a study. One function of ten to thirty lines that yields actions."""

    name: str

    def epoch(self, graph: SplitGraph, calendar: Calendar, epoch: int) -> Iterator[Action]:
        """Yield the training actions of ``epoch``, those of all parties merged."""
        ...

    def evaluation(self, graph: SplitGraph, calendar: Calendar, epoch: int, split: str) -> Iterator[Action]:
        """Yield the actions that measure the network on ``split`` after ``epoch``."""
        ...

    def describe(self) -> str:
        """Return the schedule's settings in one line."""
        ...


def verdict(graph: SplitGraph, epoch: int, step: int) -> Iterator[Action]:
    """Yield the telling of one label holder's verdict (go on or stop; best so far or not) to all other parties."""
    judge = graph.roles[graph.label_roles[0]].parties[0]
    others = [party.name for party in graph.parties if party.name != judge]
    for party in others:
        yield Action(step, judge, Op.TELL, str(epoch), party)
        yield Action(step, party, Op.HEAR, str(epoch), judge)


def program_of(
    schedule: Schedule, graph: SplitGraph, calendar: Calendar, epochs: int, splits: tuple[str, ...] = ()
) -> Program:
    """Return the whole program of all parties for ``epochs`` epochs, to print, compare and check."""
    actions: list[Action] = []
    for epoch in range(epochs):
        actions += schedule.epoch(graph, calendar, epoch)
        for split in splits:
            actions += schedule.evaluation(graph, calendar, epoch, split)
    return Program(actions)
