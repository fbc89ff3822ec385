"""A quarter of the bytes: 8-bit floating point, scaled so that the largest value just fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..errors import FrameError, StudyError, nearest
from .base import Codec, Like, Moment, Part, Written, refused

__all__ = ["Float8"]


class _Format(NamedTuple):
    """A format: its largest number, the first 7-bit pattern that is none, its relative and its smallest error."""

    dtype: torch.dtype
    largest: float
    none_from: int
    relative: float
    least: float


_FORMATS = {
    "e4m3": _Format(torch.float8_e4m3fn, 448.0, 0x7F, 2.0**-4, 2.0**-10),
    "e5m2": _Format(torch.float8_e5m2, 57344.0, 0x7C, 2.0**-3, 2.0**-17),
}
_AT_ONCE = 2**16
"""Values looked up at a time, so that their numbers stay in the processor's cache."""
_TINY = 2.0**-120
"""Scales below are this: what is smaller crosses as zero."""


@dataclass(frozen=True, kw_only=True)
class Float8(Codec):
    """Every value in 8 bits, after division by one scale a tensor: its largest magnitude over the format's.

    Error of a value x, where m is the tensor's largest magnitude: ``e4m3`` (4 bits of exponent) at most ``|x| / 16`` or
    ``m / 458,752``, whichever is more; ``e5m2`` (5 bits of exponent) at most ``|x| / 8`` or ``m / 7.5e9``.

    Attributes:
        format: ``e4m3`` for activations, ``e5m2`` where magnitudes differ by more than 10,000, as in gradients.
    """

    format: Literal["e4m3", "e5m2"] = "e4m3"

    def __post_init__(self) -> None:
        if self.format not in _FORMATS:
            raise StudyError(f"float8 has no format {self.format!r}", todo=nearest(self.format, [*_FORMATS]))

    @property
    def word(self) -> str:
        """See `Codec`."""
        return f"float8:{self.format}"

    @property
    def promise(self) -> str:
        """See `Codec`."""
        form = _FORMATS[self.format]
        floor = form.largest / form.least
        return (
            f"each value is off by at most 1/{1 / form.relative:.0f} of itself, or {1 / floor:.1g} of the "
            "tensor's largest"
        )

    def parts(self, like: Like) -> tuple[Part, ...]:
        """Return the values as bytes, and their scale."""
        return (Part("values", torch.uint8, like.shape), Part("scale", torch.float32, ()))

    def write(self, tensor: Tensor, moment: Moment) -> Written:
        """See `Codec`."""
        form = _FORMATS[self.format]
        low, high = (end.item() for end in tensor.aminmax())
        largest = max(-low, high)
        if not math.isfinite(low) or not math.isfinite(high):
            raise refused(self)
        scale = torch.tensor(max(largest / form.largest, _TINY), dtype=torch.float32)
        values = (tensor * (1.0 / scale.item())).to(form.dtype).view(torch.uint8)
        return Written((values, scale))

    def read(self, parts: Sequence[Tensor], like: Like, moment: Moment) -> Written:
        """See `Codec`."""
        form = _FORMATS[self.format]
        values, scale = parts[0], parts[1].item()
        if not (0.0 < scale <= torch.finfo(torch.float32).max / form.largest):
            raise FrameError("the scale is no positive number in range", got=f"{scale:g}")
        if values.numel() and int((values & 0x7F).max()) >= form.none_from:
            raise FrameError("a value is NaN or infinity", expected=f"numbers of {self.word}")
        table = (_table(form.dtype).to(values.device) * scale).to(like.dtype)
        found = torch.empty(like.shape, dtype=like.dtype, device=values.device)
        for some, into in zip(
            torch.split(values.reshape(-1), _AT_ONCE), torch.split(found.view(-1), _AT_ONCE), strict=True
        ):
            torch.index_select(table, 0, some.int(), out=into)
        return Written((found,))


@lru_cache(maxsize=4)
def _table(dtype: torch.dtype) -> Tensor:
    """Return what each byte stands for, float32 [256]: looking up is faster than PyTorch's conversion."""
    return torch.arange(256, dtype=torch.int32).to(torch.uint8).view(dtype).float()
