"""Small numbers side by side in bytes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pack", "packed_width", "unpack"]


def packed_width(count: int, bits: int) -> int:
    """Return how many bytes hold ``count`` numbers of 1, 2, 4 or 8 bits."""
    return -(-count * bits // 8)


def pack(numbers: Tensor, bits: int) -> Tensor:
    """Return uint8 [B, packed_width] of ``numbers`` uint8 [B, N], each below 2**bits; the first lies lowest."""
    if bits == 8:
        return numbers
    several = 8 // bits
    spare = -numbers.shape[1] % several
    if spare:
        numbers = torch.nn.functional.pad(numbers, (0, spare))
    packed = numbers[:, ::several].clone()
    for place in range(1, several):
        packed |= numbers[:, place::several] << (bits * place)
    return packed


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Return the ``count`` numbers a row, uint8 [B, count], that `pack` packed."""
    if bits == 8:
        return packed
    several, mask = 8 // bits, (1 << bits) - 1
    numbers = packed.new_empty((len(packed), packed.shape[1] * several))
    for place in range(several):
        numbers[:, place::several] = (packed >> (bits * place)) & mask
    return numbers[:, :count]
