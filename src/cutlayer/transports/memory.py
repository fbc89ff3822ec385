"""Parties in one process: frames pass from hand to hand, never copied."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from cutlayer.errors import PeerTimeout, TransportError, nearest
from cutlayer.transports.base import DEFAULT_TIMEOUT_S, bytes_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["MemoryHub", "MemoryTransport"]

_Queue = SimpleQueue["memoryview | None"]  # None: nothing more will come


class MemoryHub:
    """Where the ends of parties in one process meet.

    A queue for a pair of parties is made when one of them first asks for it, so parties that never
    speak to each other cost nothing.

    >>> hub = MemoryHub(["hospital", "server"])
    >>> hub.end("hospital").send("server", b"frame")
    >>> bytes(hub.end("server").receive("hospital"))
    b'frame'

    Args:
        parties: Names of all parties.

    Raises:
        TransportError: If two parties share a name.
    """

    def __init__(self, parties: Iterable[str]) -> None:
        names = tuple(parties)
        self._ends = {name: MemoryTransport(self, name) for name in names}
        if len(self._ends) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise TransportError("two parties share a name", got=repr(twice), todo="give each its own")
        self._queues: dict[tuple[str, str], _Queue] = {}
        self._closed: set[str] = set()
        self._lock = threading.Lock()

    @property
    def parties(self) -> tuple[str, ...]:
        """Names of all parties, in the order given."""
        return tuple(self._ends)

    def end(self, party: str) -> MemoryTransport:
        """Return the end of ``party``, always the same one.

        Raises:
            TransportError: If there is no such party.
        """
        if party not in self._ends:
            raise TransportError("no such party", got=repr(party), todo=nearest(party, self.parties))
        return self._ends[party]

    def is_closed(self, party: str) -> bool:
        """Return whether ``party`` has closed its end."""
        return party in self._closed

    def queue(self, sender: str, receiver: str) -> _Queue:
        """Return the queue from one party to another; for the ends, not for users."""
        with self._lock:
            queue = self._queues.get((sender, receiver))
            if queue is None:
                queue = self._queues[sender, receiver] = SimpleQueue()
                if sender in self._closed:
                    queue.put(None)
            return queue

    def close(self, party: str) -> None:
        """Close the end of ``party`` and wake whoever waits at it or for it."""
        with self._lock:
            if party in self._closed:
                return
            self._closed.add(party)
            for pair, queue in self._queues.items():
                if party in pair:
                    queue.put(None)


class MemoryTransport:
    """One party's end at a `MemoryHub`, a `cutlayer.transports.Transport`.

    What one party sends is, byte for byte and address for address, what the other receives: the
    sender gives it away.
    """

    def __init__(self, hub: MemoryHub, party: str) -> None:
        self.party = party
        self._hub = hub
        self._to: dict[str, _Queue] = {}
        self._from: dict[str, _Queue] = {}

    def send(self, party: str, frame: Buffer) -> None:
        """Hand ``frame`` to ``party``; see `Transport.send`."""
        queue = self._to.get(party)
        if queue is None or self._hub.is_closed(party):
            queue = self._queue_to(party)
        queue.put(bytes_of(frame, self.party))

    def receive(self, party: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> memoryview:
        """Return the next frame from ``party``; see `Transport.receive`."""
        try:
            frame = self._from[party].get_nowait()
        except (KeyError, Empty):
            frame = self._wait(party, timeout_s)
        if frame is None:
            raise self._ended(party)
        return frame

    def close(self) -> None:
        """End this party's part; see `Transport.close`."""
        self._hub.close(self.party)
        self._to, self._from = {}, {}

    def _queue_to(self, party: str) -> _Queue:
        self._check(party)
        if self._hub.is_closed(party):
            raise TransportError(f"cannot send to {party!r}, which has closed its end", party=self.party)
        self._to[party] = self._hub.queue(self.party, party)
        return self._to[party]

    def _wait(self, party: str, timeout_s: float) -> memoryview | None:
        self._check(party)
        if not timeout_s >= 0:
            raise TransportError(
                "a timeout is a number of seconds, 0 or more", party=self.party, got=repr(timeout_s)
            )
        queue = self._from[party] = self._hub.queue(party, self.party)
        try:
            return queue.get(timeout=None if math.isinf(timeout_s) else min(timeout_s, threading.TIMEOUT_MAX))
        except Empty:
            raise PeerTimeout(
                f"nothing came from {party!r} within {timeout_s:g} s",
                party=self.party,
                todo=f"check that {party!r} runs and follows the same program, or allow more time",
            ) from None

    def _ended(self, party: str) -> TransportError:
        """Return why nothing more will come from ``party``, and leave the mark for whoever else waits."""
        self._hub.queue(party, self.party).put(None)
        if self._hub.is_closed(self.party):
            return self._closed()
        return TransportError(
            f"nothing more will come from {party!r}, which has closed its end",
            party=self.party,
            todo=f"look at why {party!r} ended",
        )

    def _check(self, party: str) -> None:
        if self._hub.is_closed(self.party):
            raise self._closed()
        if party == self.party:
            raise TransportError("a party does not send frames to itself", party=self.party)
        if party not in self._hub.parties:
            others = [name for name in self._hub.parties if name != self.party]
            raise TransportError(
                "no such party", party=self.party, got=repr(party), todo=nearest(party, others)
            )

    def _closed(self) -> TransportError:
        return TransportError("this end is closed", party=self.party, todo="close it after the last frame")
