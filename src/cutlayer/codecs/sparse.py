"""The largest values of each row and where they stand; the others arrive as zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import FrameError, StudyError, nearest
from .base import Codec, Like, Moment, Part, Written, is_number, number_text, refused
from .drawing import draw_others

__all__ = ["RandomTopK", "TopK"]

_VALUES = ("exact", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class TopK(Codec):
    """Of each row the share of values with the largest magnitudes; zero for the others.

    Error of a row of n values of which k are kept: their squares sum up to at most ``(1 - k/n)`` of the sum of all
    squares, since none that is left out is larger than one that is kept. What is kept arrives exactly, or with
    ``values="bfloat16"`` with an error of at most 1/256 of itself, and two bytes fewer.

    The gradient comes back at the kept places only, and without their positions, which its receiver knows: that
    is the gradient of the network in which all other values are zero.

    Attributes:
        share: The part of a row's values that is kept, above 0 and at most 1; at least one value is.
        values: How kept values are written, ``"exact"`` or ``"bfloat16"``.
    """

    share: float
    values: Literal["exact", "bfloat16"] = "exact"

    both_ways: ClassVar[bool] = False
    folds: ClassVar[bool] = True
    returns: ClassVar[str] = "only at the places that were kept, without their positions"

    def __post_init__(self) -> None:
        if not is_number(self.share) or not 0 < self.share <= 1:
            raise StudyError(
                "top-k keeps a share of the values", got=f"{self.share!r}", expected="0 < share <= 1"
            )
        if self.values not in _VALUES:
            raise StudyError(
                f"kept values cannot be written as {self.values!r}", todo=nearest(str(self.values), _VALUES)
            )

    @property
    def word(self) -> str:
        """See `Codec`."""
        return f"topk:{number_text(self.share)}{self._ending}"

    @property
    def promise(self) -> str:
        """See `Codec`."""
        how = " as they are" if self.values == "exact" else " within 1/256 of themselves"
        return (
            f"of each row the {self.share:.3g} with the largest magnitudes arrive{how}, the others as zero: "
            f"an error of at most {math.sqrt(1 - self.share):.2f} of the row's length"
        )

    @property
    def _ending(self) -> str:
        return "" if self.values == "exact" else f",values={self.values}"

    def parts(self, like: Like) -> tuple[Part, ...]:
        """Return the kept values of each row, and their places from the first to the last."""
        kept = (like.rows, self.count(like))
        values = like.dtype if self.values == "exact" else torch.bfloat16
        return (Part("values", values, kept), Part("places", _places_dtype(like.width), kept))

    def count(self, like: Like) -> int:
        """Return how many values of a row are kept."""
        return min(like.width, max(1, math.ceil(self.share * like.width - 1e-9)))

    def misfit(self, like: Like) -> str:
        """See `Codec`."""
        return "" if 0 < like.width < 2**31 else "its rows have no values, or too many"

    def write(self, tensor: Tensor, moment: Moment) -> Written:
        """See `Codec`."""
        like = Like.of(tensor)
        flat = tensor.reshape(like.rows, -1)
        if not bool(flat.sum().isfinite()) and not bool(
            flat.isfinite().all()
        ):  # the sum is quick, and may be too large
            raise refused(self)
        places = self.choose(flat, self.count(like), moment)
        values = flat.gather(1, places)
        if self.values != "exact":
            values = values.to(torch.bfloat16)
        return Written((values, _shorten(places, like.width)), places)

    def choose(self, flat: Tensor, count: int, moment: Moment) -> Tensor:
        """Return the places to keep, int64 [B, count], each row's in ascending order."""
        return largest(flat, count)

    def read(self, parts: Sequence[Tensor], like: Like, moment: Moment) -> Written:
        """See `Codec`."""
        values, places = parts[0], _lengthen(parts[1], like.width)
        if places.numel() and (
            int(places[:, -1].max()) >= like.width
            or int(places[:, 0].min()) < 0
            or bool((places[:, 1:] <= places[:, :-1]).any())
        ):
            raise FrameError("the places do not ascend within a row", expected=f"from 0 to {like.width - 1}")
        return Written((_scatter(values.to(like.dtype), places, like),), places)

    def folded(self, like: Like) -> Like:
        """See `Codec`."""
        return Like((like.rows, self.count(like)), like.dtype)

    def fold(self, gradient: Tensor, trace: Tensor | None, moment: Moment) -> Tensor:
        """Return the gradient at the kept places."""
        return gradient if trace is None else gradient.reshape(len(gradient), -1).gather(1, trace)

    def unfold(self, folded: Tensor, trace: Tensor | None, like: Like, moment: Moment) -> Tensor:
        """Return the gradient, zero elsewhere."""
        return folded if trace is None else _scatter(folded, trace, like)


