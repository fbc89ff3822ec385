"""Ways to merge the activations of several parties into one."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..errors import GraphError, nearest

__all__ = ["Concat", "Mean", "Sum", "merge_module"]


class Concat(nn.Module):
    """Concatenate [B, n_i, ...] along the features to [B, sum of n_i, ...] (Vepakomma et al. 2018, figure 2)."""

    def forward(self, *activations: Tensor) -> Tensor:
        """Return the concatenation of ``activations`` along dimension 1."""
        return torch.cat(activations, dim=1)


class Sum(nn.Module):
    """Add activations of equal shape."""

    def forward(self, *activations: Tensor) -> Tensor:
        """Return the sum, added in the order given."""
        total = activations[0]
        for activation in activations[1:]:
            total = total + activation
        return total


class Mean(Sum):
    """Average activations of equal shape."""

    def forward(self, *activations: Tensor) -> Tensor:
        """Return the mean over ``activations``."""
        return super().forward(*activations) / len(activations)


_BY_NAME = {"concat": Concat, "sum": Sum, "mean": Mean}


def merge_module(merge: str | nn.Module) -> nn.Module:
    """Return the module for a word (``concat``, ``sum``, ``mean``), or a copy of the module given.

    A module of one's own is called with all activations in the order of the parties.
    """
    if isinstance(merge, nn.Module):
        return copy.deepcopy(merge)
    if merge not in _BY_NAME:
        raise GraphError(f"no way to merge is named {merge!r}", todo=nearest(merge, list(_BY_NAME)))
    return _BY_NAME[merge]()
