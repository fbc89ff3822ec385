"""What a hub knows of each party, and what it lets a party do: how often, how much, and when it may come back."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from cutlayer.errors import IdentityError
from cutlayer.transports.network.envelopes import Chunks
from cutlayer.transports.network.lines import Line
from cutlayer.transports.network.link import Link, Stream
from cutlayer.transports.network.settings import NetworkSettings

__all__ = ["Guest", "Pace", "Visit"]

_MOST_GONE = 64
_UNITS_PER_S, _BURST = 200.0, 1000.0
_UNIT_BYTES = 20_000
_REPLACED = "another process with this party's certificate has taken this one's place"


class Pace:
    """Lets somebody be quick for a while, and makes who is quick for ever wait.

    Args:
        per_s: Units a second that are always free.
        burst: Units that may be used at once after a rest.
        wait: What waits, given seconds.
    """

    def __init__(
        self, per_s: float = _UNITS_PER_S, burst: float = _BURST, wait: Callable[[float], Any] = time.sleep
    ) -> None:
        self._per_s, self._burst, self._wait = per_s, burst, wait
        self._left, self._at = burst, time.monotonic()

    def take(self, units: float) -> None:
        """Use ``units``; wait if there are none left, at most one second."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s) - units
        self._at = now
        if self._left < 0:
            self._wait(min(1.0, -self._left / self._per_s))

    def take_message(self, size: int) -> None:
        """Use what a message of ``size`` bytes costs."""
        self.take(1 + size / _UNIT_BYTES)


class Guest:
    """What the hub knows of one party.

    Args:
        name: The party.
        place: Its place in the list of parties.
        settings: Limits and times.
    """

    def __init__(self, name: str, place: int, settings: NetworkSettings) -> None:
        self.name, self.place = name, place
        self.link = Link(settings)
        self.incarnation: bytes | None = None
        self.closed = -1
        """The generation in which it said that it closes its end."""
        self.lock = threading.RLock()
        self.pace = Pace()
        self._settings = settings
        self._gone: dict[bytes, str] = {}
        self._reason, self._until, self._drops = "", 0.0, 0
        self.chunks = Chunks(settings.max_frame_bytes)
        """How far the frames are that it sends to other parties."""

    def enter(self, incarnation: bytes) -> bool:
        """Note the process that comes in; return whether it is another one than before."""
        if incarnation == self.incarnation:
            return False
        if self.incarnation is not None:
            self._leave_behind(self.incarnation, _REPLACED)
            self.link.reset()
            self.chunks = Chunks(self._settings.max_frame_bytes)
        self.incarnation, self.closed = incarnation, -1
        return True

    def refuse(self, reason: str) -> None:
        """Refuse the party for a while: this process for good, a new one after a pause that doubles each time."""
        self._drops += 1
        pause = self._settings.pardon_s * 2 ** (self._drops - 1)
        self._until = time.monotonic() + (pause if self._drops <= self._settings.pardons else math.inf)
        self._reason = reason or "dropped by the host"
        if self.incarnation is not None:
            self._leave_behind(self.incarnation, self._reason)

    def refusal(self, incarnation: bytes | None = None) -> str:
        """Return why the party, or a process of it, may not be here now; empty if it may."""
        left = self._until - time.monotonic()
        if left > 0:
            back = (
                "not before the host is started anew"
                if math.isinf(left)
                else f"in {left:.0f} s at the earliest"
            )
            return f"{self._reason}; it may come back {back}"
        return self._gone.get(incarnation or self.incarnation or b"", "")

    def _leave_behind(self, incarnation: bytes, why: str) -> None:
        self._gone[incarnation] = why
        while len(self._gone) > _MOST_GONE:
            self._gone.pop(next(iter(self._gone)))


class Visit:
    """One line that is open."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.began = self.checked = time.monotonic()
        self.party = ""
        self.guest: Guest | None = None
        self.stream: Stream | None = None

    def say(self, words: bytes) -> None:
        """Send a greeting or a refusal."""
        self.line.put(lambda: (words, b""))
        self.line.flush()

    @property
    def certificate(self) -> bytes:
        """The certificate that the other side has shown, in PEM."""
        if not self.line.certificate:
            raise IdentityError("no certificate was shown")
        return self.line.certificate
