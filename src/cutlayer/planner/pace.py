"""How long each action takes: by FLOPs and a machine's speed. See `rehearsal` for how long it takes on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from ..errors import StudyError
from ..graph.split_graph import SplitGraph
from ..schedules.actions import Op
from ..seeds import generator
from .events import Line, Move
from .tariff import Priced

__all__ = ["ByFlops", "Pace", "World", "clients_of", "moves"]

_SLOWEST = 24
"""So many of the slowest at computing, on their line, and in both together are in every smaller crowd."""
_MOST_DRAWN = 1_000_000
"""Among more clients than these the slowest is hardly slower."""
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
        of: Where those who take part stand for more clients, of how many: the slowest of all are among them.
    """

    client_flops: float
    server_flops: float
    line: Line = dataclasses.field(default_factory=Line)
    server_line: Line = dataclasses.field(default_factory=lambda: Line(mbit=1000.0, latency_ms=0.0))
    spread: float = 0.0
    seed: int = 0
    of: int = 0

    def __post_init__(self) -> None:
        for name in ("client_flops", "server_flops"):
            if not getattr(self, name) > 0:
                raise StudyError(f"{name} is a speed above 0, in FLOP a second", got=str(getattr(self, name)))
        if not self.spread >= 0:
            raise StudyError("spread is 0 or more", got=str(self.spread))

    def factors(self, parties: Iterable[str]) -> dict[str, tuple[float, float]]:
        """Return by what the speeds of parties are multiplied: for computing, and for their lines."""
        names = list(parties)
        if not self.spread:
            return dict.fromkeys(names, (1.0, 1.0))
        drawn = _speeds(self.seed, self.spread, len(names), self.of)
        return {
            name: (computing, line) for name, (computing, line) in zip(names, drawn.tolist(), strict=True)
        }

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


@lru_cache(maxsize=8)
def _speeds(seed: int, spread: float, count: int, of: int) -> np.ndarray:
    """Return factors for computing and for lines of ``count`` clients [count, 2].

    Where these stand for more, the slowest of all are among them, and the others are drawn from the rest by chance, in
    an order that is the same for every ``count``.
    """
    drawn = generator(seed, "speeds").normal(0.0, spread, (max(count, min(of, _MOST_DRAWN)), 2))
    if len(drawn) > count:
        slow = [np.argsort(by)[:_SLOWEST] for by in (drawn[:, 0], drawn[:, 1], drawn.sum(1))]
        slowest = np.unique(np.concatenate(slow))[:count]
        others = np.setdiff1d(np.arange(len(drawn)), slowest)
        chosen = generator(seed, "crowd").permutation(others)[: count - len(slowest)]
        drawn = drawn[np.concatenate([slowest, chosen])]
    return np.asarray(np.exp(drawn))


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