@dataclass(frozen=True, kw_only=True)
class RandomTopK(TopK):
    """Top-k of which some places, drawn anew in every training step, go to values that are not among the largest.

    Zheng et al. 2023, "Reducing communication for split learning by randomized top-k sparsification" (IJCAI): with
    plain top-k the places that are never kept are never trained. Of the k places each goes with probability
    ``explore`` to the others: one of the k largest is kept with probability ``1 - explore``, one of the n - k others
    with ``explore * k / (n - k)`` (while there are enough of them). In an evaluation it is plain top-k.

    Attributes:
        explore: The probability, from 0 to below 1.
    """

    explore: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.explore) or not 0 <= self.explore < 1:
            raise StudyError("explore is a probability", got=f"{self.explore!r}", expected="0 <= explore < 1")

    @property
    def word(self) -> str:
        """See `Codec`."""
        return f"random-topk:{number_text(self.share)},{number_text(self.explore)}{self._ending}"

    @property
    def promise(self) -> str:
        """See `Codec`."""
        return (
            f"{super().promise}; in training a kept place goes with probability {self.explore:g} to another "
            "value instead"
        )

    def choose(self, flat: Tensor, count: int, moment: Moment) -> Tensor:
        """See `TopK`; the numbers drawn follow from the moment."""
        top = largest(flat, count)
        rows, width = flat.shape
        if not moment.training or count == width:
            return top
        draw = moment.generator()
        others = (torch.rand((rows, count), generator=draw) < self.explore).sum(1, keepdim=True)
        most = min(int(others.max()), width - count)
        if not most:
            return top
        places = top.cpu()
        new, some = draw_others(places, most, width, draw)
        gone, different = draw_others(places[:, :0], most, count, draw)  # which of the largest make room
        swapped = some & different & (torch.arange(most) < others)
        beyond = torch.nn.functional.pad(
            places, (0, 1)
        )  # what is not swapped goes to a column that is cut off
        beyond.scatter_(1, torch.where(swapped, gone, count), new)
        return _ascending(beyond[:, :count].numpy(), width).to(flat.device)


def largest(flat: Tensor, count: int) -> Tensor:
    """Return the places of each row's ``count`` largest magnitudes, int64 [B, count], ascending.

    On the CPU by NumPy, which is two to three times faster at it.
    """
    width = flat.shape[1]
    if count == width:
        return torch.arange(width, device=flat.device).expand(len(flat), -1).contiguous()
    if not flat.is_cpu or flat.dtype is torch.bfloat16:
        return flat.abs().topk(count, dim=1, sorted=False).indices.sort(1).values
    fallen = flat.detach().abs().neg_().numpy()
    return _ascending(np.argpartition(fallen, count - 1, axis=1)[:, :count], width)


def _ascending(places: np.ndarray, width: int) -> Tensor:
    """Return each row's places in ascending order, int64; short numbers are sorted much faster."""
    short = np.sort(places.astype(np.uint16 if width <= 2**16 else np.int32), axis=1)
    return torch.from_numpy(short.astype(np.int64))


def _scatter(values: Tensor, places: Tensor, like: Like) -> Tensor:
    flat = values.new_zeros((like.rows, like.width))
    return flat.scatter_(1, places, values).reshape(like.shape)


def _places_dtype(width: int) -> torch.dtype:
    """Return the shortest type that a frame carries; up to 65,536 places as the 16 bits of an int16."""
    return torch.uint8 if width <= 2**8 else torch.int16 if width <= 2**16 else torch.int32


def _shorten(places: Tensor, width: int) -> Tensor:
    return places.to(_places_dtype(width))


def _lengthen(places: Tensor, width: int) -> Tensor:
    long = places.long()
    return long & 0xFFFF if places.dtype is torch.int16 else long
