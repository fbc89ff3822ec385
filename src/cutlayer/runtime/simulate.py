"""All parties in one thread: their programs merged into one, frames really made, nothing ever waits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from torch import Tensor

from ..data import Holdings
from ..graph.split_graph import SplitGraph
from ..metering.events import Computed, Placed, Traffic
from ..metering.meter import Meter
from ..metering.run_log import RunLog
from ..schedules.actions import Op
from ..schedules.base import Schedule
from ..schedules.calendar import Batch, Calendar
from ..schedules.steps import Step, prediction_step
from ..transports import MemoryHub
from ..wire import PlainSeal
from .cohorts import Cohorts
from .course import Course
from .evaluation import take_scores
from .live import State
from .party import Circumstances, Instead, LocalParty
from .performing import Performer
from .positions import Position
from .snapshots import Snapshots
from .training import Progress, Settings, Trainer, own_randomness

__all__ = ["Progress", "Settings", "Simulation"]


class Simulation(Trainer):
    """Performs the merged program of all parties of a study.

    Args:
        graph: What is split.
        holdings: Who holds what; None for a network that is only used.
        schedule: Writes the program.
        calendar: Which rows when; see :class:`Calendar`.
        cohorts: The turns' common rows; None for a network that is only used.
        settings: The rest.
        log: Where events go.
        on_progress: Called every now and then (at most ten times a second) with the progress.
        instead: What performs actions instead; see :class:`.party.Circumstances`.
    """

    def __init__(
        self,
        graph: SplitGraph,
        holdings: Holdings | None,
        schedule: Schedule,
        calendar: Calendar,
        cohorts: Cohorts | None,
        settings: Settings,
        log: RunLog,
        on_progress: Callable[[Progress], None] | None = None,
        instead: Instead | None = None,
    ) -> None:
        course = Course(
            graph, schedule, calendar, settings.epochs, settings.evaluate, settings.early_stopping
        )
        super().__init__(
            course, settings, log, Snapshots(log.folder), on_progress=on_progress, instead=instead
        )
        self.graph, self.calendar = graph, calendar
        self.place(self._everyone(holdings, cohorts, self.circumstances))
        if not any(isinstance(event, Placed) for event in log.events):
            self._note_places()

    def _everyone(
        self,
        holdings: Holdings | None,
        cohorts: Cohorts | None,
        circumstances: Callable[[str], Circumstances],
    ) -> dict[str, LocalParty]:
        names = [party.name for party in self.graph.parties]
        hub = MemoryHub(names)
        data = {party.name: party.splits for party in holdings.parties} if holdings is not None else {}
        return {
            party.name: LocalParty(
                party.name,
                party.role,
                circumstances(party.name),
                hub.end(party.name),
                PlainSeal(party=party.name),
                self.relabelled(party.name, data.get(party.name, {})),
                cohorts.positions.get(party.name, {}) if cohorts is not None else {},
            )
            for party in self.graph.parties
        }

    def _keep(self, position: Position) -> None:
        """Keep one snapshot of all parties; a simulation never goes back further."""
        self.snapshots.rewind(position)
        super()._keep(position)
        self.snapshots.forget(position)

    def resume(self) -> Position:
        """Load the last snapshot; return where to go on."""
        snapshot = self.snapshots.last()
        self.restore(snapshot)
        return snapshot.position

    # What came out

    def weights(self) -> dict[str, State]:
        """Return copies of each segment's parameters and buffers, where they are now."""
        return {name: self.holder(name).live[name].weights() for name in self.graph.order}

    def holder(self, segment: str) -> LocalParty:
        """Return the party that has ``segment`` now: the first of its role, if each has one or nobody yet."""
        role = self.graph.roles[self.graph.segments[segment].role]
        for party in role.parties:
            if segment in self.parties[party].live:
                return self.parties[party]
        first = self.parties[role.parties[0]]
        first.live[segment] = first.shared.workshop.fresh(segment)
        return first

    def adopt(self, party: str, segment: str, weights: State) -> None:
        """Give ``party`` the segment with these weights, and nobody else."""
        for other in self.graph.roles[self.graph.segments[segment].role].parties:
            self.parties[other].live.pop(segment, None)
        holder = self.parties[party]
        live = holder.live[segment] = holder.shared.workshop.fresh(segment)
        live.restore({**live.state(), **{f"weight/{name}": tensor for name, tensor in weights.items()}})

    def predict(self, holdings: Holdings, split: str, batch_size: int = 256) -> dict[str, dict[str, Tensor]]:
        """Return what each loss's segment predicts, by party that computes it, for the rows of ``split``.

        The parties that hold the state now do it together, over the same cuts as in training.
        """
        holders = self._holders().items()
        index = next(i for i, turn in enumerate(self.graph.turns) if all(turn[r] == p for r, p in holders))
        cohorts = Cohorts(self.graph, holdings, labels=False)
        calendar = Calendar(cohorts.rows, 1, evaluation_batch_size=batch_size)
        meter = Meter()

        def circumstances(party: str) -> Circumstances:
            return dataclasses.replace(self.circumstances(party), calendar=calendar, judge=None, meter=meter)

        parties = self._everyone(holdings, cohorts, circumstances)
        for name, party in parties.items():
            party.live = self.parties[name].live
        batches = [Batch(split, index, 0, number) for number in range(calendar.batches(index, split))]
        with own_randomness():
            Performer(parties, meter).perform(
                prediction_step(self.graph, index, batch.number, batch) for batch in batches
            )
        for event in meter.drain(-1):
            if isinstance(event, Traffic | Computed):
                self.log.write(dataclasses.replace(event, phase="prediction"))
        return {
            name: {loss: take_scores(party, loss)[0] for loss in list(party.scored)}
            for name, party in parties.items()
            if party.scored
        }

    def _holders(self) -> dict[str, str]:
        return {self.graph.segments[name].role: self.holder(name).name for name in self.graph.order}

    def _note_places(self) -> None:
        for segment in self.graph.segments.values():
            parameters = list(segment.module.parameters())
            state = [*parameters, *segment.module.buffers()]
            self.log.write(
                Placed(
                    segment=segment.name,
                    role=segment.role,
                    parameters=sum(p.numel() for p in parameters),
                    trainable=sum(p.numel() for p in parameters if p.requires_grad),
                    state_bytes=sum(t.nbytes for t in state),
                )
            )


def batches_of(
    schedule: Schedule, graph: SplitGraph, calendar: Calendar, epoch: int
) -> Iterator[tuple[Batch, ...]]:
    """Yield the training batches of ``epoch`` in the order in which the schedule's program uses them, step by step."""
    step = -1
    for item in schedule.epoch(graph, calendar, epoch):
        if isinstance(item, Step):
            yield tuple(map(Batch.parse, item.batches))
        elif item.op is Op.LOAD and item.step != step:
            step = item.step
            yield (Batch.parse(item.what),)
