"""What is in a run's log: the last event of a kind, its epochs, whether it came to its end, whose log it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from .events import Began, Ended, EpochEnded, Event

__all__ = ["Kind", "all_of", "ended_epochs", "finished", "last", "viewer"]

Kind = TypeVar("Kind", bound=Event)


def last(events: Iterable[Event], kind: type[Kind]) -> Kind | None:
    """Return the last event of a kind."""
    return next((e for e in reversed(list(events)) if isinstance(e, kind)), None)


def all_of(events: Iterable[Event], kind: type[Kind]) -> list[Kind]:
    """Return the events of a kind."""
    return [e for e in events if isinstance(e, kind)]


def finished(events: Iterable[Event]) -> bool:
    """Return whether the run came to its end: no epoch was begun after it."""
    ends = [e for e in events if isinstance(e, Ended | EpochEnded)]
    return bool(ends) and isinstance(ends[-1], Ended)


def ended_epochs(events: Iterable[Event]) -> dict[int, EpochEnded]:
    """Return the last account of each epoch: one that was trained again after a crash counts once."""
    return {e.epoch: e for e in sorted(all_of(events, EpochEnded), key=lambda e: e.epoch)}


def viewer(events: Iterable[Event]) -> str:
    """Return the party that kept this log of its own part; empty for a simulation's, which has everybody's."""
    began = last(events, Began)
    return began.party if began is not None else ""
