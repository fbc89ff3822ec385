"""Trains a baseline on a study's data and notes down what a split run does: log, meters, snapshots."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from ..data import Holdings
from ..errors import StudyError
from ..metering.events import Began, Ended, EpochEnded, Measured, Placed
from ..metering.meter import Meter
from ..metering.reading import finished, last
from ..metering.run_log import RunLog
from ..runtime.positions import Position
from ..runtime.simulate import Progress
from ..runtime.snapshots import Snapshot, Snapshots
from ..runtime.training import own_randomness
from ..study import Study
from .account import Budget, Spent, spent
from .clients import Clients, server_of
from .methods import Method
from .outcome import Outcome
from .rounds import Work, perform_round
from .story import beginning
from .uncut import NETWORK, Uncut

__all__ = ["train"]


def train(
    study: Study,
    holdings: Holdings,
    method: Method,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    budget: Budget | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Train the uncut network of a study by a baseline, all clients in this process.

    Frames are really made and counted.

    Args:
        study: Whose network, optimizer, batch size, seed, metrics and splits to evaluate. Its schedule, codecs,
            defences and early stopping are those of split learning and are not used.
        holdings: Who holds what.
        method: The baseline.
        out: The run's folder, for the log and snapshots; without it nothing is written.
        resume: Go on from the folder's last snapshot; a run that came to its end is only read.
        budget: Stop after the round in which a client has spent as much.
        on_progress: Called at most ten times a second with where the run stands; its epochs are rounds.

    Raises:
        StudyError: Clients do not hold whole rows, or the folder holds a run of something else.
        CutlayerError: Bad data, NaN, a full disk…; what was written before stays whole.
    """
    if resume and out is None:
        raise StudyError("resume needs the folder of the run to go on with", todo="give out=")
    clients = Clients.of(study, holdings)
    began = beginning(study, method, clients, budget)
    log = RunLog(Path(out) if out is not None else None, append=resume)
    try:
        _begin(log, began)
        training = _Training(study, clients, method, log, budget, on_progress)
        if resume and finished(log.events):
            training.restore()
        else:
            training.run(training.restore() if resume else 0)
    finally:
        log.close()
    return Outcome(study.graph, log, training.weights())


def _begin(log: RunLog, began: Began) -> None:
    """Note the beginning, or find it in the log that is resumed."""
    before = last(log.events, Began)
    if before is None:
        log.write(began)
    elif (before.digest, before.data) != (began.digest, began.data):
        raise StudyError(
            f"the run in {log.folder} is of another study, other settings or other data",
            got=f"{began.schedule}, digest {began.digest[:16]}",
            expected=f"{before.schedule}, digest {before.digest[:16]}",
            todo="resume with the same, or start anew in another folder",
        )


class _Training:
    """One training, round by round."""

    def __init__(
        self,
        study: Study,
        clients: Clients,
        method: Method,
        log: RunLog,
        budget: Budget | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.study, self.clients, self.method, self.log, self.budget = study, clients, method, log, budget
        self.meter = Meter()
        self.uncut = Uncut(study, self.meter, method.rate)
        self.snapshots = Snapshots(log.folder)
        self.progress = Progress(epochs=method.rounds)
        self.spent = Spent()
        self._on_progress, self._shown = on_progress, 0.0
        server = server_of(study.graph, clients.role)
        self.work = Work(
            uncut=self.uncut, clients=clients, server=server, meter=self.meter, on_batch=self._show
        )
        if last(log.events, Placed) is None:
            self._note_places()

    def run(self, first: int) -> None:
        """Do the rounds from ``first`` on."""
        began = time.perf_counter()
        number, reason = first - 1, "all rounds done"
        with own_randomness():
            for number in range(first, self.method.rounds):
                if self.budget is not None and self.budget.reached(self.spent):
                    number, reason = number - 1, str(self.budget)
                    break
                self._round(number)
        self.log.write(
            Ended(
                reason=reason,
                epochs=number + 1,
                best_epoch=number,
                seconds=time.perf_counter() - began,
                peak_memory_bytes=_peak_memory(),
            )
        )

    def restore(self) -> int:
        """Load the last snapshot; return the round to go on with."""
        snapshot = self.snapshots.last()
        if snapshot.states:
            self.uncut.restore(snapshot.states[self.work.server])
            self.work.step = int(snapshot.memory["step"])
        if not finished(self.log.events):
            self.log.rewind(snapshot.position.epoch - 1)
        self.spent = spent(self.log.events, self.clients.names)
        return snapshot.position.epoch

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Return copies of each segment's parameters and buffers."""
        return {name: live.weights() for name, live in self.uncut.live.items()}

    def _round(self, number: int) -> None:
        """Do one round, measure, note, keep a snapshot."""
        began = time.perf_counter()
        self.progress.epoch = number
        perform_round(self.work, self.method, number)
        totals = self.work.totals
        self.log.write(
            EpochEnded(
                epoch=number,
                steps=self.work.steps,
                rows=int(max((rows for _, rows in totals.values()), default=0)),
                losses={name: total / max(rows, 1.0) for name, (total, rows) in totals.items()},
                seconds=time.perf_counter() - began,
            )
        )
        for split in self.study.evaluate:
            self._evaluate(number, split)
        counted = list(self.meter.drain(number))
        for event in counted:
            self.log.write(event)
        self.spent += spent(counted, self.clients.names)
        self.snapshots.keep(
            Snapshot(
                position=Position(number + 1, 0),
                states={self.work.server: self.uncut.state()},
                memory={"step": self.work.step},
            )
        )
        self.snapshots.forget(Position(number + 1, 0))

    def _evaluate(self, number: int, split: str) -> None:
        """Have every client that has rows of ``split`` measure the network on them."""
        turns = [turn for turn in range(len(self.clients.names)) if self.clients.rows(turn, split)]
        self.work.tell(turns, "evaluation")
        for turn in turns:
            party = self.clients.names[turn]
            scored: dict[str, list[tuple[Tensor, Tensor]]] = {}
            for batch in self.clients.epoch(turn, number, split):
                for loss, pair in self.uncut.scores(party, self.clients.read(batch)).items():
                    scored.setdefault(loss, []).append(pair)
            for loss, metrics in self.uncut.measure(party, scored).items():
                self.log.write(
                    Measured(
                        epoch=number,
                        split=split,
                        loss=loss,
                        party=party,
                        rows=self.clients.rows(turn, split),
                        metrics=metrics,
                    )
                )

    def _show(self, loss: float) -> None:
        self.progress.step, self.progress.loss = self.work.step - 1, loss
        now = time.monotonic()
        if self._on_progress is not None and now - self._shown >= 0.1:
            self._shown = now
            self._on_progress(self.progress)

    def _note_places(self) -> None:
        modules = [live.module for live in self.uncut.live.values()]
        parameters = [p for module in modules for p in module.parameters()]
        state = [*parameters, *(buffer for module in modules for buffer in module.buffers())]
        self.log.write(
            Placed(
                segment=NETWORK,
                role=self.clients.role,
                parameters=sum(p.numel() for p in parameters),
                trainable=sum(p.numel() for p in parameters if p.requires_grad),
                state_bytes=sum(t.nbytes for t in state),
            )
        )


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
