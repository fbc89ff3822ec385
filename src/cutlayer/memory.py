"""Memory for frames: on a boundary that arithmetic likes, and used again once nobody refers to it."""

from __future__ import annotations

import sys
import threading
from collections import deque

import numpy as np

__all__ = ["ALIGNMENT", "aligned_buffer", "room_at"]

ALIGNMENT = 64
"""Bytes; a frame's memory starts at a multiple of it, so that its tensors need not be moved."""
_LARGE_BYTES = 1 << 20
_MOST_LARGE_BYTES = 256 << 20
_MOST_SMALL_BYTES = 32 << 20
_OF_A_SIZE = 4

_Piece = tuple[np.ndarray, int, int]
"""Memory, where in it the first boundary is, and the address of that.

It must be the array that owns the memory: an array made of a view of it refers to the owner, whatever lies between.
"""


def aligned_buffer(size: int) -> memoryview:
    """Return ``size`` writable bytes that start at a multiple of 64; they hold anything.

    It may be memory that an earlier buffer had, once nobody refers to that any more, since fresh memory costs more
    than to fill it. At most 256 MiB are kept for that, and 32 MiB in pieces of less than 1 MiB.
    """
    return room_at(size)[0]


def room_at(size: int) -> tuple[memoryview, int]:
    """Return an `aligned_buffer` and its address."""
    return (_small if size < _LARGE_BYTES else _large).find(size)


class _Small:
    """Some pieces of memory of each size that is asked for, in use or not; one that nobody else refers to is free.

    Whoever uses a piece, through whatever views and tensors, holds a reference to it, directly or not. A thread takes
    what it looks at off its shelf and puts it back when it is in use, so no lock is needed.
    """

    def __init__(self) -> None:
        self._shelves: dict[int, deque[_Piece]] = {}

    def find(self, size: int) -> tuple[memoryview, int]:
        """Return a free piece of this size, or a fresh one."""
        shelf = self._shelves.get(size)
        if shelf is None:
            shelf = self._shelf(size)
        try:
            piece = shelf.popleft()
            if _references(piece) != _ALONE:
                shelf.append(piece)
                piece = _fresh(size)
        except IndexError:
            piece = _fresh(size)
        found = _cut(piece, size)
        shelf.append(piece)  # where there are enough, the one that was asked for longest ago is forgotten
        return found

    def _shelf(self, size: int) -> deque[_Piece]:
        if (sum(self._shelves) + size) * _OF_A_SIZE > _MOST_SMALL_BYTES:
            self._shelves = {}
        shelf = self._shelves[size] = deque[_Piece](maxlen=_OF_A_SIZE)
        return shelf


class _Large:
    """Large pieces of memory, likewise; one serves for whatever is not much smaller."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._lock = threading.Lock()

    def find(self, size: int) -> tuple[memoryview, int]:
        """Return a free piece of at least ``size`` bytes and at most twice that, or a fresh one."""
        with self._lock:
            for at, piece in enumerate(self._pieces):
                if size + ALIGNMENT <= len(piece[0]) <= 2 * size and _references(piece) == _ALONE:
                    self._pieces.append(self._pieces.pop(at))
                    return _cut(piece, size)
            piece = _fresh(size)
            self._pieces.append(piece)
            while sum(len(memory) for memory, _, _ in self._pieces) > _MOST_LARGE_BYTES:
                del self._pieces[0]
            return _cut(piece, size)


def _fresh(size: int) -> _Piece:
    memory = np.empty(size + ALIGNMENT, dtype=np.uint8)
    address = memory.ctypes.data
    start = -address % ALIGNMENT
    return memory, start, address + start


def _cut(piece: _Piece, size: int) -> tuple[memoryview, int]:
    memory, start, address = piece
    return memory.data[start : start + size], address


def _references(piece: _Piece) -> int:
    return sys.getrefcount(piece[0])


_ALONE = _references(_fresh(1))
"""What is counted for memory that only its piece refers to."""
_large, _small = _Large(), _Small()
