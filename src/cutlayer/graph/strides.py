"""Where a tensor's numbers lie in memory, and how to lay out another tensor likewise.

Some kernels round otherwise on a transposed, sliced or unaligned tensor. What crosses a cut arrives row by
row in aligned memory; to get the uncut network's bits, it is laid out again as the uncut network has it:
activations where they are received, gradients where they come back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

__all__ = ["Strides", "placed", "relaid"]

_ALIGNED_BYTES = 64


@dataclass(frozen=True)
class Strides:
    """A layout in memory that is not row by row, for any number of rows.

    Attributes:
        order: The dimensions from slowest to fastest, without those in ``spread``.
        room: For each of ``order`` the size that it takes in memory, where it is a slice of something larger;
            the last entry is the distance between neighbours in the fastest dimension.
        spread: Dimensions along which all numbers are one and the same in memory.
        shift: Elements by which the first number is off an aligned address.
    """

    order: tuple[int, ...]
    room: tuple[int | None, ...]
    spread: tuple[int, ...]
    shift: int

    @staticmethod
    def of(tensor: Tensor) -> Strides | None:
        """Return how ``tensor`` lies in memory; None if row by row and aligned, or too odd to say."""
        shift = tensor.data_ptr() % _ALIGNED_BYTES // tensor.element_size()
        if tensor.numel() == 0 or (tensor.is_contiguous() and not shift):
            return None
        stride, shape = list(tensor.stride()), tensor.shape
        for d in reversed(range(tensor.dim())):
            if shape[d] == 1:  # its stride says nothing
                stride[d] = stride[d + 1] * shape[d + 1] if d + 1 < tensor.dim() else 1
        spread = tuple(d for d in range(tensor.dim()) if stride[d] == 0 and shape[d] > 1)
        order = sorted((d for d in range(tensor.dim()) if d not in spread), key=lambda d: -stride[d])
        room: list[int | None] = [None]
        for outer, inner in pairwise(order):
            taken, rest = divmod(stride[outer], max(stride[inner], 1))
            if rest or taken < shape[inner]:
                return None
            room.append(taken if taken > shape[inner] else None)
        step = stride[order[-1]] if order else 1
        return Strides(tuple(order), (*room[: len(order)], step), spread, shift)

    def lay_out(self, tensor: Tensor) -> Tensor:
        """Return a copy of ``tensor`` that lies in memory like this."""
        small = tensor
        for d in self.spread:
            small = small.narrow(d, 0, 1)
        sizes = [small.shape[d] for d in self.order]
        taken = [max(room or size, size) for room, size in zip(self.room, [*sizes, 1], strict=True)]
        memory = tensor.new_empty(self.shift + math.prod(taken))[self.shift :].view(taken)
        memory = memory.select(-1, 0)
        for i, size in enumerate(sizes):
            memory = memory.narrow(i, 0, size)
        for _ in self.spread:
            memory = memory.unsqueeze(-1)
        position = [*self.order, *sorted(self.spread)]
        memory = memory.permute([position.index(d) for d in range(tensor.dim())])
        return memory.copy_(small).expand(tensor.shape)


class _Placed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, forwards: Strides | None, backwards: Strides | None) -> Tensor:
        ctx.backwards = backwards
        return tensor.view_as(tensor) if forwards is None else forwards.lay_out(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return gradient if ctx.backwards is None else ctx.backwards.lay_out(gradient), None, None


def placed(tensor: Tensor, forwards: Strides | None, backwards: Strides | None = None) -> Tensor:
    """Return ``tensor`` laid out as ``forwards`` says; its gradient will be as ``backwards`` says."""
    out: Tensor = _Placed.apply(tensor, forwards, backwards)  # type: ignore[no-untyped-call]
    return out


def relaid(
    tensor: Tensor, order: tuple[int, ...], room: tuple[int | None, ...], spread: tuple[int, ...], shift: int
) -> Tensor:
    """Return ``tensor`` laid out by the fields of :class:`Strides`, as generated code writes them."""
    return placed(tensor, Strides(order, room, spread, shift))
