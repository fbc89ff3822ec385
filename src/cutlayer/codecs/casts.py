"""Half the bytes: every value in a shorter floating-point format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import StudyError, nearest
from .base import Codec, Like, Moment, Part, Written, refused

__all__ = ["Cast"]

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_LARGEST_HALF = 65504.0


@dataclass(frozen=True, kw_only=True)
class Cast(Codec):
    """Every value rounded to 16 bits.

    Error of a value x: ``bfloat16`` at most ``|x| / 256`` (8 significant bits, the range of float32); ``float16``
    at most ``|x| / 2048`` or 2^-25, whichever is more (11 significant bits, up to 65,504).

    Attributes:
        dtype: Which of the two.
    """

    dtype: Literal["float16", "bfloat16"]

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise StudyError(
                f"no short format is named {self.dtype!r}", todo=nearest(str(self.dtype), list(_DTYPES))
            )

    @property
    def word(self) -> str:
        """See `Codec`."""
        return self.dtype

    @property
    def promise(self) -> str:
        """See `Codec`."""
        return f"each value is off by at most 1/{256 if self.dtype == 'bfloat16' else 2048:,} of itself"

    def parts(self, like: Like) -> tuple[Part, ...]:
        """Return the values in 16 bits."""
        return (Part("values", _DTYPES[self.dtype], like.shape),)

    def write(self, tensor: Tensor, moment: Moment) -> Written:
        """See `Codec`; NaN stays NaN, and float16 refuses what is beyond its range."""
        if self.dtype == "float16" and tensor.numel():
            low, high = tensor.aminmax()
            if not (low.item() >= -_LARGEST_HALF and high.item() <= _LARGEST_HALF):  # NaN is neither
                raise refused(self, f"holds NaN or numbers beyond {_LARGEST_HALF:,.0f}")
        return Written((tensor.to(_DTYPES[self.dtype]),))

    def read(self, parts: Sequence[Tensor], like: Like, moment: Moment) -> Written:
        """See `Codec`."""
        return Written((parts[0].to(like.dtype),))
