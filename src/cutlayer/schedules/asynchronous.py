"""Asynchronous split learning with bounded staleness: nobody waits for a round's end, and no copy grows too old."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import StudyError
from ..graph.split_graph import SplitGraph
from ..seeds import generator
from .actions import Action, Op
from .attendance import Attendance, Share
from .calendar import Batch, Calendar
from .copies import advance, averager_of, client_roles, hand_out, lend, measure, return_
from .steps import Step

__all__ = ["Asynchronous"]

_PARTS = 1_000_000  # in which a mixture of two states is weighed


@dataclass(frozen=True, kw_only=True)
class Asynchronous(Attendance):
    """Clients work at their own speeds; whoever is done mixes its copy into the clients' state and takes a new one.

    The server has one state, trained by batches in the order in which they arrive. That order is worked out
    from the stated speeds and the study's seed, so it is the same in every run. A copy that comes back when
    ``age`` others came since it was taken counts ``rate / (1 + age)``, the state as it is the rest (FedAsync,
    arXiv 1903.03934).

    Attributes:
        staleness: The greatest age of a copy. Who would make another's copy too old waits for that one; at most
            one client more than this is at work at a time.
        rate: How much a copy of age 0 counts, above 0 and up to 1.
        jitter: The random part of a batch's duration: 0.1 for up to a tenth more or less.
        averager: The party that mixes clients' copies; a server unless named.
    """

    staleness: int = 4
    rate: float = 0.5
    jitter: float = 0.1
    averager: str = ""
    name: str = "asynchronous"
    lacks: ClassVar[Mapping[str, tuple[str, str]]] = {
        "accumulate": ("its clock tells the order of single batches", "choose a larger batch_size"),
        "in_flight": ("other clients' batches fill the time while one waits", "leave in_flight out"),
        "unlabelled": (
            "its clock knows of batches for the server only",
            "use SplitFed(version=2, unlabelled=True)",
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.staleness < 0:
            raise StudyError("staleness is a number of averages, 0 or more", got=str(self.staleness))
        if not 0 < self.rate <= 1:
            raise StudyError("rate is above 0 and up to 1", got=str(self.rate))
        if not 0 <= self.jitter < 1:
            raise StudyError("jitter is a part of a duration, 0 or more and below 1", got=str(self.jitter))

    def describe(self) -> str:
        """Return the settings in one line."""
        words = [f"asynchronous, copies at most {self.staleness} averages old, rate {self.rate:g}"]
        words += [self.attendance(), f"jitter {self.jitter:g}"]
        words += [f"mixed by {self.averager}"] if self.averager else []
        return ", ".join([*words, *self.options()])

    def averages(self, graph: SplitGraph) -> str:
        """Return the party that sees and mixes the clients' states."""
        client_roles(graph)
        return averager_of(graph, self.averager)

    def epoch(self, graph: SplitGraph, calendar: Calendar, epoch: int) -> Iterator[Action | Step]:
        """Yield what happens in the order of the clock, until all rows are used up; then learning rates move on."""
        roles, averager = client_roles(graph), self.averages(graph)
        copies, step = frozenset(roles), calendar.first_step(epoch)
        for moment in _Clock(self, graph, calendar, epoch).moments():
            turn = moment.turn
            if moment.kind == "take":
                yield from lend(graph, roles, turn, step, averager)
            elif moment.kind == "train":
                batch = Batch("train", turn, epoch, moment.number)
                yield self.step_on(graph, turn, step, (batch,), copies)
                step += 1
            else:
                share = round(_PARTS * self.rate / (1 + moment.number))
                for role in roles if share < _PARTS else ():
                    yield Action(step, averager, Op.MERGE, f"{role}*{_PARTS - share}")
                yield from return_(graph, roles, turn, step, averager, share)
                for role in roles:
                    yield Action(step, averager, Op.AVERAGE, role)
        yield from advance(graph, (), step, averager)

    def evaluation(
        self, graph: SplitGraph, calendar: Calendar, epoch: int, split: str
    ) -> Iterator[Action | Step]:
        """Yield how every client that has rows of ``split`` measures, with the state that all made."""
        lent, step = frozenset(client_roles(graph)), calendar.first_step(epoch + 1)
        yield from measure(graph, calendar, epoch, split, step, lent, self.averages(graph))

    def ending(self, graph: SplitGraph, calendar: Calendar, epochs: int) -> Iterator[Action]:
        """Yield how every client gets the last state, after ``epochs`` epochs."""
        yield from hand_out(graph, client_roles(graph), calendar.first_step(epochs), self.averages(graph))


@dataclass(frozen=True)
class _Moment:
    """A client takes a copy, trains on batch ``number``, or returns a copy that is ``number`` averages old."""

    kind: str
    turn: int
    number: int = 0


class _Clock:
    """What happens when, by stated speeds.

    It ends, and keeps its bound: copies are returned in such an order that the oldest of those that are out can still
    be returned in time, then the next oldest, and so on; so the oldest never has to wait.
    """

    def __init__(self, schedule: Asynchronous, graph: SplitGraph, calendar: Calendar, epoch: int) -> None:
        self._bound, self._jitter = schedule.staleness, schedule.jitter
        self._draw = generator(calendar.seed, "clock", epoch)
        self._seconds = [1 / schedule.speed(graph, turn) for turn in range(len(calendar.rows))]
        self._work: dict[int, deque[Share]] = {}
        for number in range(schedule.rounds(calendar, epoch)):
            for share in schedule.shares(graph, calendar, epoch, number):
                self._work.setdefault(share.turn, deque()).append(share)
        self._version = 0
        self._taken: dict[int, int] = {}
        self._queue: list[tuple[float, int, int]] = []

    def moments(self) -> Iterator[_Moment]:
        """Yield all of them in order."""
        waiting, done = deque(self._work), list[int]()
        now = 0.0
        while waiting or self._taken:
            while waiting and len(self._taken) <= self._bound:
                yield self._take(waiting.popleft(), now)
            returning = next((turn for turn in done if self._may_return(turn)), None)
            if returning is not None:
                done.remove(returning)
                yield _Moment("return", returning, self._version - self._taken.pop(returning))
                self._version += 1
                if self._work[returning]:
                    waiting.append(returning)
                continue
            now, turn, number = heapq.heappop(self._queue)
            yield _Moment("train", turn, number)
            share = self._work[turn][0]
            if number + 1 < share.end:
                self._plan(turn, number + 1, now)
            else:
                self._work[turn].popleft()
                done.append(turn)

    def _take(self, turn: int, now: float) -> _Moment:
        self._taken[turn] = self._version
        self._plan(turn, self._work[turn][0].first, now)
        return _Moment("take", turn)

    def _plan(self, turn: int, number: int, now: float) -> None:
        """Note when the client's next batch will be done."""
        swing = float(np.round(self._draw.uniform(-1, 1), 9)) * self._jitter
        heapq.heappush(self._queue, (now + self._seconds[turn] * (1 + swing), turn, number))

    def _may_return(self, turn: int) -> bool:
        """Whether the others can all still return in time after this one, the oldest first."""
        others = sorted(version for other, version in self._taken.items() if other != turn)
        after = self._version + 1
        return all(after + place - version <= self._bound for place, version in enumerate(others))
