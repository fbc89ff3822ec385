"""A link: envelopes between two ends, each once and in order, over streams that come and go."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import partial

from cutlayer.transports.network.envelopes import CHUNK, FIRST, HEADER, VERSION, Envelope, Lane, Violation
from cutlayer.transports.network.lines import Line, Room
from cutlayer.transports.network.reading import Inbox, Reading, Ready
from cutlayer.transports.network.settings import NetworkSettings
from cutlayer.transports.network.windows import Incoming, Outgoing, Unread

__all__ = ["Link", "Ready", "Stream"]

_ACK_ENVELOPES = 64
_ACK_BYTES = 8 << 20
_MOST_PATIENCE = 8  # times the silence that ends a stream


class _Item:
    """One envelope that is to leave; its payload is dropped when its generation is over."""

    __slots__ = ("flags", "generation", "lane", "payload", "sequence", "size", "source", "target", "total")

    def __init__(
        self,
        lane: int,
        flags: int,
        source: int,
        target: int,
        generation: int,
        total: int,
        payload: memoryview | bytes = b"",
    ) -> None:
        self.lane, self.flags, self.source, self.target = lane, flags, source, target
        self.generation, self.total, self.sequence, self.size = generation, total, 0, len(payload)
        self.payload: memoryview | bytes | None = payload


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
    stream. Control messages never wait; a party's frames wait while ``window_bytes`` and ``window_frames``
    of them are unread at the other side. An envelope says of its target's frames how many bytes were consumed.

    Args:
        settings: Limits and times, the same at both sides.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        self._ack_bytes = min(_ACK_BYTES, max(1, settings.window_bytes // 4))
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._delivery = threading.RLock()
        self._patience_s = settings.silence_s
        self._stream: Stream | None = None
        self._clear()

    def _clear(self) -> None:
        self._unacked: deque[_Item] = deque()
        self._outgoing: defaultdict[int, Outgoing] = defaultdict(Outgoing)
        self._incoming: defaultdict[int, Incoming] = defaultdict(Incoming)
        self._sent = self._received = self._told = self._since_told = self._beats = 0

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
            for source in self._incoming:
                self._tell(source)
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
                unread = {source: list(one.unread) for source, one in self._outgoing.items()}
                self._clear()
                self._room.notify_all()
            for source, released in unread.items():
                _release(source, released)

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
        """Send a frame in chunks; wait while too much of its source's is unread at the other side.

        Args:
            source: Place of the sender.
            target: Place of the receiver.
            generation: The generation that it belongs to.
            frame: Its bytes, which must not change any more.
            go_on: Called before and after waiting; raises if sending has become pointless.
        """
        total = len(frame)
        with self._lock:
            while self._outgoing[source].full(self._settings):
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

    def post(self, lane: int, source: int, target: int, generation: int, payload: bytes = b"") -> None:
        """Send a small envelope that does not wait for room."""
        with self._lock:
            self._put(_Item(lane, 0, source, target, generation, len(payload), payload))
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
        item = _Item(Lane.DATA, flags, source, target, generation, total, payload)
        self._outgoing[source].add(item.size, last=last, origin=origin)
        self._put(item)

    def _put(self, item: _Item) -> None:
        self._sent += 1
        item.sequence = self._sent
        self._unacked.append(item)
        if self._stream is not None:
            self._stream.line.put(partial(self._packed, item))

    def _beat(self) -> tuple[bytes, memoryview | bytes]:
        self._beats += 1
        sources = list(self._incoming) or [0]
        return self._told_of(sources[self._beats % len(sources)])

    def _told_of(self, source: int) -> tuple[bytes, memoryview | bytes]:
        """Return an envelope that says nothing but what was received, and consumed of one party's frames."""
        return self._packed(_Item(Lane.ACK, 0, 0, source, 0, 0))

    def _packed(self, item: _Item) -> tuple[bytes, memoryview | bytes]:
        payload, lane, total = item.payload, item.lane, item.total
        if payload is None:
            payload, lane, total = b"", Lane.VOID, item.size
        received, consumed, of_target = self._received, 0, self._incoming.get(item.target)
        if of_target is not None:
            of_target.told = consumed = of_target.consumed
        self._told, self._since_told = received, 0
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
        released: list[Unread] = []
        with self._lock:
            self._acknowledge(envelope.ack)
            if envelope.consumed:
                released = self._outgoing[envelope.target].consumed(envelope.consumed)
                if released:
                    self._room.notify_all()
            new = envelope.lane != Lane.ACK and self._is_new(envelope)
        _release(envelope.target, released)
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
        if envelope.lane in (Lane.DATA, Lane.VOID):
            self._incoming[envelope.source].came(envelope, self._settings)
        many = self._received - self._told >= _ACK_ENVELOPES or self._since_told >= self._ack_bytes
        if many or envelope.lane == Lane.CLOSED:  # who closes waits for that
            self._tell(envelope.source)
        return True

    def consume(self, source: int, size: int, frames: int) -> None:
        """Say that so many bytes and frames of a party's that were received are no longer waiting."""
        with self._lock:
            untold = self._incoming[source].consume(size, frames)
            if untold >= self._ack_bytes:
                self._tell(source)
        if untold >= self._ack_bytes:
            self._flush()

    def _tell(self, source: int) -> None:
        if self._stream is not None:
            self._told, self._since_told = self._received, 0
            self._incoming[source].told = self._incoming[source].consumed
            self._stream.line.put(partial(self._told_of, source))

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


def _release(source: int, unread: Sequence[Unread]) -> None:
    """Let the links through which a party's bytes came to be relayed know that they are no longer waiting."""
    for one in unread:
        if one.origin is not None:
            one.origin.consume(source, one.size, one.frames)
