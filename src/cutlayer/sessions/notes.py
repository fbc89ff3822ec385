"""What a host writes down of others: whole, on one line, and not more of it than a person can read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Notes", "on_one_line"]

_LONGEST = 2000
_MOST_NAMES = 256


def on_one_line(text: str, longest: int = _LONGEST) -> str:
    """Return ``text`` without what would begin a new line or command a terminal, and no longer than ``longest``."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:longest])
    return shown if len(text) <= longest else f"{shown}… ({len(text) - longest} more characters)"


class Notes:
    """Passes notes on, and only counts those of somebody who makes too many.

    Args:
        write: Where to.
        burst: How many notes about one party or address are passed on at once.
        per_s: How many a second after that.
    """

    def __init__(self, write: Callable[[str], None], *, burst: int = 100, per_s: float = 0.5) -> None:
        self._write, self._burst, self._per_s = write, burst, per_s
        self._known: dict[str, _Budget] = {}
        self._lock = threading.Lock()

    def __call__(self, who: str, what: str, *, mark: str = "") -> None:
        """Note that ``who``, a party or an address with its port, did ``what``."""
        key = mark + (who.rpartition(":")[0] or who)  # misdeeds are noted though there is much else to note
        with self._lock:
            if key not in self._known and len(self._known) >= _MOST_NAMES:
                key = "others"
            budget = self._known.setdefault(key, _Budget(self._burst))
            left_out = budget.take(self._burst, self._per_s)
        if left_out is None:
            return
        if left_out:
            self._write(f"{on_one_line(key)}: {left_out} more notes were left out")
        self._write(f"{mark}{on_one_line(who)}: {on_one_line(what)}")


class _Budget:
    """How many notes somebody has left, and how many were left out."""

    def __init__(self, burst: int) -> None:
        self._left, self._at, self._silent = float(burst), time.monotonic(), 0

    def take(self, burst: int, per_s: float) -> int | None:
        """Return how many were left out before this one; None if it is left out, too."""
        now = time.monotonic()
        self._left, self._at = min(float(burst), self._left + (now - self._at) * per_s), now
        if self._left < 1:
            self._silent += 1
            return None
        self._left -= 1
        silent, self._silent = self._silent, 0
        return silent
