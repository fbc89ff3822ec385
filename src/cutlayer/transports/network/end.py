"""A party's own end of the network: what it sends and what it has received."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from cutlayer.errors import CutlayerError, PeerTimeout, TransportError, nearest
from cutlayer.transports.base import DEFAULT_TIMEOUT_S, aligned_buffer, bytes_of
from cutlayer.transports.network.envelopes import Chunks, Envelope
from cutlayer.transports.network.link import Link
from cutlayer.transports.network.reading import Inbox, Ready
from cutlayer.transports.network.settings import NetworkSettings

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["NetworkTransport"]


class _Partial:
    """A frame under way."""

    __slots__ = ("generation", "memory", "placed")

    def __init__(self, generation: int, memory: memoryview) -> None:
        self.generation, self.memory, self.placed = generation, memory, 0


class NetworkTransport:
    """One party's end, a `cutlayer.transports.Transport`; made by `Hub` and `Dial`.

    Args:
        party: Whose end it is.
        names: All parties, in the order that all of them were given.
        link_to: The link through which a party is reached.
        on_close: Told once, when the end is closed.
        settings: Limits and times.
    """

    def __init__(
        self,
        party: str,
        names: Sequence[str],
        link_to: Callable[[str], Link],
        on_close: Callable[[], None],
        settings: NetworkSettings,
    ) -> None:
        self.party = party
        self._names = tuple(names)
        self._places = {name: place for place, name in enumerate(self._names)}
        self._others = tuple(name for name in self._names if name != party)
        self._link_to, self._on_close = link_to, on_close
        self._settings = settings
        self._lock = threading.Lock()
        self._inboxes: dict[str, Inbox] = {name: SimpleQueue() for name in self._others}
        self._retired: dict[str, Inbox] = {}
        self._chunks = Chunks(settings.max_frame_bytes)
        self._partial: dict[str, _Partial] = {}
        self._later: list[tuple[str, int, memoryview]] = []
        self._later_ends: dict[str, int] = {}
        self._generation = 0
        self._ended: set[str] = set()
        self._closed = False
        self._error: CutlayerError | None = None

    @property
    def generation(self) -> int:
        """The generation that frames belong to now."""
        return self._generation

    # --- what a program calls --------------------------------------------------------------------

    def send(self, party: str, frame: Buffer) -> None:
        """Send ``frame`` to ``party``; wait while too much of what was sent is unread."""
        self._check(party)
        view = bytes_of(frame, self.party)
        if not 0 < len(view) <= self._settings.max_frame_bytes:
            raise TransportError(
                f"a frame for {party!r} cannot be sent",
                party=self.party,
                got=f"{len(view)} bytes",
                expected=f"1 to {self._settings.max_frame_bytes}",
                todo="allow longer frames in the study's network settings",
            )

        def go_on() -> None:
            self._check(party)
            self._check_end(party)

        place = self._places
        self._link_to(party).send_frame(place[self.party], place[party], self._generation, view, go_on)

    def receive(self, party: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> memoryview:
        """Return the next frame from ``party``; see `Transport.receive`."""
        self._check(party)
        if not timeout_s >= 0:
            raise TransportError(
                "a timeout is a number of seconds, 0 or more", party=self.party, got=repr(timeout_s)
            )
        until = time.monotonic() + timeout_s
        while True:
            inbox = self._inboxes[party]
            try:
                frame = self._next(party, inbox, until)
            except Empty:
                raise self._silent(party, timeout_s) from None
            if frame is not None:
                self._consume(party, len(frame))
                return frame
            try:
                self._check(party)
                self._check_end(party)
            except CutlayerError:
                inbox.put(None)  # for whoever else waits
                raise
            if inbox is not self._inboxes[party]:
                inbox.put(None)

    def close(self) -> None:
        """End this party's part; see `Transport.close`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._on_close()
        self._wake()

    # --- what the network calls ------------------------------------------------------------------

    def room(self, source: str, envelope: Envelope, size: int) -> memoryview:
        """Return where the bytes of a chunk from ``source`` go; `deliver` is told when they are there.

        Raises:
            Violation: If it does not fit to the chunks before.
        """
        with self._lock:
            if envelope.generation < self._generation or self._closed:
                return aligned_buffer(size)
            start = self._chunks.where(source, envelope, size)
            if start == 0:
                self._drop_partial(source)
                self._partial[source] = _Partial(envelope.generation, aligned_buffer(envelope.total))
            return self._partial[source].memory[start : start + size]

    def deliver(self, source: str, envelope: Envelope) -> Ready | None:
        """Take a chunk of a frame from ``source``, for which there was `room`.

        Returns:
            The inbox and the frame to be put there, if it is complete.

        Raises:
            Violation: If it does not fit to the chunks before.
        """
        size = len(envelope.payload)
        with self._lock:
            if envelope.generation < self._generation or self._closed:
                self._consume(source, size, int(envelope.flags))
                return None
            self._chunks.place(source, envelope)
            one = self._partial[source]
            one.placed += size
            if one.placed < envelope.total:
                return None
            del self._partial[source]
            if envelope.generation > self._generation:
                self._later.append((source, envelope.generation, one.memory))
                return None
            return self._inboxes[source], one.memory

    def end_of(self, source: str, generation: int) -> None:
        """Note that ``source`` has closed its end."""
        with self._lock:
            if generation > self._generation:
                self._later_ends[source] = max(generation, self._later_ends.get(source, 0))
            elif generation == self._generation and source not in self._ended:
                self._arrived(source, generation, None)

    def forget(self, source: str) -> None:
        """Forget the frame of ``source`` that is under way: its process has begun anew."""
        with self._lock:
            self._drop_partial(source)
            self._chunks.drop(source)

    def begin(self, generation: int) -> None:
        """Go on with the frames of ``generation``; drop those of older ones."""
        with self._lock:
            old, self._inboxes = self._inboxes, {name: SimpleQueue() for name in self._others}
            self._generation, self._error = generation, None
            self._ended.clear()
            self._chunks.forget(generation)
            for source in [name for name, one in self._partial.items() if one.generation < generation]:
                self._drop_partial(source)
            later, self._later = self._later, []
            for source, one, frame in later:
                if one >= generation:
                    self._arrived(source, one, frame)
                else:
                    self._consume(source, len(frame))
            for source in [name for name, one in self._later_ends.items() if one <= generation]:
                if self._later_ends.pop(source) == generation:
                    self._arrived(source, generation, None)
        for inboxes in (self._retired, old):  # a frame may have come late to the one before
            for source, inbox in inboxes.items():
                self._drain(source, inbox)
        self._retired = old

    def interrupt(self, error: CutlayerError) -> None:
        """Raise ``error`` from whatever waits or is called here, until `begin`."""
        self._error = error
        self._wake()

    # --- within ----------------------------------------------------------------------------------

    def _next(self, party: str, inbox: Inbox, until: float) -> memoryview | None:
        """Return what is in ``inbox``, reading for it if nobody else does."""
        if inbox.empty():
            self._link_to(party).read_for(inbox, until)
        return inbox.get(timeout=_wait_s(until))

    def _arrived(self, source: str, generation: int, frame: memoryview | None) -> None:
        if generation > self._generation and frame is not None:
            self._later.append((source, generation, frame))
            return
        if frame is None:
            self._ended.add(source)
        self._inboxes[source].put(frame)

    def _drop_partial(self, source: str) -> None:
        partial = self._partial.pop(source, None)
        if partial is not None and partial.placed:
            self._consume(source, partial.placed)

    def _drain(self, source: str, inbox: Inbox) -> None:
        with contextlib.suppress(Empty):
            while True:
                frame = inbox.get_nowait()
                if frame is not None:
                    self._consume(source, len(frame))
        inbox.put(None)

    def _consume(self, source: str, size: int, frames: int = 1) -> None:
        """Let the other side know that so much of a party's is no longer waiting."""
        self._link_to(source).consume(self._places[source], size, frames)

    def _wake(self) -> None:
        for name, inbox in self._inboxes.items():
            inbox.put(None)
            self._link_to(name).wake()

    def _check(self, party: str) -> None:
        if self._closed:
            raise TransportError("this end is closed", party=self.party, todo="close it after the last frame")
        if self._error is not None:
            raise self._error
        if party == self.party:
            raise TransportError("a party does not send frames to itself", party=self.party)
        if party not in self._places:
            raise TransportError(
                "no such party", party=self.party, got=repr(party), todo=nearest(party, self._others)
            )

    def _check_end(self, party: str) -> None:
        if party in self._ended:
            error = TransportError(
                f"nothing more goes to or comes from {party!r}, which has closed its end",
                party=self.party,
                todo=f"look at why {party!r} ended",
            )
            error.sender = party
            raise error

    def _silent(self, party: str, timeout_s: float) -> PeerTimeout:
        return PeerTimeout(
            f"nothing came from {party!r} within {timeout_s:g} s",
            party=self.party,
            todo=f"check that {party!r} runs and follows the same program, or allow more time",
        )


def _wait_s(until: float) -> float | None:
    if math.isinf(until):
        return None
    return min(max(until - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
