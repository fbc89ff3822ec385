"""What a party needs to take part: which part in which study, a way to the others, and whom to tell what happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from ..data import PartyData
from ..errors import CutlayerError
from ..metering.events import Event
from ..runtime.devices import check_device
from ..runtime.precision import check_compiler
from ..runtime.training import Progress
from ..study import Study
from ..transports import Transport
from .messages import Status

__all__ = ["Connection", "Part", "Watcher"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which part in which study.

    Attributes:
        study: The study.
        party: Who this is.
        host: Who relays.
        data: This party's records; None where it holds none.
        folder: Where its log, disclosure log, snapshots and in the end its half of the network lie.
        every: Training steps from one snapshot to the next.
        apart: Whether the others compute on other machines, so that work nobody waits for is put off. On one machine
            parties share the cores, and to do it beside the others' work only takes these from them.
    """

    study: Study
    party: str
    host: str
    data: PartyData | None
    folder: Path
    every: int = 200
    apart: bool = True

    def check(self) -> None:
        """See that this machine can compute what the party's segments need.

        Raises:
            StudyError: Its device is not there, or a segment is to be compiled and there is no compiler.
        """
        graph, settings = self.study.graph, self.study.settings
        word = settings.devices[self.party]
        check_device(word, self.party)
        role = next(party.role for party in graph.parties if party.name == self.party)
        if any(graph.segments[name].role == role for name in settings.compiled):
            check_compiler(torch.device(word))

    @property
    def rows(self) -> dict[str, int]:
        """How many rows it holds, by split."""
        return {s: len(records) for s, records in self.data.splits.items()} if self.data is not None else {}

    @property
    def holdings(self) -> str:
        """What it holds, in words."""
        if self.data is None:
            return f"{self.party} holds no records"
        rows = ", ".join(f"{split} {count}" for split, count in self.rows.items())
        return f"{self.party} holds {rows} rows"


class Connection(Protocol):
    """A party's way to the host and to the others."""

    @property
    def transport(self) -> Transport:
        """What carries frames."""
        ...

    def control(self, message: bytes) -> None:
        """Send a control message to the host."""
        ...

    def begin(self, generation: int) -> None:
        """Take frames of this generation only."""
        ...

    def interrupt(self, error: CutlayerError) -> None:
        """Raise ``error`` out of whatever waits or will wait, until :meth:`begin`."""
        ...


class Watcher(Protocol):
    """Is told what a person would like to see."""

    def progress(self, now: Progress, sent_bytes: int) -> None:
        """Training moved on, and so many bytes left this process so far; at most ten times a second."""
        ...

    def status(self, now: Status) -> None:
        """The host said who is there."""
        ...

    def event(self, event: Event) -> None:
        """An event was written to this party's log: an epoch ended, metrics were measured."""
        ...

    def note(self, what: str) -> None:
        """Something happened that happens seldom."""
        ...
