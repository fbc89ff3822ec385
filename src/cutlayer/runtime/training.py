"""Trains the parties that are here, all of them in a simulation or one in a process of its own, epoch by epoch."""

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
from functools import partial
from typing import Any

import torch

from ..data import Records
from ..errors import NumericsError, StudyError, nearest
from ..metering.events import Ended, EpochEnded
from ..metering.meter import Meter
from ..metering.run_log import RunLog
from ..privacy.noise import simulated_secret
from ..schedules.actions import Action
from ..schedules.steps import Step
from .blueprint import Blueprint
from .compute import NUMERICS, finite
from .course import Course
from .defending import relabelled
from .live import State, Workshop
from .optim import OptimizerSpec
from .party import Circumstances, Instead, LocalParty
from .performing import Performer
from .positions import START, Position, points
from .precision import check_compiler, forms_of
from .private_step import Private, private_segments
from .snapshots import Snapshot, Snapshots
from .stopping import EarlyStopping, Judge

__all__ = ["Progress", "Settings", "Trainer", "own_randomness"]


_KEPT = "+"
"""Marks in a snapshot what a party keeps that is no segment's: ``head+``, the average that is under way of ``head``."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a study trains, apart from graph, data and schedule.

    Attributes:
        optimizers: By segment.
        epochs: How many.
        seed: Of all that is drawn.
        device: Where parties compute that are not in ``devices``.
        devices: By party.
        precision: Of the segments that do not have float32.
        compiled: Segments that are compiled.
        metrics: Names; all that fit if empty.
        early_stopping: When to stop.
        check_finite: Stop at NaN and infinity.
        evaluate: Splits to measure.
    """

    optimizers: Mapping[str, OptimizerSpec]
    epochs: int
    seed: int
    device: str = "cpu"
    devices: Mapping[str, str] = field(default_factory=dict)
    precision: Mapping[str, str] = field(default_factory=dict)
    compiled: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    early_stopping: EarlyStopping | None = None
    check_finite: bool = True
    evaluate: tuple[str, ...] = ("valid", "test")


@dataclass(slots=True)
class Progress:
    """Where a run stands; one object that changes while it goes on.

    Attributes:
        epoch: The epoch, counted from 0.
        epochs: How many there are.
        step: The step, counted over the whole training.
        steps: How many there are.
        loss: The last batch's; NaN where no loss is computed here.
        totals: By loss, its sum over the epoch's rows so far and their number.
        batch: The batch that is trained on; its turn says whose turn it is.
    """

    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    loss: float = math.nan
    totals: dict[str, list[float]] = field(default_factory=dict)
    batch: str = ""

    def add(self, step: int, name: str, value: float, rows: int) -> None:
        """Note a loss of one batch."""
        self.step, self.loss = step, value
        total = self.totals.get(name)
        if total is None:
            total = self.totals[name] = [0.0, 0.0]
        total[0] += value * rows
        total[1] += rows


