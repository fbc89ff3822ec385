"""All parties in one thread: their programs merged into one, frames really made, nothing ever waits."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..data import Holdings
from ..errors import NumericsError, StudyError, nearest
from ..graph.split_graph import SplitGraph
from ..metering.events import Computed, Ended, EpochEnded, Placed, Traffic
from ..metering.meter import Meter
from ..metering.run_log import RunLog
from ..schedules.actions import Op
from ..schedules.base import Schedule, verdict
from ..schedules.calendar import Batch, Calendar
from ..schedules.steps import flat, prediction_step
from ..transports import MemoryHub
from ..wire import PlainSeal
from .blueprint import Blueprint
from .cohorts import Cohorts
from .compute import NUMERICS, finite
from .evaluation import take_scores
from .live import State, Workshop
from .optim import OptimizerSpec
from .party import Circumstances, LocalParty
from .performing import Performer
from .positions import Position
from .snapshots import Snapshot, Snapshots
from .stopping import EarlyStopping, Judge

__all__ = ["Progress", "Settings", "Simulation"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a study trains, apart from graph, data and schedule."""

    optimizers: Mapping[str, OptimizerSpec]
    epochs: int
    seed: int
    device: str = "cpu"
    metrics: tuple[str, ...] = ()
    early_stopping: EarlyStopping | None = None
    check_finite: bool = True
    evaluate: tuple[str, ...] = ("valid", "test")


@dataclass(slots=True)
class Progress:
    """Where a run stands; one object that changes while it goes on."""

    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    loss: float = math.nan
    totals: dict[str, list[float]] = field(default_factory=dict)

    def add(self, step: int, name: str, value: float, rows: int) -> None:
        """Note a loss of one batch."""
        self.step, self.loss = step, value
        total = self.totals.get(name)
        if total is None:
            total = self.totals[name] = [0.0, 0.0]
        total[0] += value * rows
        total[1] += rows


