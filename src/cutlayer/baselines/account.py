"""What a client has spent, read off a run's log: the same account of a split study and of a baseline."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ..errors import StudyError
from ..metering.events import Computed, Event, Traffic
from ..metering.table import human_bytes, human_flops

__all__ = ["Budget", "Spent", "spent", "spent_by_epoch"]


@dataclass(frozen=True)
class Spent:
    """What training has cost a client so far, as a mean over all clients; evaluation is not counted.

    Attributes:
        flops: Floating point operations, by PyTorch's own counter.
        bytes: Of frames, sent and received.
    """

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much a client may spend in training, as a mean over all clients.

    Attributes:
        flops: Floating point operations; infinite for no limit.
        bytes: Of frames, sent and received; infinite for no limit.
    """

    flops: float = math.inf
    bytes: float = math.inf

    def __post_init__(self) -> None:
        for name in ("flops", "bytes"):
            if not getattr(self, name) > 0:
                raise StudyError(f"a budget of {name} is above 0", got=repr(getattr(self, name)))

    def reached(self, now: Spent) -> bool:
        """Return whether that much was spent."""
        return now.flops >= self.flops or now.bytes >= self.bytes

    def __str__(self) -> str:
        parts = [human_flops(self.flops)] if math.isfinite(self.flops) else []
        parts += [human_bytes(self.bytes)] if math.isfinite(self.bytes) else []
        return f"{' or '.join(parts) or 'no limit'} a client"


def spent(
    events: Iterable[Event], clients: Collection[str], share: Mapping[int, float] | None = None
) -> Spent:
    """Return what training cost a client, by a run's log as far as it got; see :func:`spent_by_epoch`."""
    by_epoch = spent_by_epoch(events, clients, share)
    return by_epoch[max(by_epoch)] if by_epoch else Spent()


def spent_by_epoch(
    events: Iterable[Event], clients: Collection[str], share: Mapping[int, float] | None = None
) -> dict[int, Spent]:
    """Return what training had cost a client by the end of each epoch.

    Args:
        events: A run's log.
        clients: Who they are; a frame from one to another counts at both.
        share: By epoch, the share of its hand-overs that are training's; all of them unless given.
    """
    flops: dict[int, float] = {}
    sizes: dict[int, float] = {}
    who = frozenset(clients)
    for event in events:
        if isinstance(event, Computed) and event.phase == "training" and event.party in who:
            flops[event.epoch] = flops.get(event.epoch, 0.0) + event.flops
        elif isinstance(event, Traffic) and event.phase in ("training", "hand-over"):
            ends = (event.sender in who) + (event.receiver in who)
            part = 1.0 if share is None or event.phase == "training" else share.get(event.epoch, 1.0)
            sizes[event.epoch] = sizes.get(event.epoch, 0.0) + ends * event.frame_bytes * part
    found, now = {}, Spent()
    for epoch in sorted({*flops, *sizes}):
        now += Spent(flops.get(epoch, 0.0) / len(who), sizes.get(epoch, 0.0) / len(who))
        found[epoch] = now
    return found