class Trainer:
    """Performs a course for the parties that are placed here, and keeps what is needed to go on from.

    Args:
        course: What is done, by everyone.
        settings: How.
        log: Where events go.
        snapshots: Where the parties' states are kept.
        every: Training steps from one snapshot to the next within an epoch; None for one after each epoch only.
        timeout_s: How long to wait for a frame, in seconds.
        on_progress: Called every now and then (at most ten times a second) with the progress.
        wary: Look at what other parties send for NaN and infinity.
        apart: Whether the other parties compute elsewhere, at the same time.
        secret: The secret of the one party that is here; in a simulation, each has one that follows from the seed.
        instead: What performs actions instead; see :class:`.party.Circumstances`.
    """

    def __init__(
        self,
        course: Course,
        settings: Settings,
        log: RunLog,
        snapshots: Snapshots,
        *,
        every: int | None = None,
        timeout_s: float = 0.0,
        on_progress: Callable[[Progress], None] | None = None,
        wary: bool = False,
        apart: bool = False,
        secret: bytes = b"",
        instead: Instead | None = None,
    ) -> None:
        self.course, self.settings, self.log, self.snapshots = course, settings, log, snapshots
        self.progress = Progress(epochs=settings.epochs, steps=course.first_step(settings.epochs))
        self.meter = Meter()
        self.best_epoch = -1
        self.stopped = False
        self.parties: Mapping[str, LocalParty] = {}
        self.performer = Performer({}, self.meter)
        self._every = every
        self._on_progress = on_progress
        self._shown = 0.0
        self._steps = 0
        device = torch.device(settings.device)
        self._forms = forms_of(course.graph, settings.precision, settings.compiled)
        self.shared = Circumstances(
            blueprint=Blueprint(course.graph),
            calendar=course.calendar,
            meter=self.meter,
            seed=settings.seed,
            device=device,
            workshop=self._workshop(device),
            timeout_s=timeout_s,
            check_finite=settings.check_finite,
            metrics=settings.metrics,
            note=log.write,
            on_loss=self._loss,
            judge=self._judge(settings.early_stopping),
            wary=wary,
            apart=apart,
            secret=(lambda _: secret) if secret else partial(simulated_secret, settings.seed),
            instead=instead,
        )
        self._by_device = {device: self.shared}

    def circumstances(self, party: str) -> Circumstances:
        """Return :attr:`shared` as ``party`` has it: with its own device, and a workshop of its own for DP-SGD."""
        device = torch.device(self.settings.devices.get(party, self.settings.device))
        privates = private_segments(
            self.course.graph, party, self.settings.compiled, self.shared.secret, self.meter.facts
        )
        if privates:
            return dataclasses.replace(self.shared, device=device, workshop=self._workshop(device, privates))
        if device not in self._by_device:
            self._by_device[device] = dataclasses.replace(
                self.shared, device=device, workshop=self._workshop(device)
            )
        return self._by_device[device]

    def _workshop(self, device: torch.device, privates: Mapping[str, Private] | None = None) -> Workshop:
        segments = self.course.graph.segments.values()
        return Workshop(segments, self.settings.optimizers, device, self._forms, privates)

    def relabelled(self, party: str, records: Mapping[str, Records]) -> Mapping[str, Records]:
        """Return a party's records as its defences let it train on them."""
        return relabelled(self.shared, party, records)

    def place(self, parties: Mapping[str, LocalParty]) -> None:
        """Say which parties are here; they were made with :attr:`shared`."""
        self.parties = parties
        self.performer = Performer(parties, self.meter)
        segments = self.course.graph.segments
        for role in {segments[name].role for name in self.settings.compiled}:
            for device in {party.shared.device for party in parties.values() if party.role == role}:
                check_compiler(device)

    def train(self, start: Position = START) -> None:
        """Train from ``start`` to the end, or to the verdict that stops it; then go back to the best snapshot."""
        began = time.perf_counter()
        stopping = self.settings.early_stopping
        epoch = start.epoch - 1
        with own_randomness(), _quiet_collector():
            for epoch in range(start.epoch, self.settings.epochs):
                if self.stopped:
                    epoch -= 1
                    break
                self._epoch(epoch, start.item if epoch == start.epoch else 0)
            if stopping is not None and self.best_epoch >= 0:
                self._go_back()
            self.performer.perform(self.course.ending())
        for event in self.meter.drain(max(epoch, 0)):  # of what was handed out at the end
            self.log.write(event)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        reason = "all epochs done"
        if self.stopped and stopping is not None:
            reason = f"no better {stopping.metric} for {stopping.patience} epochs"
        self.log.write(
            Ended(
                reason=reason,
                epochs=epoch + 1,
                best_epoch=self.best_epoch if stopping else epoch,
                seconds=time.perf_counter() - began,
                peak_memory_bytes=peak,
            )
        )

    def _epoch(self, epoch: int, first: int) -> None:
        """Do one epoch, from item ``first`` on."""
        began = time.perf_counter()
        self.progress.epoch = epoch
        if not first:
            self.progress.totals = {}
        self.performer.perform(self._training(epoch, first))
        if self.settings.check_finite:
            self._check_weights(epoch)
        totals = {name: total / max(rows, 1.0) for name, (total, rows) in self.progress.totals.items()}
        rows = int(max((rows for _, rows in self.progress.totals.values()), default=0))
        self.log.write(
            EpochEnded(
                epoch=epoch,
                steps=self._steps,
                rows=rows,
                losses=totals,
                seconds=time.perf_counter() - began,
            )
        )
        for split in self.course.splits:
            self.performer.perform(self.course.evaluation(epoch, split))
        self.stopped = self._verdict(epoch)
        for event in self.meter.drain(epoch):
            self.log.write(event)
        self._keep(Position(epoch + 1, 0))

    def _training(self, epoch: int, first: int) -> Iterator[Action | Step]:
        """Yield the items of training; once one was performed, keep a snapshot if it is due."""
        items = self.course.training(epoch)
        self._steps = 0
        marked = ((item, False) for item in items) if self._every is None else points(items, self._every)
        for index, (item, due) in enumerate(marked):
            self._steps += isinstance(item, Step)
            if index < first:
                continue
            if isinstance(item, Step) and self._every is not None:
                self.progress.step, self.progress.batch = item.step, item.batches[0]
                self._show()
            yield item
            if due and self.performer.acted:
                self._keep(Position(epoch, index + 1))

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

    def _keep(self, position: Position) -> None:
        """Keep a snapshot of what each party here has."""
        self.performer.acted = False
        if self.snapshots.folder is None:
            return
        states = {name: states for name, party in self.parties.items() if (states := _states(party))}
        best = {name: party.best for name, party in self.parties.items() if party.best}
        self.snapshots.keep(Snapshot(position=position, states=states, best=best, memory=self._memory()))

    def _memory(self) -> dict[str, Any]:
        """Return what else there is to go on with."""
        judge = self.shared.judge
        return {
            "judge": judge.memory() if judge is not None else {},
            "best_epoch": self.best_epoch,
            "stopped": self.stopped,
            "losses": self.progress.totals,
            "counts": self.meter.counts(),
            "away": [name for name, party in self.parties.items() if party.away],
        }

    def restore(self, snapshot: Snapshot) -> None:
        """Bring the parties here to where ``snapshot`` was taken, and the log with them."""
        self.log.rewind(snapshot.position.epoch - 1)
        memory = snapshot.memory
        if memory:
            if self.shared.judge is not None:
                self.shared.judge.remember(memory["judge"])
            self.best_epoch, self.stopped = int(memory["best_epoch"]), bool(memory["stopped"])
            self.progress.totals = {name: list(pair) for name, pair in memory["losses"].items()}
            self.meter.restore(memory["counts"])
            for name in memory["away"]:
                self.parties[name].away = True
        for party, best in snapshot.best.items():
            self.parties[party].best = {name: dict(state) for name, state in best.items()}
        for party, segments in snapshot.states.items():
            for name, state in segments.items():
                here = self.parties[party]
                if name.endswith(_KEPT):
                    total = {key: tensor.to(here.shared.device) for key, tensor in state.items()}
                    here.kept[name.removesuffix(_KEPT)] = total
                    continue
                live = here.shared.workshop.blank(name.partition("#")[0])
                live.restore(state)
                here.live[name] = live

    def _verdict(self, epoch: int) -> bool:
        stopping = self.settings.early_stopping
        if stopping is None:
            return False
        self.performer.perform(self.course.verdict(epoch))
        decided = next(p.verdict for p in self.parties.values() if p.verdict.name)
        if decided.best:
            self.best_epoch = epoch
        return decided.stop

    def _go_back(self) -> None:
        """Each party that kept a snapshot of the best epoch takes it up again."""
        for party in self.parties.values():
            for name, state in party.best.items():
                live = party.live.get(name) or party.shared.workshop.blank(name)
                live.restore({key: tensor.clone() for key, tensor in state.items()})
                party.live[name] = live

    def _loss(self, step: int, name: str, value: float, rows: int) -> None:
        self.progress.add(step, name, value, rows)
        self._show()

    def _show(self) -> None:
        if self._on_progress is not None:
            now = time.monotonic()
            if now - self._shown > 0.1:
                self._shown = now
                self._on_progress(self.progress)

    def _judge(self, stopping: EarlyStopping | None) -> Judge | None:
        if stopping is None:
            return None
        if not any(rows.get(stopping.split) for rows in self.course.calendar.rows):
            raise StudyError(
                f"early stopping wants the split {stopping.split!r}, which nobody has",
                todo="hold rows out (hold_out(valid=0.1)), or name another split",
            )
        if stopping.split not in self.settings.evaluate:
            raise StudyError(
                f"early stopping judges by {stopping.split!r}, which is not evaluated",
                got=", ".join(self.settings.evaluate),
            )
        losses = list(self.course.graph.losses)
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


def _states(party: LocalParty) -> dict[str, State]:
    """Return all that a party has at work: segments, their copies, and averages that are under way."""
    states = {name: live.state() for name, live in party.live.items()}
    return states | {name + _KEPT: state for name, state in party.kept.items() if state}


@contextlib.contextmanager
def own_randomness() -> Iterator[None]:
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
