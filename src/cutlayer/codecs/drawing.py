"""Drawing a few places of many, without return."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["draw_others"]


def draw_others(taken: Tensor, count: int, width: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return ``count`` different places of each row that are not ``taken``, in the order in which they were drawn.

    Args:
        taken: Places below ``width``, int64 [B, K], ascending in each row, on the CPU.
        count: How many to draw; at most ``width - K``.
        width: How many places there are.
        draw: Where random numbers come from.

    Returns:
        The places, int64 [B, count], and which of them count: a row that drew the same too often has fewer.
    """
    rows, free = len(taken), width - taken.shape[1]
    if free < 8 * count + 64:
        noise = torch.rand((rows, width), generator=draw).scatter_(1, taken, -1.0)
        places = noise.topk(count, dim=1).indices
        return places, torch.ones_like(places, dtype=torch.bool)
    # Of numbers drawn with return the first different ones; there are twice as many as needed, of 8 times as many.
    ranks = torch.randint(free, (rows, 2 * count + 16), generator=draw)
    ordered, order = ranks.sort(dim=1, stable=True)
    again = torch.zeros_like(ranks, dtype=torch.bool)
    again.scatter_(1, order[:, 1:], ordered[:, 1:] == ordered[:, :-1])
    first = again.to(torch.uint8).sort(dim=1, stable=True).indices[:, :count]
    ranks = ranks.gather(1, first)
    # The place of rank r among those that are free lies after all taken ones with at most r free ones before them.
    before = taken - torch.arange(taken.shape[1])
    return ranks + torch.searchsorted(before, ranks, right=True), ~again.gather(1, first)
