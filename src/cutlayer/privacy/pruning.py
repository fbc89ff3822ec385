"""Pruning of channels at the cut: some channels of each row do not leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Defence, Moment, Place

__all__ = ["PrunedChannels"]

_WAYS = ("strongest", "random")


@dataclass(frozen=True, kw_only=True)
class PrunedChannels(Defence):
    """Send 0 in place of a share of a row's channels: the strongest, or random ones.

    After Singh et al. 2021, "DISCO: dynamic and invariant sensitive channel obfuscation" (CVPR), as far as channels are
    pruned for each row anew. There a network learns which ones, against an adversary that it plays (see `disco`); here
    it is a plain rule, which needs no named attribute, no training and no memory. A channel's strength is the mean of
    its squares: the strongest show a picture best. Channels are the first dimension of a row, [C, ...].

    Attributes:
        share: Of the channels, above 0 and below 1; at least one is pruned, and one is sent.
        by: ``"strongest"`` or ``"random"``.
    """

    word: ClassVar[str] = "prune"
    protects: ClassVar[str] = "what the pruned channels tell of raw rows"
    against: ClassVar[str] = "whoever receives the activations"
    leaves: ClassVar[str] = (
        "what the other channels tell, nor which ones are 0; nobody learnt which channels give something "
        "away, and there is no guarantee, so attack what leaves and see"
    )
    share: float = 0.5
    by: str = "strongest"

    def __post_init__(self) -> None:
        self._check_share("share")
        self._check("by", self.by in _WAYS, " or ".join(map(repr, _WAYS)))

    def misfit(self, place: Place) -> str | None:
        """Return why not: there must be two channels."""
        few = place.shape is not None and (not place.shape or place.shape[0] < 2)
        return f"a row of shape {list(place.shape or ())} has no two channels" if few else None

    def outgoing(self, activation: Tensor, moment: Moment) -> Tensor:
        """Return the activation [B, C, ...] without these channels."""
        if activation.dim() < 2 or activation.shape[1] < 2:
            return activation
        with torch.no_grad():
            squares = activation.square().flatten(2).mean(2) if activation.dim() > 2 else activation.square()
            strength = squares if self.by == "strongest" else moment.noise.uniform(squares)
            channels = activation.shape[1]
            count = min(max(round(self.share * channels), 1), channels - 1)
            kept = torch.ones_like(strength).scatter_(1, strength.topk(count, dim=1).indices, 0.0)
            all_of_it = squares.sum().clamp_min(torch.finfo(squares.dtype).tiny)
            moment.facts.add("share of squares sent", float((squares * kept).sum() / all_of_it))
        return activation * kept.reshape(*kept.shape, *[1] * (activation.dim() - 2))
