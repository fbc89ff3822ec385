"""Noise on activations: each row is clipped, then Gaussian or Laplace noise is added before anything leaves.

Clipping bounds what one row can say; noise in proportion to the bound makes it deniable (Dwork and Roth 2014, sections
3.3 and appendix A). What that is worth in epsilon and delta is worked out in `accounting`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Defence, Moment, Place
from .facts import Facts
from .noise import Noise

__all__ = ["GaussianNoise", "LaplaceNoise", "NoiseOnly", "clip_rows"]

_Draw = Callable[[Noise, Tensor], Tensor]
_NOTHING_RAW = "what crosses is made of no rows of its sender's own"
_LEAVES = (
    "labels, ids, what the weights of the sending segment tell, nor properties of a whole group of rows; "
    "it hides a row among other rows that it could have been"
)


@dataclass(frozen=True, kw_only=True)
class _Noising(Defence):
    """Rows clipped to a norm of at most ``clip``, then noise in proportion to it.

    Attributes:
        clip: The largest norm of a row, in the activation's own unit.
        noise: The noise, as a multiple of ``clip``.
    """

    protects: ClassVar[str] = "each single row, within the epsilon and delta that are reported,"
    against: ClassVar[str] = "whoever receives what crosses this cut, and all who get it from there"
    leaves: ClassVar[str] = _LEAVES
    order: ClassVar[float] = 2.0
    """Of the norm: 2 for lengths, 1 for sums of magnitudes."""

    clip: float
    noise: float

    def __post_init__(self) -> None:
        self._check_positive("clip")
        self._check_not_negative("noise")

    def misfit(self, place: Place) -> str | None:
        """Return why there is nothing to protect: the sender has no rows behind what crosses."""
        return None if place.raw else _NOTHING_RAW

    def outgoing(self, activation: Tensor, moment: Moment) -> Tensor:
        """Return the rows of ``activation`` [B, ...], clipped, with noise."""
        clipped = clip_rows(activation, self.clip, self.order, moment.facts)
        return _noised(clipped, self._draw, self.noise * self.clip, moment)

    @staticmethod
    def _draw(noise: Noise, like: Tensor) -> Tensor:
        return noise.normal(like)


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(_Noising):
    """``gaussian:clip=1,noise=2``: rows clipped to the length ``clip``, normal noise of deviation ``noise * clip``.

    Attributes:
        clip: The largest Euclidean norm of a row.
        noise: The noise's standard deviation, as a multiple of ``clip``.
    """

    word: ClassVar[str] = "gaussian"


@dataclass(frozen=True, kw_only=True)
class LaplaceNoise(_Noising):
    """``laplace:clip=1,noise=2``: rows clipped to the L1 norm ``clip``, Laplace noise of scale ``noise * clip``.

    Attributes:
        clip: The largest sum of a row's magnitudes.
        noise: The noise's scale, as a multiple of ``clip``; its standard deviation is 1.41 times that.
    """

    word: ClassVar[str] = "laplace"
    order: ClassVar[float] = 1.0

    @staticmethod
    def _draw(noise: Noise, like: Tensor) -> Tensor:
        return noise.laplace(like)


@dataclass(frozen=True, kw_only=True)
class NoiseOnly(Defence):
    """``noise:0.5``: noise without clipping, as in many papers (e.g. Titcombe et al. 2021). No guarantee follows.

    Attributes:
        scale: Of the noise, in the activation's own unit: the scale of Laplace's law, the deviation of Gauss's.
        law: ``"laplace"`` or ``"gaussian"``.
    """

    word: ClassVar[str] = "noise"
    protects: ClassVar[str] = "details of each row, as far as an audit shows it,"
    against: ClassVar[str] = "whoever receives what crosses this cut"
    leaves: ClassVar[str] = (
        "anything in the sense of differential privacy: nothing bounds how large a row is beside the noise "
        "(take gaussian or laplace for that)"
    )

    scale: float
    law: str = "laplace"

    def __post_init__(self) -> None:
        self._check_positive("scale")
        self._check("law", self.law in ("laplace", "gaussian"), "'laplace' or 'gaussian'")

    def misfit(self, place: Place) -> str | None:
        """Return why there is nothing to protect: the sender has no rows behind what crosses."""
        return None if place.raw else _NOTHING_RAW

    def outgoing(self, activation: Tensor, moment: Moment) -> Tensor:
        """Return ``activation`` [B, ...] with noise."""
        draw = Noise.laplace if self.law == "laplace" else Noise.normal
        return _noised(activation, draw, self.scale, moment)


def clip_rows(activation: Tensor, clip: float, order: float, facts: Facts) -> Tensor:
    """Return ``activation`` [B, ...] with each row's norm at most ``clip``; gradients go through the scaling.

    Args:
        activation: The rows.
        clip: The largest norm.
        order: Of the norm, 1 or 2.
        facts: Where the norms before are noted.
    """
    rows = activation.flatten(1) if activation.ndim > 1 else activation[:, None]
    norms = torch.linalg.vector_norm(rows, ord=order, dim=1)
    facts.add("norm before clipping", float(norms.detach().mean()), len(rows))
    facts.add("rows clipped", float((norms.detach() > clip).double().mean()), len(rows))
    factors = torch.full_like(norms, clip) / norms.clamp_min(
        clip
    )  # exactly 1 for those that are short enough
    kept: Tensor = rows * factors[:, None]
    return kept.reshape(activation.shape)


def _noised(rows: Tensor, draw: _Draw, scale: float, moment: Moment) -> Tensor:
    """Return ``rows`` [B, ...] with noise of ``scale``; the deviation of what was really added is noted."""
    if scale == 0:
        return rows
    added = draw(moment.noise, rows.detach()) * scale
    result = rows + added
    really = (result.detach() - rows.detach()).double()
    moment.facts.add("deviation added", math.sqrt(float(really.square().mean())), len(rows))
    return result
