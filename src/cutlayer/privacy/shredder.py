"""Learnt noise: as large as one says, in directions that do the task least harm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from .base import Defence, Moment

__all__ = ["LearntNoise"]


@dataclass(frozen=True, kw_only=True)
class LearntNoise(Defence):
    """Add one of a few learnt noise tensors to each row, at random.

    After Mireshghallah et al. 2020, "Shredder: learning noise distributions to protect inference privacy" (ASPLOS).
    Tensors of the shape of a row begin as Laplace noise, and in training follow the gradient that comes back, so that
    the loss stays low. There a term in the loss makes noise large and weights are fixed; here each tensor keeps its
    norm, ``scale`` times that of the first batch's rows, and the network trains along. The sender does it all: the
    receiver's part is as without.

    Attributes:
        scale: Norm of the noise, as a multiple of the root mean square of the first batch's norms.
        tensors: How many there are.
        rate: How far a step turns a tensor, as a share of its norm.
    """

    word: ClassVar[str] = "shredder"
    protects: ClassVar[str] = "the details of raw rows"
    against: ClassVar[str] = "whoever receives few activations"
    leaves: ClassVar[str] = (
        "rows from who receives many: the same few tensors are added to all, so in time they can be told "
        "apart and taken off, and who sends the gradients knows how they move"
    )
    scale: float = 1.0
    tensors: int = 16
    rate: float = 0.02

    def __post_init__(self) -> None:
        self._check_positive("scale", "rate")
        self._check_whole("tensors")

    def outgoing(self, activation: Tensor, moment: Moment) -> Tensor:
        """Return the activation [B, ...] with noise."""
        noise = self._noise(activation.detach(), moment)
        which = moment.noise.whole(self.tensors, len(activation)).to(activation.device)
        chosen = noise[which]
        sent = activation + chosen
        square = float(activation.detach().square().sum())
        if square > 0:
            moment.facts.add("noise to activation, squared", float(chosen.square().sum()) / square)
        if sent.requires_grad:
            sent.register_hook(partial(self._learn, noise, which))  # type: ignore[no-untyped-call]
        return sent

    def _noise(self, activation: Tensor, moment: Moment) -> Tensor:
        """Return the noise tensors [K, ...] of this party and cut; drawn when first asked for."""
        shape = list(activation.shape[1:])
        place = f"noise {shape}"
        if place not in moment.memory:
            drawn = moment.noise.laplace(activation.new_empty(self.tensors, *shape))
            norm = self.scale * activation.flatten(1).square().sum(1).mean().sqrt()
            moment.memory[place] = _with_norms(drawn, norm.expand(self.tensors))
        return moment.memory[place]

    def _learn(self, noise: Tensor, which: Tensor, gradient: Tensor) -> None:
        """Turn the tensors that were added a little against the gradients [B, ...] of their rows."""
        with torch.no_grad():
            norms = noise.flatten(1).norm(dim=1)
            slopes = torch.zeros_like(noise).index_add_(0, which, gradient.to(noise.dtype))
            noise.copy_(_with_norms(noise - _with_norms(slopes, self.rate * norms), norms))


def _with_norms(rows: Tensor, norms: Tensor) -> Tensor:
    """Return ``rows`` [K, ...], each with its norm [K]; those of zeros stay so."""
    flat = rows.flatten(1)
    unit = torch.nn.functional.normalize(flat, dim=1, eps=torch.finfo(flat.dtype).tiny)
    return (unit * norms[:, None]).reshape(rows.shape)
