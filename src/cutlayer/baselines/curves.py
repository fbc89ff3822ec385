"""How well a run had learned by what it had cost a client: the curves that methods are compared by."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..data import Holdings
from ..metering.events import Event
from ..metering.learned import measured
from ..metering.merging import merged
from ..metering.metrics import HIGHER_IS_BETTER
from ..metering.reading import ended_epochs
from ..runtime.cohorts import Cohorts
from ..runtime.course import Course
from ..schedules.actions import Action, Op
from ..study import Study
from .account import Spent, spent_by_epoch

__all__ = ["Curve", "Point", "curve_of", "training_share"]

_SENT = frozenset({Op.GIVE, Op.COPY, Op.RELAY})


@dataclass(frozen=True)
class Point:
    """Where a run was after an epoch, or a round.

    Attributes:
        epoch: Which, counted from 0.
        flops: That training had cost a client, as a mean over all clients.
        bytes: Likewise, of frames, sent and received.
        seconds: That training had taken, all parties in one process.
        score: The metric then.
    """

    epoch: int
    flops: float
    bytes: float
    seconds: float
    score: float


@dataclass(frozen=True)
class Curve:
    """One method's points, in order.

    Attributes:
        name: The method.
        points: After each epoch or round that was measured.
        higher: Whether a higher score is better.
    """

    name: str
    points: tuple[Point, ...]
    higher: bool = True

    def at(self, axis: str, limit: float) -> Point | None:
        """Return the last point at which not more than ``limit`` of ``axis`` was spent; None before the first."""
        within = [point for point in self.points if getattr(point, axis) <= limit]
        return within[-1] if within else None

    def passing(self, score: float) -> Point | None:
        """Return the first point with a score that is at least as good."""
        good = (p for p in self.points if p.score == score or (p.score > score) is self.higher)
        return next(good, None)

    @property
    def best(self) -> float:
        """The best score; NaN of a curve without points."""
        return (max if self.higher else min)((point.score for point in self.points), default=math.nan)


def curve_of(
    name: str,
    events: Sequence[Event],
    clients: Collection[str],
    metric: str = "accuracy",
    *,
    split: str = "test",
    loss: str = "loss",
    share: Mapping[int, float] | None = None,
) -> Curve:
    """Return the curve of a run, by its log as far as it got.

    Args:
        name: What to call it.
        events: The log.
        clients: Whose costs count, as a mean over them.
        metric: The score.
        split: Where it was measured.
        loss: Of which loss.
        share: By epoch, the share of its hand-overs that are training's; all of them unless given.
    """
    costs, epochs = spent_by_epoch(events, clients, share), ended_epochs(events)
    seconds, now, points = 0.0, Spent(), []
    scores = {e: merged(group) for (e, s, of), group in measured(events).items() if (s, of) == (split, loss)}
    for epoch, ended in epochs.items():
        seconds += ended.seconds
        now = costs.get(epoch, now)
        if metric in scores.get(epoch, {}):
            points.append(Point(epoch, now.flops, now.bytes, seconds, scores[epoch][metric]))
    return Curve(name, tuple(points), metric in HIGHER_IS_BETTER)


def training_share(study: Study, holdings: Holdings, epochs: int) -> dict[int, float]:
    """Return the share of a split study's hand-overs to and from clients that are training's, by epoch.

    A log does not tell hand-overs that pass the network on for training from those that pass it on to be measured. The
    program does, and frames of one role's state are alike.
    """
    course = study.course(Cohorts(study.graph, holdings).rows)
    found = {}
    for epoch in range(epochs):
        trained = sum(isinstance(item, Action) and item.op in _SENT for item in course.training(epoch))
        others = _for_measuring(course, epoch)
        found[epoch] = trained / (trained + others) if others else 1.0
    return found


def _for_measuring(course: Course, epoch: int) -> int:
    items = (item for split in course.splits for item in course.evaluation(epoch, split))
    return sum(isinstance(item, Action) and item.op in _SENT for item in items)
