"""Windows: how much of one party's frames is under way through a link and not read yet, at either side of it.

Each source has its own, so that a party whose frames nobody reads holds up nobody else's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from cutlayer.transports.network.envelopes import FIRST, Envelope, Lane, Violation
from cutlayer.transports.network.settings import NetworkSettings

if TYPE_CHECKING:
    from cutlayer.transports.network.link import Link

__all__ = ["Incoming", "Outgoing", "Unread"]

_MOST_FRAMES = 4096  # under way and unread, however short they are
_SLACK = 2


class Unread(NamedTuple):
    """Bytes that the other side has not consumed yet, and through which link they came to be relayed."""

    end: int
    frames: int
    origin: Link | None
    size: int


class Outgoing:
    """What one party's frames have taken of its window, where they leave."""

    __slots__ = ("_consumed", "_frames", "_sent", "unread")

    def __init__(self) -> None:
        self.unread: deque[Unread] = deque()
        self._sent = self._frames = self._consumed = 0

    def full(self, settings: NetworkSettings) -> bool:
        """Return whether the next frame must wait."""
        much = self._sent - self._consumed > settings.window_bytes
        return (much and self._frames >= settings.window_frames) or self._frames >= _MOST_FRAMES

    def add(self, size: int, *, last: bool, origin: Link | None) -> None:
        """Note that a chunk leaves; ``origin`` learns when it has been consumed."""
        self._sent += size
        self._frames += last
        self.unread.append(Unread(self._sent, int(last), origin, size))

    def consumed(self, consumed: int) -> list[Unread]:
        """Note how many bytes the other side has consumed; return what is unread no longer.

        Raises:
            Violation: If these are more than were sent.
        """
        if consumed <= self._consumed:
            return []
        if consumed > self._sent:
            raise Violation("bytes were confirmed that were never sent")
        self._consumed = consumed
        released = []
        while self.unread and self.unread[0].end <= consumed:
            released.append(self.unread.popleft())
            self._frames -= released[-1].frames
        return released


class Incoming:
    """What one party's frames have taken of its window, where they arrive."""

    __slots__ = ("_consumed_frames", "_frames", "_received", "consumed", "told")

    def __init__(self) -> None:
        self._received = self._frames = self._consumed_frames = 0
        self.consumed = self.told = 0

    def came(self, envelope: Envelope, settings: NetworkSettings) -> None:
        """Note that a chunk came, or word of one that was dropped.

        Raises:
            Violation: If it is beyond the window, with some slack for what crosses on the way.
        """
        if envelope.lane == Lane.VOID:
            self._received += envelope.total
            self.consumed += envelope.total
            return
        if envelope.flags & FIRST:
            self._frames += 1
            frames, unread = self._frames - self._consumed_frames, self._received - self.consumed
            much = frames > _SLACK * settings.window_frames and unread > _SLACK * settings.window_bytes
            if much or frames > _SLACK * _MOST_FRAMES:
                raise Violation(
                    "it floods: more came than may be under way",
                    got=f"{unread} bytes in {frames} frames unread",
                    expected=f"at most {settings.window_bytes} bytes, {_MOST_FRAMES} frames",
                )
        self._received += len(envelope.payload)

    def consume(self, size: int, frames: int) -> int:
        """Note that so much is no longer waiting; return how many bytes the other side has not been told of."""
        self.consumed = min(self.consumed + size, self._received)
        self._consumed_frames = min(self._consumed_frames + frames, self._frames)
        return self.consumed - self.told
