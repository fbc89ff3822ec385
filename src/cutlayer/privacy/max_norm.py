"""Noise on the gradients that the label holder sends back, so that their norms do not give labels away.

Li, Sun et al. 2022, "Label leakage and protection in two-party split learning" (ICLR; arXiv 2102.08504), sections 4 and
5: where classes are uneven, a network is more often wrong about the rare one, whose rows have the greater gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Defence, Moment, Place
from .noise import Noise

__all__ = ["IsotropicNoise", "MaxNorm", "at_label_holder", "tell_noise", "with_max_norm"]

_AGAINST = "the party that receives the gradients and has no labels"


@dataclass(frozen=True)
class MaxNorm(Defence):
    """Bring all rows' gradients to the norm of the batch's greatest, by noise along each row's own gradient.

    ``g_j (1 + sigma_j eta_j)`` with ``sigma_j = sqrt(max |g|^2 / |g_j|^2 - 1)`` and ``eta_j`` standard normal: the
    expected square of every row's norm is the greatest one. Unbiased, and without a setting. Of a row without
    gradient the noise has a direction of its own.
    """

    word: ClassVar[str] = "max-norm"
    protects: ClassVar[str] = "labels, as far as the norms of a batch's gradients tell them,"
    against: ClassVar[str] = _AGAINST
    leaves: ClassVar[str] = (
        "labels from the directions of gradients, which stay but for their sign, from attacks that compare "
        "many steps or the gradients of several parties, nor from what the trained half of the network knows "
        "of them; no bound is known"
    )

    def misfit(self, place: Place) -> str | None:
        """Return why not: the labels must be where the gradient is sent."""
        return at_label_holder(place)

    def returning(self, gradient: Tensor, moment: Moment) -> Tensor:
        """Return the gradient [B, ...] with noise along its rows."""
        noisy = with_max_norm(gradient, moment.noise)
        tell_noise(gradient, noisy, moment)
        return noisy


@dataclass(frozen=True, kw_only=True)
class IsotropicNoise(Defence):
    """Add Gaussian noise in all directions alike: ``scale / d`` times the greatest squared norm is its variance.

    The baseline of Li, Sun et al.: the expected square of the noise's norm is ``scale`` times the batch's greatest.

    Attributes:
        scale: Noise to gradient, in squared norms.
    """

    word: ClassVar[str] = "iso"
    protects: ClassVar[str] = "labels, as far as norms and directions of a batch's gradients tell them,"
    against: ClassVar[str] = _AGAINST
    leaves: ClassVar[str] = (
        "labels from attacks that average over many steps, nor from what the trained half of the network "
        "knows of them"
    )
    scale: float = 1.0

    def __post_init__(self) -> None:
        self._check_positive("scale")

    def misfit(self, place: Place) -> str | None:
        """Return why not: the labels must be where the gradient is sent."""
        return at_label_holder(place)

    def returning(self, gradient: Tensor, moment: Moment) -> Tensor:
        """Return the gradient [B, ...] with noise."""
        rows = gradient.flatten(1)
        deviation = (self.scale / rows.shape[1]) ** 0.5 * rows.norm(dim=1).max()
        noisy: Tensor = gradient + deviation * moment.noise.normal(gradient)
        tell_noise(gradient, noisy, moment)
        return noisy


def with_max_norm(gradient: Tensor, noise: Noise) -> Tensor:
    """Return ``gradient`` [B, ...] with noise along its rows that brings all to the greatest norm."""
    rows = gradient.flatten(1)
    norms = rows.norm(dim=1, keepdim=True)
    most = norms.max()
    along = torch.nn.functional.normalize(rows, dim=1, eps=torch.finfo(rows.dtype).tiny)
    if bool((norms == 0).any()) and bool(most > 0):
        other = torch.nn.functional.normalize(noise.normal(rows), dim=1)
        along = torch.where(norms == 0, other, along)
    missing = (most.square() - norms.square()).clamp_min(0.0).sqrt()
    noisy: Tensor = rows + missing * noise.normal(norms) * along
    return noisy.reshape(gradient.shape)


def at_label_holder(place: Place) -> str | None:
    """Return why a defence of labels in gradients cannot stand at ``place``; None if it can."""
    if not place.gradient:
        return "no gradient comes back over it"
    if place.labels != "target":
        return "the party that sends the gradient back does not hold the labels of the loss"
    return None


def tell_noise(gradient: Tensor, noisy: Tensor, moment: Moment) -> None:
    """Note how much noise there is beside the gradient, in squared norms over the batch."""
    square = float(gradient.square().sum())
    if square > 0:
        moment.facts.add("noise to gradient, squared", float((noisy - gradient).square().sum()) / square)
