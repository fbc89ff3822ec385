"""How long each action takes: by FLOPs and a machine's speed, or as a short rehearsal on this machine took."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..data import Holdings, PartyData, Records
from ..errors import StudyError
from ..graph.parts import Role, TensorSpec
from ..graph.split_graph import SplitGraph
from ..metering.events import Worked
from ..schedules.actions import Op
from ..seeds import generator
from ..study import Study
from .events import Line, Move
from .forecast import Forecast
from .tariff import Priced

__all__ = ["ByFlops", "Pace", "Rehearsed", "World", "moves", "rehearse"]

_WITH_ROWS = frozenset({Op.LOAD, Op.FORWARD, Op.INFER, Op.LOSS, Op.SEND, Op.RECEIVE, Op.BACKWARD, Op.SCORE})
_ARRIVES = frozenset({Op.RECEIVE, Op.TAKE, Op.HEAR, Op.NOTE})


class Pace(Protocol):
    """Says how long an action takes."""

    def seconds(self, priced: Priced) -> float:
        """Return the seconds that a party computes for an action, without waiting."""
        ...


@dataclass(frozen=True, kw_only=True)
class World:
    """Machines and lines of those who take part.

    Attributes:
        client_flops: FLOP a second of a client.
        server_flops: FLOP a second of anybody else.
        line: A client's line.
        server_line: The line of anybody else.
        spread: How much clients differ: the standard deviation of the logarithm of their speeds, drawn apart for
            computing and for lines; 0: all alike. With 0.5, one in six is slower than 0.6 of the median.
        seed: Of that draw.
    """

    client_flops: float
    server_flops: float
    line: Line = dataclasses.field(default_factory=Line)
    server_line: Line = dataclasses.field(default_factory=lambda: Line(mbit=1000.0, latency_ms=0.0))
    spread: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("client_flops", "server_flops"):
            if not getattr(self, name) > 0:
                raise StudyError(f"{name} is a speed above 0, in FLOP a second", got=str(getattr(self, name)))
        if not self.spread >= 0:
            raise StudyError("spread is 0 or more", got=str(self.spread))

    def factors(self, parties: Iterable[str]) -> dict[str, tuple[float, float]]:
        """Return by what the speeds of parties are multiplied: for computing, and for their lines."""
        names = list(parties)
        drawn = (
            generator(self.seed, "speeds").normal(0.0, self.spread, (len(names), 2)) if self.spread else None
        )
        return {n: (1.0, 1.0) if drawn is None else tuple(np.exp(drawn[i])) for i, n in enumerate(names)}

    def lines(self, graph: SplitGraph) -> dict[str, Line]:
        """Return the line of each party of ``graph``."""
        people = clients_of(graph)
        factors = self.factors(people)
        return {
            party.name: self.line.scaled(factors[party.name][1])
            if party.name in factors
            else self.server_line
            for party in graph.parties
        }


def clients_of(graph: SplitGraph) -> tuple[str, ...]:
    """Return the parties that are clients: those that hold raw inputs."""
    inputs = {graph.segments[n].role for n in graph.order for r in graph.wiring[n] if isinstance(r, str)}
    return tuple(p for role in graph.roles.values() if role.name in inputs for p in role.parties)


class ByFlops:
    """FLOPs by the speed of whoever computes; nothing else takes time.

    Args:
        world: Speeds.
        graph: Who is a client.
    """

    def __init__(self, world: World, graph: SplitGraph) -> None:
        factors = world.factors(clients_of(graph))
        self._speeds = {
            p.name: world.client_flops * factors[p.name][0] if p.name in factors else world.server_flops
            for p in graph.parties
        }

    def seconds(self, priced: Priced) -> float:
        """See `Pace`."""
        return priced.cost.flops / self._speeds[priced.action.party] if priced.cost.flops else 0.0


class Rehearsed:
    """As long as the same kind of action took in a rehearsal; what depends on rows, in proportion to them.

    Args:
        seconds: Mean seconds of a call, by role and kind of action.
        rows: Mean rows of those calls.
        roles: Each party's role.
    """

    def __init__(
        self,
        seconds: Mapping[tuple[str, Op], float],
        rows: Mapping[tuple[str, Op], float],
        roles: Mapping[str, str],
    ) -> None:
        self._seconds, self._rows, self._roles = seconds, rows, roles

    def seconds(self, priced: Priced) -> float:
        """See `Pace`."""
        op = priced.action.op
        key = (self._roles[priced.action.party], op)
        known = self._seconds.get(key, 0.0)
        usual = self._rows.get(key, 0.0)
        return known * priced.rows / usual if op in _WITH_ROWS and usual else known


def moves(items: Iterable[list[Priced]], pace: Pace) -> Iterator[Move]:
    """Yield what parties do and how long it takes, of priced items."""
    for item in items:
        for priced in item:
            action, cost = priced.action, priced.cost
            if action.op in _ARRIVES:
                yield Move(action.party, "receive", 0.0, action.via or action.peer)
            elif action.op is Op.RELAY:
                yield Move(action.party, "receive", 0.0, action.peer)
            seconds = pace.seconds(priced)
            if seconds:
                yield Move(action.party, "work", seconds)
            if cost.frames:
                yield Move(action.party, "send", cost.sent_bytes, cost.to)


def rehearse(study: Study, *, batches: int = 4, rows: int | None = None) -> Rehearsed:
    """Train ``study`` for a moment on rows of noise, with two parties of each crowded role, and time every action.

    Args:
        study: What is to be timed; its modules hold numbers.
        batches: Training batches of each party in an epoch; two epochs are trained, the second is timed.
        rows: Rows to evaluate on, of each party; none unless given.

    Raises:
        StudyError: The shapes of fields are not known.
    """
    graph = _fewer(study.graph)
    people = _noise(graph, batches * study.batch_size, rows or 0)
    small = dataclasses.replace(study, graph=graph, epochs=2, early_stopping=None, metrics=("loss",))
    run = small.simulate(people)
    held = {"train": batches * study.batch_size, **({"test": rows} if rows else {})}
    forecast = Forecast(small, [held] * len(graph.turns))
    seconds: defaultdict[tuple[str, Op], list[float]] = defaultdict(lambda: [0.0, 0])
    roles = {party.name: party.role for party in graph.parties}
    for event in run.events:
        if isinstance(event, Worked) and event.epoch == 1:
            total = seconds[roles[event.party], Op(event.op)]
            total[0] += event.seconds
            total[1] += event.calls
    usual: defaultdict[tuple[str, Op], list[int]] = defaultdict(lambda: [0, 0])
    for epoch, items in enumerate(forecast.epochs()):
        for priced in (one for item in items for one in item if epoch == 1):
            count = usual[roles[priced.action.party], priced.action.op]
            count[0] += priced.rows
            count[1] += 1
    return Rehearsed(
        {key: total / calls for key, (total, calls) in seconds.items() if calls},
        {key: total / calls for key, (total, calls) in usual.items() if calls},
        {party.name: party.role for party in study.graph.parties},
    )


def _fewer(graph: SplitGraph) -> SplitGraph:
    """Return the same graph, over the same modules, with at most two parties of each role."""
    fewer = SplitGraph(
        roles=[Role(role.name, role.parties[:2], role.fields) for role in graph.roles.values()],
        segments=graph.segments.values(),
        losses=graph.losses.values(),
        shares=graph.shares,
        example=graph.example,
        name=graph.name,
    )
    fewer.cuts = graph.cuts
    return fewer


def _noise(graph: SplitGraph, train: int, test: int) -> Holdings:
    """Return noise as the graph says fields are; labels are all 0."""
    parties = []
    for role in graph.roles.values():
        for party in role.parties if role.fields else ():
            splits = {
                split: Records(
                    np.arange(count), {n: _rows(spec, n, count) for n, spec in role.fields.items()}
                )
                for split, count in (("train", train), ("test", test))
                if count
            }
            parties.append(PartyData(name=party, role=role.name, splits=splits))
    return Holdings(tuple(parties))


def _rows(spec: TensorSpec | None, name: str, count: int) -> Tensor:
    if spec is None:
        raise StudyError(f"the shape of field {name!r} is not known", todo="give example= rows of all fields")
    made = torch.zeros((count, *spec.shape), dtype=spec.dtype)
    if spec.dtype.is_floating_point and spec.shape:
        made.normal_(generator=torch.Generator().manual_seed(0))
    return made
