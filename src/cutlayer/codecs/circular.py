"""Several rows in the space of one: each turned by a key of its own, and added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import FrameError, StudyError
from .base import Codec, Like, Moment, Part, Written, refused

__all__ = ["Circular"]


@dataclass(frozen=True, kw_only=True)
class Circular(Codec):
    """Of every R rows the sum, each convolved with a key that both ends draw from the study's seed.

    Hsieh et al. 2022, "C3-SL: circular convolution-based batch-wise compression for communication-efficient split
    learning": ``s = sum_i k_i (*) z_i``, read by circular correlation, ``z~_i = k_i (.) s``. The paper's keys are
    Gaussian of unit length; here each has magnitude one at every frequency, too, so that a row's own share of the
    sum comes back exactly, and a row alone in its group arrives as it was, up to rounding.

    Error: none is expected in the mean over keys, and the squared error of a row is expected to be the sum of
    squares of the other R - 1 rows of its group. That is as much as the row itself, or more: networks learn to
    work with it from the start, and one that was trained without it does not work. What a row is read as depends
    on the rows that came with it, in an evaluation too.

    The gradient comes back through the same sums: what arrives is the gradient of the network with this codec in it.

    Attributes:
        rows: R, a power of two from 1 to 64.
    """

    rows: int = 2

    both_ways: ClassVar[bool] = False
    folds: ClassVar[bool] = True
    returns: ClassVar[str] = "added up with the same keys, several rows in the space of one"

    def __post_init__(self) -> None:
        if type(self.rows) is not int or self.rows not in (1, 2, 4, 8, 16, 32, 64):
            raise StudyError(
                "c3 adds up rows in groups", got=f"{self.rows!r} rows", expected="1, 2, 4, 8, 16, 32 or 64"
            )

    @property
    def word(self) -> str:
        """See `Codec`."""
        return f"c3:{self.rows}"

    @property
    def promise(self) -> str:
        """See `Codec`."""
        return (
            f"every {self.rows} rows cross as one sum; a row arrives with an error that is expected to be as long "
            f"as the other {self.rows - 1} of its sum together"
        )

    def misfit(self, like: Like) -> str:
        """See `Codec`."""
        return "" if like.width > 1 else "its rows have fewer than two values"

    def parts(self, like: Like) -> tuple[Part, ...]:
        """Return a tensor without values that says how many rows there are, and the sums."""
        return (
            Part("rows", torch.uint8, (like.rows, 0)),
            Part("sums", torch.float32, self.folded(like).shape),
        )

    def write(self, tensor: Tensor, moment: Moment) -> Written:
        """See `Codec`."""
        sums = self._add_up(tensor, moment)
        if not bool(sums.isfinite().all()):
            raise refused(self)
        return Written((torch.empty((len(tensor), 0), dtype=torch.uint8), sums))

    def read(self, parts: Sequence[Tensor], like: Like, moment: Moment) -> Written:
        """See `Codec`."""
        if not bool(parts[1].isfinite().all()):
            raise FrameError("a sum holds NaN or infinity")
        return Written((self._take_apart(parts[1], like, moment),))

    def folded(self, like: Like) -> Like:
        """See `Codec`."""
        return Like((-(-like.rows // self.rows), like.width), torch.float32)

    def fold(self, gradient: Tensor, trace: Tensor | None, moment: Moment) -> Tensor:
        """Return the gradient of the sums."""
        return self._add_up(gradient, moment)

    def unfold(self, folded: Tensor, trace: Tensor | None, like: Like, moment: Moment) -> Tensor:
        """Return the gradient of the rows that were added up."""
        return self._take_apart(folded, like, moment)

    def _add_up(self, tensor: Tensor, moment: Moment) -> Tensor:
        """Return the sums, float32 [ceil(B / R), D], of rows [B, D]."""
        flat = tensor.float().reshape(len(tensor), -1)
        keys = _keys(moment.seed, self.rows, flat.shape[1]).to(flat.device)
        spare = -len(flat) % self.rows
        turned = torch.fft.rfft(torch.nn.functional.pad(flat, (0, 0, 0, spare)) if spare else flat)
        sums = turned.reshape(-1, *keys.shape).mul_(keys).sum(1)
        added: Tensor = torch.fft.irfft(sums, n=flat.shape[1])
        return added

    def _take_apart(self, sums: Tensor, like: Like, moment: Moment) -> Tensor:
        keys = _keys(moment.seed, self.rows, like.width).to(sums.device)
        turned = torch.fft.rfft(sums)[:, None] * keys.conj()
        rows: Tensor = torch.fft.irfft(turned.reshape(-1, keys.shape[1]), n=like.width)
        return rows[: like.rows].reshape(like.shape).to(like.dtype)


@lru_cache(maxsize=16)
def _keys(seed: int, rows: int, width: int) -> Tensor:
    """Return the spectra of the keys, complex64 [R, D // 2 + 1]: magnitude one, phases drawn."""
    draw = torch.Generator().manual_seed(seed)
    phases = torch.rand((rows, width // 2 + 1), generator=draw, dtype=torch.float64) * (2 * torch.pi)
    keys = torch.polar(torch.ones_like(phases), phases)
    real = [0] if width % 2 else [0, width // 2]  # these have no phase, only a sign
    keys[:, real] = torch.where(phases[:, real] < torch.pi, 1.0, -1.0).to(keys.dtype)
    return keys.to(torch.complex64)
