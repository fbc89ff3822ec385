"""The training of one party among others: its trainer and the log that is shown while it is written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..errors import CutlayerError, LogError
from ..keys.sealing import Sealer
from ..metering.events import Event, Placed
from ..metering.run_log import RunLog
from ..runtime.devices import described
from ..runtime.halves import save_half
from ..runtime.party import LocalParty
from ..runtime.positions import START, Position
from ..runtime.training import Trainer
from ..schedules.calendar import Leave
from ..transports import Transport
from ..wire import PlainSeal
from .keeping import Keeping
from .matching import matched_positions
from .messages import Go
from .part import Part, Watcher
from .secrets import own_secret

__all__ = ["PartTrainer", "ShownLog", "begun_log"]


class ShownLog(RunLog):
    """A run's log whose events are shown, too."""

    def __init__(self, folder: Path, watcher: Watcher) -> None:
        super().__init__(folder, append=True)
        self._watcher = watcher

    def write(self, event: Event) -> None:
        """Note ``event``, and show it."""
        super().write(event)
        self._watcher.event(event)


def begun_log(part: Part, watcher: Watcher) -> ShownLog:
    """Return the log of a party's own part, with its beginning, or the one that it goes on with.

    Raises:
        LogError: It cannot be written.
        StudyError: It is of another study.
    """
    study, log = part.study, ShownLog(part.folder, watcher)
    began = study.beginning([part.party], part.holdings, "", part.host)
    try:
        study.begin(log, dataclasses.replace(began, party=part.party))
        if not any(isinstance(event, Placed) for event in log.events):
            for segment in study.graph.segments.values():
                log.write(Placed.of(segment))
    except CutlayerError:
        log.close()
        raise
    return log


class PartTrainer(Trainer):
    """A trainer of one party, whose snapshots the host is told of.

    Args:
        part: Which part.
        go: What the host said: which rows and turns there are.
        log: Where events go.
        keeping: Its snapshots.
        watcher: Who is shown what happens.
        sent_bytes: Returns how many bytes left this process.
        on_epoch: Called before each epoch with its number.
    """

    def __init__(
        self,
        part: Part,
        go: Go,
        log: RunLog,
        keeping: Keeping,
        watcher: Watcher,
        *,
        sent_bytes: Callable[[], int],
        on_epoch: Callable[[int], None],
    ) -> None:
        super().__init__(
            part.study.course(go.rows, [Leave(*leave) for leave in go.leaves]),
            part.study.settings,
            log,
            keeping.snapshots,
            every=part.every,
            timeout_s=math.inf,
            on_progress=lambda now: watcher.progress(now, sent_bytes()),
            wary=True,
            apart=part.apart,
            secret=own_secret(part.folder),
        )
        self._part, self._go, self._keeping, self._watcher = part, go, keeping, watcher
        self._on_epoch = on_epoch

    def seat(self, transport: Transport, sealer: Sealer) -> None:
        """Bring the party to where the host says that all go on.

        Args:
            transport: Its way to the others; they tell each other here which rows they have in common.
            sealer: Its seals.
        """
        part, position = self._part, Position(*self._go.position)
        snapshot = self._keeping.at(position)
        party = LocalParty(
            part.party,
            next(p.role for p in part.study.graph.parties if p.name == part.party),
            self.circumstances(part.party),
            transport,
            # Between clients the transport seals already; only what a relay of the program passes on needs more.
            sealer
            if getattr(part.study.schedule, "handover", "") == "server"
            else PlainSeal(party=part.party),
            self.relabelled(part.party, part.data.splits if part.data is not None else {}),
            matched_positions(
                part.study.graph, part.data, self._go.offers, self._absent(position), transport, sealer
            ),
        )
        self.place({part.party: party})
        self.restore(snapshot)
        self._compare_threads(snapshot.memory.get("threads", torch.get_num_threads()))
        self._compare_devices(snapshot.memory.get("device", self._device))
        party.away = party.away or (not snapshot.memory and position > START)
        self._watcher.note(f"begin at {position}" if position == START else f"go on from {position}")

    def write_half(self) -> None:
        """Write this party's part of the network."""
        part = self._part
        segments = {name: segment.weights() for name, segment in self.parties[part.party].live.items()}
        save_half(part.folder / "model", part.study.graph, part.party, segments)

    def _absent(self, position: Position) -> set[int]:
        """Return the turns that do not take place at ``position``."""
        leaves = self.course.calendar.leaves
        return {leave.turn for leave in leaves if leave.epoch <= position.epoch < leave.until}

    def _compare_threads(self, before: int) -> None:
        now = torch.get_num_threads()
        if before != now:
            self._watcher.note(
                f"!! this party computed with {before} threads before and now with {now}: the last bits will differ; "
                f"start it with --threads {before} to have the same"
            )

    def _compare_devices(self, before: str) -> None:
        if before != self._device:
            word = before.partition(" ")[0]
            self._watcher.note(
                f"!! this party computed on {before} before and now on {self._device}: the last bits will differ; "
                f"start it with --device {word} to have the same"
            )

    @property
    def _device(self) -> str:
        return described(self.circumstances(self._part.party).device)

    def _epoch(self, epoch: int, first: int) -> None:
        if not first:
            self._on_epoch(epoch)
        super()._epoch(epoch, first)

    def _memory(self) -> dict[str, Any]:
        return super()._memory() | {"threads": torch.get_num_threads(), "device": self._device}

    def _keep(self, position: Position) -> None:
        self._keeping.let_old_ones_go()
        try:
            super()._keep(position)
        except LogError as error:
            self._watcher.note(f"{error}. Training goes on, and would go back further after a crash")
