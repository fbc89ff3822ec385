"""A quarter or an eighth of the bytes: every value as one of 255 or 15 equal steps of a range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import FrameError, StudyError, nearest
from .base import Codec, Like, Moment, Part, Written, refused
from .packing import pack, packed_width, unpack

__all__ = ["Integer"]

_PER = ("tensor", "channel", "row")
_TINY = 2.0**-120
"""The smallest step: what is smaller crosses as zero."""


@dataclass(frozen=True, kw_only=True)
class Integer(Codec):
    """Every value rounded to the nearest of equally spaced levels, zero being one of them.

    Error of a value: at most half a step, which is ``range / 508`` with 8 bits and ``range / 28`` with 4. The range
    reaches from the smallest to the largest value, and to zero, so zeros (of a ReLU) stay zeros.

    Attributes:
        bits: 8 or 4.
        per: What has a range of its own: the ``tensor``, each ``channel`` (dimension 1), each ``row`` (sample).
    """

    bits: Literal[8, 4] = 8
    per: Literal["tensor", "channel", "row"] = "tensor"

    def __post_init__(self) -> None:
        if self.bits not in (8, 4):
            raise StudyError("an integer codec has 8 or 4 bits", got=repr(self.bits))
        if self.per not in _PER:
            raise StudyError(
                f"no range is kept per {self.per!r}", todo=nearest(str(self.per), _PER), got=repr(self.per)
            )

    @property
    def word(self) -> str:
        """See `Codec`."""
        return f"int{self.bits}" + (f":{self.per}" if self.per != "tensor" else "")

    @property
    def promise(self) -> str:
        """See `Codec`."""
        return (
            f"each value is off by at most 1/{2 * self._steps} of the range of its {self.per}, zero included"
        )

    @property
    def _steps(self) -> int:
        """How many steps a range has; one level more is spare, so that zero can be a level."""
        return (1 << self.bits) - 2

    def misfit(self, like: Like) -> str:
        """See `Codec`."""
        return "it has no channels" if self.per == "channel" and len(like.shape) < 2 else ""

    def parts(self, like: Like) -> tuple[Part, ...]:
        """Return the levels as bytes (4 bits: two a byte, row by row), and of each range its step and its zero."""
        values = like.shape if self.bits == 8 else (like.rows, packed_width(like.width, self.bits))
        ranges = {"tensor": (), "channel": like.shape[1:2], "row": like.shape[:1]}[self.per]
        return (
            Part("values", torch.uint8, values),
            Part("step", torch.float32, ranges),
            Part("zero", torch.uint8, ranges),
        )

    def write(self, tensor: Tensor, moment: Moment) -> Written:
        """See `Codec`."""
        tensor = tensor.float()
        low, high = self._ends(tensor)
        step = ((high - low) / self._steps).clamp_(min=_TINY)
        if not bool(step.isfinite().all()):
            raise refused(self)
        slope = 1.0 / step
        zero = (low * -slope).round_()
        # Cutting off after half was added rounds; nothing is below zero, since the lowest gave the zero.
        levels = tensor * self._along(slope, tensor)
        levels = levels.add_(self._along(zero, tensor) + 0.5).to(torch.uint8)
        if self.bits < 8:
            levels = pack(levels.reshape(len(levels), -1), self.bits)
        return Written((levels, step, zero.to(torch.uint8)))

    def read(self, parts: Sequence[Tensor], like: Like, moment: Moment) -> Written:
        """See `Codec`."""
        levels, step, zero = parts
        most = torch.finfo(torch.float32).max / 2**self.bits
        if not bool(((step > 0) & (step <= most)).all()):
            raise FrameError("a step is no positive number in range", got=_odd(step, most))
        if self.bits < 8:
            levels = unpack(levels, self.bits, like.width).reshape(like.shape)
        values = levels.float().sub_(self._along(zero.float(), levels))
        return Written((values.mul_(self._along(step, levels)).to(like.dtype),))

    def _ends(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ends of each range, zero within."""
        if not tensor.numel():
            ends = tensor.new_zeros(self.parts(Like.of(tensor))[1].shape)
            return ends, ends
        if self.per == "tensor":
            low, high = tensor.aminmax()
        else:
            own = 1 if self.per == "channel" else 0
            others = [d for d in range(tensor.ndim) if d != own]
            low = tensor.amin(others) if others else tensor.clone()
            high = tensor.amax(others) if others else tensor.clone()
        return low.clamp(max=0.0), high.clamp(min=0.0)

    def _along(self, ranges: Tensor, tensor: Tensor) -> Tensor:
        """Return a number a range in a shape that goes with ``tensor``."""
        if self.per == "tensor":
            return ranges
        after = tensor.ndim - (2 if self.per == "channel" else 1)
        return ranges.reshape(-1, *(1 for _ in range(after)))


def _odd(step: Tensor, most: float) -> str:
    wrong = step.reshape(-1)[~((step > 0) & (step <= most)).reshape(-1)]
    return f"{wrong[0].item():g}"
