"""What the meters of a run will have counted, from the study and the number of rows alone."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..metering.events import Computed, Event, Placed, Traffic
from ..metering.meter import Meter
from ..schedules.actions import Action
from ..schedules.steps import Step
from ..study import Study
from .counting import Counts
from .tariff import Priced, Tariff

__all__ = ["Forecast", "Totals"]

_WALKED = 2
"""Epochs that are walked through where all others are like the last of these."""


@dataclass(frozen=True)
class Totals:
    """Sums over a training, by party.

    Attributes:
        forward_flops: Forwards in training.
        flops: Forwards and backwards in training.
        evaluation_flops: Forwards in evaluation.
        sent_bytes: Whole frames, in every phase.
        received_bytes: The same at the other end.
        phases: Bytes sent by phase, over all parties.
    """

    forward_flops: Tally[str] = field(default_factory=Tally)
    flops: Tally[str] = field(default_factory=Tally)
    evaluation_flops: Tally[str] = field(default_factory=Tally)
    sent_bytes: Tally[str] = field(default_factory=Tally)
    received_bytes: Tally[str] = field(default_factory=Tally)
    phases: Tally[str] = field(default_factory=Tally)

    def add(self, events: Iterable[Event], times: int = 1) -> None:
        """Add what ``events`` say, as often as given."""
        for event in events:
            if isinstance(event, Computed) and event.direction == "infer":
                self.evaluation_flops[event.party] += times * event.flops
            elif isinstance(event, Computed):
                self.flops[event.party] += times * event.flops
                self.forward_flops[event.party] += times * event.flops * (event.direction == "forward")
            elif isinstance(event, Traffic):
                self.sent_bytes[event.sender] += times * event.frame_bytes
                self.received_bytes[event.receiver] += times * event.frame_bytes
                phase = "hand-over" if event.content == "handover" else event.phase
                self.phases[phase] += times * event.frame_bytes


class Forecast:
    """Walks through a study's program without a tensor and counts what the meters will count.

    Early stopping is not foreseen: all epochs are counted.

    Args:
        study: What is to be trained.
        rows: For each turn (each client), the number of rows by split: ``[{"train": 500, "test": 100}, …]``.
        counter: What knows the segments' FLOPs; they are counted unless given.
    """

    def __init__(
        self, study: Study, rows: Sequence[Mapping[str, int]], *, counter: Counts | None = None
    ) -> None:
        self.study = study
        self.course = study.course(rows)
        self.tariff = Tariff(study, self.course.calendar, counter)

    def epochs(self, most: int | None = None) -> Iterator[Iterator[list[Priced]]]:
        """Yield the priced items of each epoch in turn, evaluations too; what is over must be used up before."""
        for epoch in range(self.study.epochs if most is None else min(most, self.study.epochs)):
            yield self.tariff.of(self._epoch(epoch))

    def _epoch(self, epoch: int) -> Iterator[Action | Step]:
        yield from self.course.training(epoch)
        for split in self.course.splits:
            yield from self.course.evaluation(epoch, split)
        yield from self.course.verdict(epoch)

    def events(self, most: int | None = None) -> list[Event]:
        """Return traffic and compute of each epoch as a run notes them, of the first ``most`` epochs or of all.

        All come with what is done once training is over, such as handing the last average out.
        """
        meter, found = Meter(), list[Event]()
        found += [Placed.of(segment) for segment in self.study.graph.segments.values()]
        for epoch, items in enumerate(self.epochs(most)):
            _note_all(meter, items)
            found += meter.drain(epoch)
        return found if most is not None else found + self._ending()

    @cached_property
    def totals(self) -> Totals:
        """Sums over the whole training. Epochs from the second on are taken to be alike."""
        found, epochs = Totals(), self.study.epochs
        pooled = self.course.calendar.pooled
        if pooled:
            found.add(self.events())
            return found
        for event in self.events(_WALKED):
            last = epochs > _WALKED and getattr(event, "epoch", 0) == _WALKED - 1
            found.add([event], epochs - _WALKED + 1 if last else 1)
        found.add(self._ending())
        return found

    def _ending(self) -> list[Event]:
        """Return what is done once training is over, in the last epoch's name."""
        meter = Meter()
        _note_all(meter, self.tariff.of(self.course.ending()))
        return list(meter.drain(self.study.epochs - 1))


def _note_all(meter: Meter, items: Iterable[list[Priced]]) -> None:
    """Count what all ``items`` cost; those that are the same list are counted at once."""
    times: dict[int, tuple[list[Priced], list[int]]] = {}
    for item in items:
        times.setdefault(id(item), (item, [0]))[1][0] += 1
    for item, (number,) in times.values():
        for priced in item:
            _note(meter, priced, number)


def _note(meter: Meter, priced: Priced, times: int) -> None:
    """Count what an action costs where the meters count it."""
    action, cost = priced.action, priced.cost
    if cost.direction:
        count = meter.compute(action.party, cost.segment, cost.direction)
        count[0] += times
        count[1] += times * cost.flops
    for frame in cost.frames:
        count = meter.traffic(cost.phase, frame.cut, frame.content, action.party, cost.to)
        count[0] += times
        count[1] += times * frame.frame_bytes
        count[2] += times * frame.tensor_bytes