class Simulation:
    """Performs the merged program of all parties of a study.

    Args:
        graph: What is split.
        holdings: Who holds what; None for a network that is only used.
        schedule: Writes the program.
        calendar: Which rows when; made by :meth:`calendar_for`.
        cohorts: The turns' common rows; None for a network that is only used.
        settings: The rest.
        log: Where events go.
        on_progress: Called every now and then (at most ten times a second) with the progress.
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
    ) -> None:
        self.graph, self.schedule, self.calendar, self.settings, self.log = (
            graph,
            schedule,
            calendar,
            settings,
            log,
        )
        self.progress = Progress(epochs=settings.epochs, steps=calendar.steps() * settings.epochs)
        self.meter = Meter()
        self.best_epoch = -1
        self.reason = "all epochs done"
        self._on_progress = on_progress
        self._shown = 0.0
        device = torch.device(settings.device)
        judge = self._judge(settings.early_stopping)
        self.shared = Circumstances(
            blueprint=Blueprint(graph),
            calendar=calendar,
            meter=self.meter,
            seed=settings.seed,
            device=device,
            workshop=Workshop(graph.segments.values(), settings.optimizers, device),
            timeout_s=0.0,
            check_finite=settings.check_finite,
            metrics=settings.metrics,
            note=log.write,
            on_loss=self._loss,
            judge=judge,
        )
        self.parties = self._place(holdings, cohorts, self.shared)
        self.performer = Performer(self.parties, self.meter)
        self.snapshots = Snapshots(log.folder)
        if not any(isinstance(event, Placed) for event in log.events):
            self._note_places()

    def _place(
        self, holdings: Holdings | None, cohorts: Cohorts | None, shared: Circumstances
    ) -> dict[str, LocalParty]:
        names = [party.name for party in self.graph.parties]
        hub = MemoryHub(names)
        data = {party.name: party.splits for party in holdings.parties} if holdings is not None else {}
        return {
            party.name: LocalParty(
                party.name,
                party.role,
                shared,
                hub.end(party.name),
                PlainSeal(party=party.name),
                data.get(party.name, {}),
                cohorts.positions.get(party.name, {}) if cohorts is not None else {},
            )
            for party in self.graph.parties
        }

    def train(self, start: int = 0) -> None:
        """Train from epoch ``start`` to the end, or to the verdict that stops it; then go back to the best snapshot."""
        began = time.perf_counter()
        stopping = self.settings.early_stopping
        epoch = start - 1
        with _own_randomness(), _quiet_collector():
            for epoch in range(start, self.settings.epochs):
                if self._epoch(epoch):
                    self.reason = (
                        f"no better {stopping.metric} for {stopping.patience} epochs" if stopping else ""
                    )
                    break
            if stopping is not None and self.best_epoch >= 0:
                self._go_back()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        self.log.write(
            Ended(
                reason=self.reason,
                epochs=epoch + 1,
                best_epoch=self.best_epoch if stopping else epoch,
                seconds=time.perf_counter() - began,
                peak_memory_bytes=peak,
            )
        )

    def _epoch(self, epoch: int) -> bool:
        """Do one epoch; return whether to stop."""
        began = time.perf_counter()
        self.progress.epoch, self.progress.totals = epoch, {}
        self.performer.perform(self.schedule.epoch(self.graph, self.calendar, epoch))
        if self.settings.check_finite:
            self._check_weights(epoch)
        totals = {name: total / max(rows, 1.0) for name, (total, rows) in self.progress.totals.items()}
        rows = int(max((rows for _, rows in self.progress.totals.values()), default=0))
        self.log.write(
            EpochEnded(
                epoch=epoch,
                steps=self.calendar.steps(),
                rows=rows,
                losses=totals,
                seconds=time.perf_counter() - began,
            )
        )
        for split in self._splits():
            self.performer.perform(self.schedule.evaluation(self.graph, self.calendar, epoch, split))
        stop = self._verdict(epoch)
        for event in self.meter.drain(epoch):
            self.log.write(event)
        self._keep(epoch)
        return stop

    def _check_weights(self, epoch: int) -> None:
        """Find numbers that are none before the network is measured and kept: the last step may have made them."""
        for party in self.parties.values():
            for name, live in party.live.items():
                for key, parameter in live.module.named_parameters():
                    if not finite(parameter.detach()):
                        raise NumericsError(
                            f"weight {key!r} of segment {name!r} holds NaN or infinity after epoch {epoch}",
                            party=party.name,
                            todo=NUMERICS,
                        )

    def _keep(self, epoch: int) -> None:
        """Keep a snapshot of what each party has."""
        if self.log.folder is None:
            return
        states = {
            n: {s: live.state() for s, live in p.live.items()} for n, p in self.parties.items() if p.live
        }
        best = {name: party.best for name, party in self.parties.items() if party.best}
        judge = self.shared.judge
        memory = {**judge.memory(), "best_epoch": self.best_epoch} if judge is not None else {}
        position = Position(epoch + 1, 0)
        self.snapshots.rewind(position)
        self.snapshots.keep(Snapshot(position=position, states=states, best=best, memory=memory))
        self.snapshots.forget(position)

    def _verdict(self, epoch: int) -> bool:
        stopping = self.settings.early_stopping
        if stopping is None:
            return False
        self.performer.perform(verdict(self.graph, self.calendar, epoch, stopping.split, stopping.loss))
        decided = next(p.verdict for p in self.parties.values() if p.verdict.name)
        if decided.best:
            self.best_epoch = epoch
        return decided.stop

    def _splits(self) -> tuple[str, ...]:
        return tuple(s for s in self.settings.evaluate if any(rows.get(s) for rows in self.calendar.rows))

    def _go_back(self) -> None:
        """Each party that kept a snapshot of the best epoch takes it up again."""
        for party in self.parties.values():
            for name, state in party.best.items():
                live = party.live.get(name) or self.shared.workshop.blank(name)
                live.restore({key: tensor.clone() for key, tensor in state.items()})
                party.live[name] = live

    def resume(self) -> int:
        """Load the last snapshot that all parties have; return the epoch to go on with."""
        snapshot = self.snapshots.last()
        self.log.rewind(snapshot.position.epoch - 1)
        if self.shared.judge is not None and snapshot.memory:
            self.shared.judge.remember(snapshot.memory)
            self.best_epoch = int(snapshot.memory["best_epoch"])
        for party, best in snapshot.best.items():
            self.parties[party].best = {name: dict(state) for name, state in best.items()}
        for party, segments in snapshot.states.items():
            for name, state in segments.items():
                live = self.shared.workshop.blank(name)
                live.restore(state)
                self.parties[party].live[name] = live
        return snapshot.position.epoch

    # What came out

    def weights(self) -> dict[str, State]:
        """Return copies of each segment's parameters and buffers, where they are now."""
        return {name: self.holder(name).live[name].weights() for name in self.graph.order}

    def holder(self, segment: str) -> LocalParty:
        """Return the party that has ``segment`` now; before training, the first of its role."""
        role = self.graph.roles[self.graph.segments[segment].role]
        for party in role.parties:
            if segment in self.parties[party].live:
                return self.parties[party]
        first = self.parties[role.parties[0]]
        first.live[segment] = self.shared.workshop.fresh(segment)
        return first

    def adopt(self, party: str, segment: str, weights: State) -> None:
        """Give ``party`` the segment with these weights, and nobody else."""
        for other in self.graph.roles[self.graph.segments[segment].role].parties:
            self.parties[other].live.pop(segment, None)
        live = self.parties[party].live[segment] = self.shared.workshop.fresh(segment)
        live.restore({**live.state(), **{f"weight/{name}": tensor for name, tensor in weights.items()}})

    def predict(self, holdings: Holdings, split: str, batch_size: int = 256) -> dict[str, dict[str, Tensor]]:
        """Return what each loss's segment predicts, by party that computes it, for the rows of ``split``.

        The parties that hold the state now do it together, over the same cuts as in training.
        """
        holders = self._holders().items()
        index = next(i for i, turn in enumerate(self.graph.turns) if all(turn[r] == p for r, p in holders))
        cohorts = Cohorts(self.graph, holdings, labels=False)
        calendar = Calendar(cohorts.rows, 1, evaluation_batch_size=batch_size)
        shared = dataclasses.replace(self.shared, calendar=calendar, judge=None, meter=Meter())
        parties = self._place(holdings, cohorts, shared)
        for name, party in parties.items():
            party.live = self.parties[name].live
        batches = [Batch(split, index, 0, number) for number in range(calendar.batches(index, split))]
        with _own_randomness():
            Performer(parties, shared.meter).perform(
                prediction_step(self.graph, index, batch.number, batch) for batch in batches
            )
        for event in shared.meter.drain(-1):
            if isinstance(event, Traffic | Computed):
                self.log.write(dataclasses.replace(event, phase="prediction"))
        return {
            name: {loss: take_scores(party, loss)[0] for loss in list(party.scored)}
            for name, party in parties.items()
            if party.scored
        }

    def _holders(self) -> dict[str, str]:
        return {self.graph.segments[name].role: self.holder(name).name for name in self.graph.order}

    # Small parts

    def _loss(self, step: int, name: str, value: float, rows: int) -> None:
        self.progress.add(step, name, value, rows)
        if self._on_progress is not None:
            now = time.monotonic()
            if now - self._shown > 0.1:
                self._shown = now
                self._on_progress(self.progress)

    def _judge(self, stopping: EarlyStopping | None) -> Judge | None:
        if stopping is None:
            return None
        if not any(rows.get(stopping.split) for rows in self.calendar.rows):
            raise StudyError(
                f"early stopping wants the split {stopping.split!r}, which nobody has",
                todo="hold rows out (hold_out(valid=0.1)), or name another split",
            )
        if stopping.split not in self.settings.evaluate:
            raise StudyError(
                f"early stopping judges by {stopping.split!r}, which is not evaluated",
                got=", ".join(self.settings.evaluate),
            )
        losses = list(self.graph.losses)
        if stopping.loss is not None and stopping.loss not in losses:
            raise StudyError(
                f"early stopping judges by the unknown loss {stopping.loss!r}",
                todo=nearest(stopping.loss, losses),
            )
        if self.settings.metrics and stopping.metric not in self.settings.metrics:
            raise StudyError(
                f"early stopping judges by {stopping.metric!r}, which is not measured",
                got=", ".join(self.settings.metrics),
                todo="add it to metrics",
            )
        return Judge(stopping, stopping.loss or losses[0])

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


@contextlib.contextmanager
def _own_randomness() -> Iterator[None]:
    """Leave PyTorch's global random state as it was found."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield


@contextlib.contextmanager
def _quiet_collector() -> Iterator[None]:
    """Spare the garbage collector what was there before training: 500 parties are many objects to go through."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def batches_of(schedule: Schedule, graph: SplitGraph, calendar: Calendar, epoch: int) -> Iterator[Batch]:
    """Yield the training batches of ``epoch`` in the order in which the schedule's program uses them."""
    step = -1
    for action in flat(schedule.epoch(graph, calendar, epoch)):
        if action.op is Op.LOAD and action.step != step:
            step = action.step
            yield Batch.parse(action.what)
