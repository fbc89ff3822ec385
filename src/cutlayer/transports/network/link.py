"""A link: envelopes between two ends, each once and in order, over streams that come and go."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from cutlayer.transports.network.envelopes import CHUNK, FIRST, HEADER, VERSION, Envelope, Lane, Violation
from cutlayer.transports.network.lines import Line, Room
from cutlayer.transports.network.reading import Inbox, Reading, Ready
from cutlayer.transports.network.settings import NetworkSettings

__all__ = ["Link", "Ready", "Stream"]

_ACK_ENVELOPES = 64
_ACK_BYTES = 8 << 20
_MOST_PATIENCE = 8  # times the silence that ends a stream
_MOST_FRAMES = 4096  # under way and unread, however short they are


class _Item:
    """One envelope that is to leave; its payload is dropped when its generation is over."""

    __slots__ = ("flags", "generation", "lane", "payload", "sequence", "size", "source", "target", "total")

    def __init__(self, lane: int, flags: int, source: int, target: int, generation: int, total: int) -> None:
        self.lane, self.flags, self.source, self.target = lane, flags, source, target
        self.generation, self.total, self.sequence, self.size = generation, total, 0, 0
        self.payload: memoryview | bytes | None = b""


class _Unread(NamedTuple):
    """Bytes that the other side has not consumed yet, and for whom they were relayed."""

    end: int
    frames: int
    origin: Link | None
    size: int


_ACK = _Item(Lane.ACK, 0, 0, 0, 0, 0)


class Stream:
    """A line that a link goes through: what became of it."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.reading: Reading | None = None
        self.brought = False
        """Whether anything new came through it."""
        self.ended = 0.0
        """When it was given up; 0 while it is in use."""

    @property
    def heard(self) -> float:
        """When something came last."""
        return self.line.heard

    def end(self, last_words: bytes = b"") -> None:
        """Let nothing more leave after these bytes."""
        if self.ended:
            return
        self.ended = time.monotonic()
        if last_words:
            self.line.put(lambda: (last_words, b""))
        self.line.put(None)
        self.line.flush()


