"""What travels on a stream: envelopes, a fixed header and up to 1 MiB of a frame.

::

    version  lane  flags  -   source  target  generation  sequence  ack  consumed  total   payload
    u8       u8    u8     u8  u16     u16     u32         u64       u64  u64       u64     bytes

Numbers are little-endian. ``source`` and ``target`` are places in the list of parties that all were
given; ``sequence`` counts the envelopes of a link in this direction, ``ack`` those received in the
other one, ``consumed`` the bytes of the *target's* frames that were received and are no longer waiting;
``total`` is the length of the whole frame. All chunks of a frame but the last are full.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable
from typing import NamedTuple

from cutlayer.errors import TransportError

__all__ = [
    "CHUNK",
    "CONTROL_LIMIT",
    "FIRST",
    "HEADER",
    "VERSION",
    "Chunks",
    "Envelope",
    "Lane",
    "Violation",
    "greeting",
]

VERSION = 1
HEADER = struct.Struct("<BBBxHHIQQQQ")
CHUNK = 1 << 20
"""Bytes of a frame that travel in one envelope."""
CONTROL_LIMIT = 4 << 20
"""Bytes that a hello, its answer or a control message may have."""
_NO_BYTES = memoryview(b"")
FIRST = 1
"""The flag of a frame's first chunk."""


class Lane:
    """What an envelope carries; plain numbers, since to ask an enumeration for one takes a call."""

    HELLO = 1
    WELCOME = 2
    REFUSED = 3
    ACK = 4
    DATA = 5
    CONTROL = 6
    CLOSED = 7
    VOID = 8
    FULL = 9


class Violation(TransportError):
    """Somebody sent what no honest party sends."""


class Envelope(NamedTuple):
    """One envelope as it came."""

    lane: int
    flags: int
    source: int
    target: int
    generation: int
    sequence: int
    ack: int
    consumed: int
    total: int
    payload: memoryview

    @classmethod
    def read(cls, header: bytes | memoryview, size: int) -> Envelope:
        """Read the header of an envelope with a payload of ``size`` bytes, which is still to come.

        Raises:
            Violation: If it is of another version or longer than its lane allows.
        """
        fields = HEADER.unpack_from(header)
        if fields[0] != VERSION:
            raise Violation(
                "another version of the transport is spoken",
                got=f"version {fields[0]}",
                expected=f"version {VERSION}",
                todo="install the same version of cutlayer everywhere",
            )
        envelope = cls._make((*fields[1:], _NO_BYTES))
        if size > CHUNK and (envelope.lane == Lane.DATA or size > CONTROL_LIMIT):
            limit = CHUNK if envelope.lane == Lane.DATA else CONTROL_LIMIT
            raise Violation("an envelope is too long", got=f"{size} bytes", expected=f"at most {limit}")
        if envelope.total > CHUNK and envelope.lane == Lane.VOID:
            raise Violation("an envelope stands for more bytes than one can hold", got=f"{envelope.total}")
        return envelope

    def holding(self, payload: memoryview) -> Envelope:
        """Return the envelope with its payload, which has come."""
        return Envelope._make((*self[:-1], payload))

    @classmethod
    def parse(cls, message: bytes) -> Envelope:
        """Read a whole envelope.

        Raises:
            Violation: If it is too short, of another version or longer than its lane allows.
        """
        size = len(message) - HEADER.size
        if size < 0:
            raise Violation(
                "an envelope is too short", got=f"{len(message)} bytes", expected=f"at least {HEADER.size}"
            )
        return cls.read(message, size).holding(memoryview(message)[HEADER.size :])


def greeting(lane: int, ack: int, payload: bytes) -> bytes:
    """Return an envelope that begins or ends a stream; it has no number."""
    return HEADER.pack(VERSION, lane, 0, 0, 0, 0, 0, ack, 0, len(payload)) + payload


class Chunks:
    """How far the frames under way have come; refuses chunks that do not fit."""

    def __init__(self, max_frame_bytes: int) -> None:
        self._limit = max_frame_bytes
        self._under_way: dict[Hashable, tuple[int, int, int]] = {}  # generation, total, bytes placed

    def where(self, key: Hashable, envelope: Envelope, size: int) -> int:
        """Return where a chunk of ``size`` bytes begins in its frame.

        Raises:
            Violation: If it does not continue the frame of ``key`` that is under way, or is not full.
        """
        total, generation = envelope.total, envelope.generation
        known = self._under_way.get(key)
        if envelope.flags & FIRST:
            if known is not None and known[0] >= generation:
                raise Violation("a frame begins before the one before it has ended")
            if not 0 < total <= self._limit:
                raise Violation(
                    "a frame of a forbidden length was announced",
                    got=f"{total} bytes",
                    expected=f"1 to {self._limit}",
                )
            placed = 0
        elif known is None or known[:2] != (generation, total):
            raise Violation("a chunk belongs to no frame that is under way")
        else:
            placed = known[2]
        if size != min(CHUNK, total - placed):
            raise Violation(
                "a chunk is not full", got=f"{size} bytes", expected=f"{min(CHUNK, total - placed)}"
            )
        return placed

    def place(self, key: Hashable, envelope: Envelope) -> int:
        """Note that a chunk came; return where it begins in its frame.

        Raises:
            Violation: As from `where`.
        """
        total, size = envelope.total, len(envelope.payload)
        placed = self.where(key, envelope, size)
        if placed + size < total:
            self._under_way[key] = (envelope.generation, total, placed + size)
        else:
            self._under_way.pop(key, None)
        return placed

    def forget(self, generation: int) -> None:
        """Forget the frames under way of generations before this one."""
        self._under_way = {key: one for key, one in self._under_way.items() if one[0] >= generation}

    def drop(self, key: Hashable) -> None:
        """Forget the frame of ``key`` that is under way."""
        self._under_way.pop(key, None)
