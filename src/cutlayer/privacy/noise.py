"""Random numbers that only one party can draw: they follow from a secret of its own, not from the study's seed.

Noise that follows from the seed, which all parties know, could be subtracted by whoever receives it. So a
party draws from SHAKE-256 of its secret, the place, the step and what is to be hidden: the same again after a crash,
unknown to others.
Numbers are doubles of 53 random bits and are then rounded to float32. Attacks on the low bits of floating-point noise
(Mironov, CCS 2012) are not defended against.
"""

from __future__ import annotations

import hashlib
import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

__all__ = ["Noise", "simulated_secret"]


def simulated_secret(seed: int, party: str) -> bytes:
    """Return what stands for a party's secret in a simulation, where one process knows everything anyway."""
    return hashlib.sha256(f"simulation/{seed}/{party}".encode()).digest()


class Noise:
    """Draws for one place and moment; every draw takes the numbers that come next.

    Args:
        secret: The party's own, at least 16 bytes.
        place: What the numbers are for: cut, defence, step.
        hides: What they shall hide. Other rows in the same place, or a step that is done again with other rows or
            weights, must not have the same noise: the difference would tell what was hidden. Where all is the same,
            so is the noise.
    """

    def __init__(self, secret: bytes, *place: str | int, hides: Tensor | None = None) -> None:
        self._place, self._hides = secret + "\x1f".join(map(str, place)).encode(), hides
        self._draws = 0

    @cached_property
    def _key(self) -> bytes:
        """What all draws follow from; worked out for the first, since most defences draw nothing."""
        key = hashlib.sha256(self._place).digest()
        if self._hides is None:
            return key
        content = self._hides.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy()
        return hashlib.blake2b(content.tobytes(), key=key, digest_size=32).digest()

    def bits(self, count: int) -> np.ndarray:
        """Return ``count`` numbers of 64 random bits."""
        self._draws += 1
        stream = hashlib.shake_256(self._key + self._draws.to_bytes(8, "little"))
        return np.frombuffer(stream.digest(8 * count), dtype=np.uint64)

    def doubles(self, count: int) -> np.ndarray:
        """Return ``count`` numbers, uniform over (0, 1): neither end is drawn."""
        numbers: np.ndarray = ((self.bits(count) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        return numbers

    def uniform(self, like: Tensor) -> Tensor:
        """Return numbers uniform over (0, 1) in shape, dtype and place of ``like``."""
        return self._as(self.doubles(like.numel()), like)

    def normal(self, like: Tensor) -> Tensor:
        """Return standard normal numbers in shape, dtype and place of ``like`` (Box and Muller 1958)."""
        count = like.numel()
        half = (count + 1) // 2
        first, second = self.doubles(half), self.doubles(half)
        radius, angle = np.sqrt(-2.0 * np.log(first)), 2.0 * math.pi * second
        return self._as(np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:count], like)

    def laplace(self, like: Tensor) -> Tensor:
        """Return numbers of the Laplace distribution with scale 1 in shape, dtype and place of ``like``."""
        centred = self.doubles(like.numel()) - 0.5
        return self._as(-np.sign(centred) * np.log1p(-2.0 * np.abs(centred)), like)

    def permutation(self, count: int) -> Tensor:
        """Return a random order of ``count`` things [count], int64."""
        return torch.from_numpy(np.argsort(self.bits(count), kind="stable"))

    def whole(self, most: int, count: int) -> Tensor:
        """Return ``count`` whole numbers from 0 to ``most`` - 1 [count], int64."""
        return torch.from_numpy((self.doubles(count) * most).astype(np.int64))

    @staticmethod
    def _as(numbers: np.ndarray, like: Tensor) -> Tensor:
        return torch.from_numpy(numbers).to(like.dtype).reshape(like.shape).to(like.device)
