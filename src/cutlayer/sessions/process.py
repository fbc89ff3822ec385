"""How a process that is one party uses cores and memory; for the commands, which own their process."""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep_memory", "patient_threads"]

_SPINS = 10_000
_ARENAS, _MMAP_FROM, _TRIM_FROM = -8, -3, -1  # M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
_KEPT = {_ARENAS: 1, _MMAP_FROM: 32 << 20, _TRIM_FROM: 1 << 30}


def patient_threads() -> None:
    """Let PyTorch's threads soon sleep when they wait for each other; call it before PyTorch is imported.

    By default (OpenMP's ``active``) they wait by spinning, for milliseconds. That is the quickest way where nothing
    else runs, and many times slower where another party, or anything else, computes on the same cores. Here they spin
    for some hundred microseconds, which is as quick between two layers. ``OMP_WAIT_POLICY`` and ``GOMP_SPINCOUNT``
    win.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))  # GNU's; others know the policy alone


def keep_memory() -> bool:
    """Let this process keep the memory of its activations from one step to the next; call it before threads start.

    By default the C library hands each large piece of memory back to the kernel at once and gets it again, a page
    at a time and filled with zeros, in the next step. Pieces up to 32 MiB stay here now, up to 1 GiB in all. Only
    glibc can be told; what the environment says (``MALLOC_TRIM_THRESHOLD_`` and the like) wins.

    Returns:
        Whether it was done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    return all(mallopt(what, value) for what, value in _KEPT.items())
