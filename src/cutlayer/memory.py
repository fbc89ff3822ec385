"""Memory for frames: on a boundary that arithmetic likes, and large pieces of it used again."""

from __future__ import annotations

import sys
import threading

import numpy as np

__all__ = ["ALIGNMENT", "aligned_buffer"]

ALIGNMENT = 64
"""Bytes; a frame's memory starts at a multiple of it, so that its tensors need not be moved."""
_KEPT_FROM_BYTES = 1 << 20
_MOST_KEPT_BYTES = 256 << 20


def aligned_buffer(size: int) -> memoryview:
    """Return ``size`` writable bytes that start at a multiple of 64; they hold anything.

    From 1 MiB on it may be memory that an earlier buffer had, once nobody refers to that any more, since fresh
    memory costs as much as to fill it. At most 256 MiB are kept for that.
    """
    room = size + ALIGNMENT
    memory = _kept.find(room) if room > _KEPT_FROM_BYTES else np.empty(room, dtype=np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].data


class _Kept:
    """Large pieces of memory, in use or not; one that nobody else refers to is free.

    Whoever uses a piece, through whatever views and tensors, holds a reference to it, directly or not.
    """

    def __init__(self) -> None:
        self._pieces: list[np.ndarray] = []
        self._lock = threading.Lock()

    def find(self, size: int) -> np.ndarray:
        """Return a free piece of at least ``size`` bytes and at most twice that, or a fresh one."""
        with self._lock:
            for at in range(len(self._pieces)):
                if size <= len(self._pieces[at]) <= 2 * size and _references(self._pieces, at) == _ALONE:
                    self._pieces.append(self._pieces.pop(at))
                    return self._pieces[-1]
            piece = np.empty(size, dtype=np.uint8)
            self._pieces.append(piece)
            while sum(map(len, self._pieces)) > _MOST_KEPT_BYTES:
                del self._pieces[0]
            return piece


def _references(pieces: list[np.ndarray], at: int) -> int:
    return sys.getrefcount(pieces[at])


_ALONE = _references([np.empty(1, dtype=np.uint8)], 0)
"""What is counted for a piece that only its list refers to."""
_kept = _Kept()
