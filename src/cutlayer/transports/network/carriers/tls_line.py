"""A line that is a TLS socket: whoever sends writes, whoever waits reads.

An envelope travels behind its length, four bytes, little-endian. The thread that sends an envelope
also encrypts and writes it, as far as the kernel takes it without waiting; whoever reads writes the rest
when there is room. Payloads are read straight into the memory that they are meant for.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable

from cutlayer.transports.network.envelopes import CONTROL_LIMIT, HEADER, Envelope, Violation
from cutlayer.transports.network.lines import LineBroken, Parcel, Room

__all__ = ["TlsLine"]

_LENGTH = struct.Struct("<I")
_RECORD = 16384
"""Bytes in a record of TLS; the header leaves in the same one as the payload's beginning."""
_LINGER_S = 2.0
_BACKOFF_AT, _STUCK_FROM = (
    4,
    2,
)  # Linux's struct tcp_info: how often the time until the next attempt was doubled
_FOR_EVER_S = 3600.0


class TlsLine:
    """One TLS connection; see `cutlayer.transports.network.lines.Line`.

    Args:
        stream: The socket, its handshake done.
        peer: The other side's address.
        broke: Puts into words why the connection ended.
    """

    def __init__(
        self, stream: ssl.SSLSocket, peer: str, broke: Callable[[Exception | None], str] = repr
    ) -> None:
        self.peer, self._broke = peer, broke
        shown = stream.getpeercert(binary_form=True)
        self.certificate = ssl.DER_cert_to_PEM_cert(shown).encode() if shown else b""
        stream.setblocking(False)
        self._stream = stream
        self._tls = threading.Lock()  # OpenSSL's objects are for one thread at a time
        self._closed = False
        self._parcels: deque[Parcel | None] = deque()
        self._rest: deque[memoryview] = deque()
        self._writing = threading.Lock()
        self._full = False
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._poll.register(stream, select.POLLIN)
        self._asks_for_room = False
        self._head = memoryview(bytearray(_LENGTH.size + HEADER.size))
        self._header = self._head[_LENGTH.size :]
        self._filling, self._filled = self._head, 0
        self._coming: Envelope
        self.over, self.blocks = False, False
        self._beat: Parcel | None = None
        self._beat_s = _FOR_EVER_S
        self.heard = self._spoke = time.monotonic()

    # --- sending ---------------------------------------------------------------------------------

    def put(self, parcel: Parcel | None) -> None:
        """Let an envelope leave at the next `flush`; None says that it was the last."""
        self._parcels.append(parcel)

    def flush(self) -> None:
        """Let what was put leave; see `Line.flush`."""
        if not self._full and not self._drain():
            self.ring()  # whoever waits now waits for room too

    def _drain(self) -> bool:
        """Write what was put; return whether the kernel took it all. One thread at a time does so for all."""
        while (self._parcels or self._rest) and not self._full:
            if not self._writing.acquire(blocking=False):
                return True  # whoever writes looks again after that
            try:
                self._write()
            finally:
                self._writing.release()
        return not self._full

    def keep_alive(self, beat: Parcel, every_s: float) -> None:
        """Send ``beat`` whenever nothing else has left for ``every_s`` seconds."""
        self._beat, self._beat_s = beat, every_s

    def _write(self) -> None:
        rest = self._rest
        try:
            while rest or self._next():
                view = rest[0]
                with self._tls:
                    if self._closed:
                        return self._forget()
                    written = self._stream.write(view)
                if written == len(view):
                    rest.popleft()
                else:
                    rest[0] = view[written:]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            self._full = True
        except (OSError, ValueError):  # the reading thread sees it too, and says so
            self._forget()
        self._spoke = time.monotonic()
        return None

    def _next(self) -> bool:
        """Make the next envelope; return whether there was one."""
        if not self._parcels:
            return False
        parcel = self._parcels.popleft()
        if parcel is None:
            with self._tls, contextlib.suppress(OSError):
                socket.socket.shutdown(self._stream, socket.SHUT_WR)
            self._forget()
            return False
        header, payload = parcel()
        view = memoryview(payload)
        room = _RECORD - _LENGTH.size - len(header)
        self._rest.append(memoryview(b"".join((_LENGTH.pack(len(header) + len(view)), header, view[:room]))))
        if len(view) > room:
            self._rest.append(view[room:])
        return True

    def _forget(self) -> None:
        self._parcels.clear()
        self._rest.clear()

    @property
    def stuck(self) -> bool:
        """Whether the kernel has sent something twice or more without an answer, and waits ever longer."""
        try:
            told = self._stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
        except (OSError, AttributeError):  # closed, or a system that does not tell
            return False
        return len(told) > _BACKOFF_AT and told[_BACKOFF_AT] >= _STUCK_FROM

    # --- receiving -------------------------------------------------------------------------------

    def take(self, room: Room) -> Envelope | None:
        """Return the next envelope if it is there; see `Line.take`."""
        self._tend(time.monotonic())  # where much comes, nobody may ever wait
        while self._fill():
            envelope = self._part(room)
            if envelope is not None:
                return envelope
        if self._filling is self._head and self._filled >= _LENGTH.size:
            self._announced()  # what cannot be is refused before the rest has come
        return None

    def _fill(self) -> bool:
        """Read into the memory that is to be filled now; return whether it is full."""
        memory, filled, read = self._filling, self._filled, self._stream.read
        size = len(memory)
        try:
            while filled < size:
                with self._tls:
                    if self._closed:
                        self.over = True
                        return False
                    came = read(size - filled, memory[filled:])
                if not came:
                    self.over = True
                    if filled or memory is not self._head:
                        raise LineBroken(self._broke(None))
                    return False
                filled += int(came)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if filled > self._filled:
                self._filled, self.heard = filled, time.monotonic()
            return False
        except (OSError, ValueError) as error:
            self.over = True
            if self._closed:
                return False
            raise LineBroken(self._broke(error)) from error
        self._filled, self.heard = 0, time.monotonic()
        return True

    def _part(self, room: Room) -> Envelope | None:
        """Go on after a part has come: length and header, or the payload; return the envelope when it is whole."""
        if self._filling is not self._head:
            payload, self._filling = self._filling, self._head
            return self._coming.holding(payload)
        size = self._announced()
        envelope = Envelope.read(self._header, size)
        if not size:
            return envelope
        self._coming, self._filling = envelope, room(envelope, size)
        return None

    def _announced(self) -> int:
        """Return how many bytes the payload has that comes next."""
        size = int(_LENGTH.unpack_from(self._head)[0]) - HEADER.size
        if not 0 <= size <= CONTROL_LIMIT:
            raise Violation(
                "an envelope is too " + ("short" if size < 0 else "long"),
                got=f"{size + HEADER.size} bytes",
                expected=f"{HEADER.size} to {HEADER.size + CONTROL_LIMIT}",
            )
        return size

    def wait(self, until: float) -> None:
        """Wait for something to read, room to write, the bell, or the time to say that this side is there."""
        now = time.monotonic()
        due = self._spoke + self._beat_s
        if self._full is not self._asks_for_room:
            self._asks_for_room = self._full
            wanted = select.POLLIN | (select.POLLOUT if self._full else 0)
            self._poll.modify(self._stream, wanted)
        for descriptor, _ in self._poll.poll(max(min(until, due) - now, 0.0) * 1000 + 0.5):
            if descriptor == self._bell.fileno():
                with contextlib.suppress(OSError):
                    self._bell.recv(4096)

    def _tend(self, now: float) -> None:
        """Write what was left, if there is room now; say that this side is there, if it is time."""
        if self._full:
            self._full = False
            self._drain()
        elif self._beat is not None and self._spoke + self._beat_s <= now:
            self.put(self._beat)
            self.flush()

    def ring(self) -> None:
        """Let whoever waits look again."""
        with contextlib.suppress(OSError):
            self._rope.send(b"!")

    # --- the end ---------------------------------------------------------------------------------

    def cancel(self) -> None:
        """End the connection at once; what was put and has not left is lost."""
        with self._tls:
            self._closed = True
            # SSLSocket.shutdown would forget the encryption first.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._stream, socket.SHUT_RDWR)
        self.ring()

    def finish(self) -> None:
        """Let what was put leave, wait a moment for the other side to hang up, then close."""
        until = time.monotonic() + _LINGER_S
        self.put(None)
        self.flush()
        scrap = memoryview(bytearray(65536))
        poll = select.poll()
        while not self._closed and (left_s := until - time.monotonic()) > 0:
            try:
                with self._tls:
                    if self._closed or not self._stream.read(len(scrap), scrap):
                        break
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                poll.register(self._stream, select.POLLIN | (select.POLLOUT if self._full else 0))
                poll.poll(left_s * 1000)
                if self._full:
                    self._full = False
                    self.flush()
            except (OSError, ValueError):
                break
        self.cancel()
        with self._tls:
            self._stream.close()
        self._bell.close()
        self._rope.close()
