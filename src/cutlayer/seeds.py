"""One seed for a study, a separate stream of random numbers for every place and moment.

A stream is *derived*, never carried along: the seed of a segment's dropout in step 120 follows from
the study's seed, the segment's name and the step. So the result does not depend on which process
runs the segment, nothing about randomness has to be handed over or saved, and any party can take
over in the middle.
"""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["at_step", "generator", "stream"]


def stream(seed: int, *place: str | int) -> int:
    """Return the 63-bit seed of the stream for ``place``, e.g. ``stream(0, "segment", "head")``.

    Stable over processes, machines and Python versions (BLAKE2b of the words).
    """
    text = "\x1f".join([str(seed), *map(str, place)]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def at_step(seed: int, step: int) -> int:
    """Return the 63-bit seed of a stream at one step, in strides of the golden ratio, so far from its neighbours."""
    return (seed + step * 0x9E3779B97F4A7C15) & 0x7FFFFFFFFFFFFFFF


def generator(seed: int, *place: str | int) -> np.random.Generator:
    """Return a NumPy generator (Philox) on the stream for ``place``."""
    return np.random.Generator(np.random.Philox(key=stream(seed, *place)))
