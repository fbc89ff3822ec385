"""Which snapshots a party holds, which of them the host still counts on, and which may go."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..runtime.positions import START, Position
from ..runtime.snapshots import Snapshot, Snapshots
from .messages import MOST_POSITIONS, Place, place

__all__ = ["Keeping"]


class Keeping:
    """A party's snapshots, as far as the host must know of them.

    Args:
        folder: The party's folder.
        tell: Called, in the thread that writes, when one more snapshot is safe.
    """

    def __init__(self, folder: Path, tell: Callable[[], None]) -> None:
        self.snapshots = Snapshots(folder, background=True, on_disk=self._on_disk)
        self._tell = tell
        self._lock = threading.Lock()
        self._held: list[Position] = []
        self._from = START

    def look(self) -> None:
        """Find out what is on the disk."""
        held = list(self.snapshots.held())  # waits for the thread that writes, which wants the lock
        with self._lock:
            self._held = held

    @property
    def places(self) -> list[Place]:
        """The positions of the newest snapshots, for the host."""
        with self._lock:
            return [place(held) for held in self._held[-MOST_POSITIONS:]]

    def keep_from(self, position: Position) -> None:
        """Note that nobody will go back to before ``position``."""
        self._from = max(self._from, position)

    def is_gone(self, position: Position) -> bool:
        """Return whether the host had the snapshots before ``position`` deleted, so that it cannot go back there."""
        with self._lock:
            return bool(self._held) and position < min(self._held[0], self._from)

    def at(self, position: Position) -> Snapshot:
        """Return the newest snapshot at or before ``position``; what came after it will be done once more.

        Raises:
            LogError: It is damaged.
        """
        last = self.back_to(position)
        if last is None:
            return Snapshot(position=position)
        return replace(self.snapshots.load(last), position=position)

    def back_to(self, position: Position) -> Position | None:
        """Delete what came after ``position``; return the newest that is left."""
        self.snapshots.rewind(position)
        with self._lock:
            self._held = [held for held in self._held if held <= position]
            return self._held[-1] if self._held else None

    def let_old_ones_go(self) -> None:
        """Delete the snapshots that nobody will go back to."""
        self._forget(self._from)

    def keep_the_last(self) -> None:
        """Delete all but the last: the study is over."""
        self.look()
        if self._held:
            self._forget(self._held[-1])

    def _forget(self, before: Position) -> None:
        with self._lock:
            keep = max((held for held in self._held if held <= before), default=START)
            old = any(held < keep for held in self._held)
            self._held = [held for held in self._held if held >= keep]
        if old:
            self.snapshots.forget(before)

    def _on_disk(self, position: Position) -> None:
        with self._lock:
            self._held = sorted({*self._held, position})
        self._tell()
