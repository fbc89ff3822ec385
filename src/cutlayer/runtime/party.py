"""One party at work: its records, its segments, its end of the transport, and what it keeps of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data import Records
from ..errors import StudyError
from ..graph.parts import Ref
from ..metering.events import Event
from ..metering.meter import Meter
from ..schedules.actions import Action
from ..schedules.calendar import Calendar
from ..transports import Transport
from ..wire import Seal
from .blueprint import Blueprint
from .live import LiveSegment, State, Workshop
from .stopping import Verdict

if TYPE_CHECKING:
    from .stopping import Judge

__all__ = ["Circumstances", "Flight", "Instead", "LocalParty", "Runner"]

Runner = Callable[[int, str], None]
"""Does one action: ``runner(step, what)``, with everything that the graph says looked up beforehand."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What all parties of a run agree on, or in a simulation share.

    Attributes:
        blueprint: The graph, looked up.
        calendar: Which rows when.
        workshop: Where working copies of segments come from.
        meter: What counts.
        seed: The study's seed.
        device: Where segments run.
        timeout_s: How long to wait for a frame.
        check_finite: Stop at NaN and infinity in losses and gradients.
        metrics: Names of metrics; all that fit if empty.
        note: Called with each event that a party notes.
        on_loss: Called with step, loss name, value and rows after each loss.
        judge: Decides on stopping early, at the party that holds the labels.
        wary: Look at what other parties send for NaN and infinity, since they may mean harm.
        apart: Whether the other parties compute elsewhere, at the same time: what they wait for comes first.
        secret: Returns the secret of a party that is here, which no other party knows; its noise follows from it.
        instead: Asked for each action what performs it instead, where somebody watches or cheats.
    """

    blueprint: Blueprint
    calendar: Calendar
    workshop: Workshop
    meter: Meter
    seed: int
    device: torch.device
    timeout_s: float
    check_finite: bool
    metrics: tuple[str, ...]
    note: Callable[[Event], None]
    on_loss: Callable[[int, str, float, int], None]
    judge: Judge | None = None
    wary: bool = False
    apart: bool = False
    secret: Callable[[str], bytes]
    instead: Instead | None = None


@dataclass(slots=True)
class Flight:
    """What a party keeps of one step while it lasts."""

    fields: dict[str, Tensor] = field(default_factory=dict)
    values: dict[Ref, Tensor] = field(default_factory=dict)
    leaves: dict[str, list[tuple[Ref, Tensor]]] = field(default_factory=dict)
    gradients: dict[Ref, list[tuple[int, Tensor]]] = field(default_factory=dict)
    losses: dict[str, list[tuple[Tensor, float]]] = field(default_factory=dict)
    shapes: dict[str, tuple[torch.Size, ...]] = field(default_factory=dict)
    training: bool = False
    rows: int = 0
    """Rows of the batch, at a party that loads one; 0 elsewhere."""
    squares: tuple[float, ...] = ()
    norm: float | None = None
    parts: tuple[int, ...] = ()
    """Rows of each batch, where several were joined to this one."""


class LocalParty:
    """A party with its records, its segments and its end of the transport.

    Args:
        name: The party.
        role: The role it fills.
        shared: What all parties agree on.
        transport: Its end.
        seal: Its keys for hand-overs.
        records: Its data by split.
        positions: For each (split, turn), its rows in the order of the cohort's common ids; where a
            pair is missing, its rows are in that order already.
    """

    __slots__ = (
        "_flight",
        "_step",
        "ahead",
        "away",
        "best",
        "flights",
        "heard",
        "kept",
        "live",
        "measured",
        "name",
        "positions",
        "records",
        "role",
        "scored",
        "seal",
        "shared",
        "span",
        "transport",
        "verdict",
    )

    def __init__(
        self,
        name: str,
        role: str,
        shared: Circumstances,
        transport: Transport,
        seal: Seal,
        records: Mapping[str, Records],
        positions: Mapping[tuple[str, int], Tensor],
    ) -> None:
        self.name = name
        self.role = role
        self.shared = shared
        self.transport = transport
        self.seal = seal
        self.records = records
        self.positions = positions
        self.live: dict[str, LiveSegment] = {}
        self.kept: dict[str, State] = {}
        """What is no segment's and yet to go on with: averages under way, what defences remember."""
        self.away = False
        self.ahead: tuple[str, dict[str, Tensor], int] | None = None
        """A batch that was read ahead: its name, its fields, its rows."""
        self.span = 1
        self.flights: dict[int, Flight] = {}
        self._step = -1
        self._flight = Flight()
        self.scored: dict[str, list[tuple[Tensor, Tensor | None]]] = {}
        self.measured: dict[str, tuple[int, dict[str, float]]] = {}
        self.heard: list[tuple[int, float]] = []
        self.verdict = Verdict()
        self.best: dict[str, State] = {}

    def states(self, what: str) -> list[tuple[str, str]]:
        """Return the segments of a role or of a copy of it, ``client#3``: their names, and those of the copies."""
        role, mark, copy = what.partition("#")
        segments = self.shared.blueprint.graph.segments_of(role)
        return [(segment.name, f"{segment.name}{mark}{copy}") for segment in segments]

    def flight(self, step: int) -> Flight:
        """Return what is kept of ``step``."""
        if step == self._step:
            return self._flight
        flight = self.flights.get(step)
        if flight is None:
            # A step is over when nothing waits for its backward any more, nor to be joined to others.
            begin = step - self.span
            for old in [s for s, f in self.flights.items() if not (f.leaves or f.losses or begin < s < step)]:
                del self.flights[old]
            flight = self.flights[step] = Flight()
        self._step, self._flight = step, flight
        return flight

    def land(self) -> None:
        """Forget all steps: a party that is not on turn keeps no batch."""
        self.flights.clear()
        self._step, self._flight, self.ahead = -1, Flight(), None

    def segment(self, name: str) -> LiveSegment:
        """Return the working copy of a segment, made with the initial weights when first asked for.

        Of a copy, ``head#3``, there are no initial weights: somebody made it before.
        """
        live = self.live.get(name)
        if live is None:
            if self.away or "#" in name:
                raise StudyError(f"segment {name!r} was handed over and not taken back", party=self.name)
            live = self.live[name] = self.shared.workshop.fresh(name)
        return live


Instead = Callable[[LocalParty, Action, Runner], Runner]
"""What performs an action of a party in place of what would: ``instead(party, action, honest)`` returns a runner."""