class Link:
    """One side of a link; the other side is another `Link`.

    What is sent is kept until the other side says that it has it, and is sent again through the next
    stream. Control messages never wait; frames wait while ``window_bytes`` and ``window_frames`` are
    unread at the other side.

    Args:
        settings: Limits and times, the same at both sides.
        senders: How many parties' frames come through it; each of them may fill a window.
    """

    def __init__(self, settings: NetworkSettings, senders: int = 1) -> None:
        self._settings, self._senders = settings, senders
        self._ack_bytes = min(_ACK_BYTES, max(1, settings.window_bytes // 4))
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._delivery = threading.RLock()
        self._patience_s = settings.silence_s
        self._stream: Stream | None = None
        self._clear()

    def _clear(self) -> None:
        self._unacked: deque[_Item] = deque()
        self._unread: deque[_Unread] = deque()
        self._sent = self._sent_bytes = self._unread_frames = 0
        self._peer_consumed = 0
        self._received = self._received_bytes = self._received_frames = 0
        self._consumed = self._consumed_frames = 0
        self._told, self._told_consumed, self._since_told = 0, 0, 0

    # --- streams ---------------------------------------------------------------------------------

    @property
    def received(self) -> int:
        """How many envelopes were received; what a new stream begins with."""
        return self._received

    @property
    def stream(self) -> Stream | None:
        """The stream it is attached to."""
        return self._stream

    @property
    def unconfirmed(self) -> int:
        """How many envelopes the other side has not confirmed."""
        return len(self._unacked)

    @property
    def idle(self) -> bool:
        """Whether the other side has everything that was sent."""
        return not self._unacked

    @property
    def patience_s(self) -> float:
        """How long a stream may be silent before it is given up."""
        return self._patience_s

    def gave_up(self, stream: Stream) -> None:
        """Note that ``stream`` was silent; if it brought nothing at all, give the next one more time."""
        with self._lock:
            if not stream.brought:
                stream.brought = True
                self._patience_s = min(2 * self._patience_s, _MOST_PATIENCE * self._settings.silence_s)

    def attach(self, peer_received: int, line: Line) -> Stream:
        """Go on through a new line, with what the other side has not received yet, once it is flushed.

        Raises:
            Violation: If the other side says that it has more than was sent.
        """
        with self._lock:
            self._acknowledge(peer_received)
            self._end_stream()
            stream = self._stream = Stream(line)
            for item in self._unacked:
                line.put(partial(self._packed, item))
        line.keep_alive(self._beat, self._settings.beat_s)
        return stream

    def detach(self, stream: Stream) -> bool:
        """Let go of ``stream``; return whether it was still the one in use."""
        with self._lock:
            stream.end()
            mine = stream is self._stream
            if mine:
                self._stream = None
            return mine

    def reset(self) -> None:
        """Begin from zero, since the other side does."""
        with self._delivery:
            with self._lock:
                self._end_stream()
                unread = list(self._unread)
                self._clear()
                self._room.notify_all()
            _release(unread)

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stream.line.cancel()
            self._stream = None

    def _flush(self) -> None:
        """Let what was put leave; never while the lock is held, since encrypting takes time."""
        stream = self._stream
        if stream is not None:
            stream.line.flush()

    # --- sending ---------------------------------------------------------------------------------

    def send_frame(
        self, source: int, target: int, generation: int, frame: memoryview, go_on: Callable[[], None]
    ) -> None:
        """Send a frame in chunks; wait while too much is unread at the other side.

        Args:
            source: Place of the sender.
            target: Place of the receiver.
            generation: The generation that it belongs to.
            frame: Its bytes, which must not change any more.
            go_on: Called before and after waiting; raises if sending has become pointless.
        """
        total = len(frame)
        with self._lock:
            while self._full():
                go_on()
                self._room.wait()
            go_on()
            for start in range(0, total, CHUNK):
                chunk = frame[start : start + CHUNK] if total > CHUNK else frame
                flags = FIRST if start == 0 else 0
                self._put_data(source, target, generation, flags, total, chunk, None, start + CHUNK >= total)
        self._flush()

    def relay(self, envelope: Envelope, last: bool, origin: Link) -> None:
        """Pass on a chunk that came through ``origin``, which learns when it has been consumed."""
        with self._lock:
            self._put_data(
                envelope.source,
                envelope.target,
                envelope.generation,
                envelope.flags,
                envelope.total,
                envelope.payload,
                origin,
                last,
            )
        self._flush()

    def post(self, lane: Lane, source: int, target: int, generation: int, payload: bytes = b"") -> None:
        """Send a small envelope that does not wait for room."""
        with self._lock:
            item = _Item(lane, 0, source, target, generation, len(payload))
            item.payload = payload
            self._put(item)
        self._flush()

    def begin(self, generation: int) -> None:
        """Drop the bytes of older generations that the other side has not confirmed yet."""
        with self._lock:
            for item in self._unacked:
                if item.lane == Lane.DATA and item.generation < generation:
                    item.payload = None

    def wake(self) -> None:
        """Let whoever waits for room or for frames look again whether to go on."""
        with self._lock:
            self._room.notify_all()
        stream = self._stream
        if stream is not None:
            stream.line.ring()

    def _full(self) -> bool:
        return (
            self._sent_bytes - self._peer_consumed > self._settings.window_bytes
            and self._unread_frames >= self._settings.window_frames
        ) or self._unread_frames >= _MOST_FRAMES

    def _put_data(
        self,
        source: int,
        target: int,
        generation: int,
        flags: int,
        total: int,
        payload: memoryview,
        origin: Link | None,
        last: bool,
    ) -> None:
        item = _Item(Lane.DATA, flags, source, target, generation, total)
        item.payload, item.size = payload, len(payload)
        self._sent_bytes += item.size
        self._unread_frames += last
        self._unread.append(_Unread(self._sent_bytes, last, origin, item.size))
        self._put(item)

    def _put(self, item: _Item) -> None:
        self._sent += 1
        item.sequence = self._sent
        self._unacked.append(item)
        if self._stream is not None:
            self._stream.line.put(partial(self._packed, item))

    def _beat(self) -> tuple[bytes, memoryview | bytes]:
        return self._packed(_ACK)

    def _packed(self, item: _Item) -> tuple[bytes, memoryview | bytes]:
        payload, lane, total = item.payload, item.lane, item.total
        if payload is None:
            payload, lane, total = b"", Lane.VOID, item.size
        received, consumed = self._received, self._consumed
        self._told, self._told_consumed, self._since_told = received, consumed, 0
        header = HEADER.pack(
            VERSION,
            lane,
            item.flags,
            item.source,
            item.target,
            item.generation,
            item.sequence,
            received,
            consumed,
            total,
        )
        return header, payload

    # --- receiving -------------------------------------------------------------------------------

    def read(self, stream: Stream, room: Room, deliver: Callable[[Envelope], Ready | None]) -> None:
        """Take envelopes until the line of ``stream`` ends or is replaced by a newer one.

        Args:
            stream: The stream that they come through.
            room: Asked where the bytes of a frame go that is new, before they are there.
            deliver: Told each envelope that is new, in order. It may return what shall be put where:
                that is done last, since whoever it wakes cannot go on before this thread waits again.

        Raises:
            Violation: If an envelope does not follow the one before, or breaks a limit.
            LineBroken: If the line ended without a word.
        """

        def where(envelope: Envelope, size: int) -> memoryview:
            with self._delivery:
                if stream is self._stream:
                    with (
                        self._lock
                    ):  # first, since what is confirmed may leave memory that can be used at once
                        self._acknowledge(envelope.ack)
                    if envelope.lane == Lane.DATA and envelope.sequence == self._received + 1:
                        return room(envelope, size)
            return memoryview(bytearray(size))

        def take(envelope: Envelope) -> Ready | None:
            ready = None
            with self._delivery:
                if stream is not self._stream:
                    reading.end()
                elif self._accept(envelope):
                    stream.brought = True
                    ready = deliver(envelope)
            self._flush()
            return ready

        reading = stream.reading = Reading(stream.line, where, take)
        reading.run()

    def read_for(self, inbox: Inbox, until: float) -> None:
        """Let the calling thread read until there is something in ``inbox``, if it can; see `Reading.lead`."""
        stream = self._stream
        if stream is not None and stream.reading is not None:
            stream.reading.lead(inbox, until)

    def _accept(self, envelope: Envelope) -> bool:
        """Note what ``envelope`` says about the link; return whether it is to be delivered."""
        released = None
        with self._lock:
            self._acknowledge(envelope.ack)
            if envelope.consumed > self._peer_consumed:
                released = self._consumed_by_peer(envelope.consumed)
            new = envelope.lane != Lane.ACK and self._is_new(envelope)
        if released:
            _release(released)
        return new

    def _is_new(self, envelope: Envelope) -> bool:
        if envelope.sequence <= self._received:
            return False
        if envelope.sequence != self._received + 1:
            raise Violation(
                "envelopes came out of order",
                got=f"number {envelope.sequence}",
                expected=f"number {self._received + 1}",
            )
        self._received += 1
        self._since_told += len(envelope.payload)
        if envelope.lane == Lane.DATA:
            self._check_window(envelope)
            self._received_bytes += len(envelope.payload)
        elif envelope.lane == Lane.VOID:
            self._received_bytes += envelope.total
            self._consumed += envelope.total
        many = self._received - self._told >= _ACK_ENVELOPES or self._since_told >= self._ack_bytes
        if many or envelope.lane == Lane.CLOSED:  # who closes waits for that
            self._tell()
        return True

    def _check_window(self, envelope: Envelope) -> None:
        if not envelope.flags & FIRST:
            return
        self._received_frames += 1
        frames = self._received_frames - self._consumed_frames
        unread = self._received_bytes - self._consumed
        slack = 2 * self._senders
        many = frames > slack * self._settings.window_frames
        if (many and unread > slack * self._settings.window_bytes) or frames > slack * _MOST_FRAMES:
            raise Violation(
                "it floods: more came than may be under way",
                got=f"{unread} bytes in {frames} frames unread",
                expected=f"at most {self._settings.window_bytes} bytes, {_MOST_FRAMES} frames",
            )

    def consume(self, size: int, frames: int) -> None:
        """Say that so many bytes and frames that were received are no longer waiting."""
        with self._lock:
            self._consumed = min(self._consumed + size, self._received_bytes)
            self._consumed_frames = min(self._consumed_frames + frames, self._received_frames)
            told = self._consumed - self._told_consumed >= self._ack_bytes
            if told:
                self._tell()
        if told:
            self._flush()

    def _tell(self) -> None:
        if self._stream is not None:
            self._told, self._told_consumed, self._since_told = self._received, self._consumed, 0
            self._stream.line.put(self._beat)

    def _acknowledge(self, received: int) -> None:
        if received > self._sent:
            raise Violation(
                "envelopes were confirmed that were never sent",
                got=f"number {received}",
                expected=f"at most {self._sent}",
            )
        unacked = self._unacked
        while unacked and unacked[0].sequence <= received:
            unacked.popleft()

    def _consumed_by_peer(self, consumed: int) -> list[_Unread]:
        released: list[_Unread] = []
        if consumed > self._sent_bytes:
            raise Violation("bytes were confirmed that were never sent")
        self._peer_consumed = consumed
        while self._unread and self._unread[0].end <= consumed:
            one = self._unread.popleft()
            self._unread_frames -= one.frames
            if one.origin is not None:
                released.append(one)
        self._room.notify_all()
        return released


def _release(unread: list[_Unread]) -> None:
    for one in unread:
        if one.origin is not None:
            one.origin.consume(one.size, one.frames)
