"""DP-SGD for the segment that sends over a cut: what one row can do to its weights is bounded and hidden in noise.

Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar and Zhang 2016, "Deep learning with differential privacy" (CCS; arXiv
1607.00133), algorithm 1. Here are its settings and its arithmetic; how rows' gradients are found is the runtime's part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .base import Defence, Place
from .facts import Facts

__all__ = ["DPSGD", "clipped_sums", "mixing_layer"]


@dataclass(frozen=True, kw_only=True)
class DPSGD(Defence):
    """``dp-sgd:clip=1,noise=1``: each row's gradient clipped, noise on their sum.

    The sum over the rows of a step is divided by their number; then the segment's own optimizer steps with it.

    Attributes:
        clip: The largest Euclidean norm of one row's gradient, over all weights of the segment.
        noise: The standard deviation of the noise on the sum, as a multiple of ``clip``.
    """

    word: ClassVar[str] = "dp-sgd"
    protects: ClassVar[str] = "each single row, within the epsilon and delta that are reported,"
    against: ClassVar[str] = (
        "whoever gets the weights of the segment that sends over this cut: the next client, an averager, a reader "
        "of the finished model"
    )
    leaves: ClassVar[str] = (
        "what crosses the cut: activations leave as they are, and what the other side learns from them comes back in "
        "later gradients; add gaussian or laplace at the same cut, and both are counted together"
    )

    clip: float
    noise: float

    def __post_init__(self) -> None:
        self._check_positive("clip")
        self._check_not_negative("noise")

    def misfit(self, place: Place) -> str | None:
        """Return why there is nothing to protect: the segment learns nothing, or not from its party's own rows."""
        if not place.gradient:
            return "no gradient comes back over it, so the segment that sends learns nothing"
        return None if place.raw else "what crosses is made of no rows of its sender's own"


def clipped_sums(samples: Sequence[Tensor], clip: float, rows: int, facts: Facts) -> list[Tensor]:
    """Return the sum over rows of their gradients, each scaled to a norm of at most ``clip`` over all weights.

    Args:
        samples: For each weight, the gradients [B, ...] of the mean over the batch, row by row.
        clip: The largest norm of a row's own gradient, which is ``rows`` times its part of the mean's.
        rows: The rows B.
        facts: Where the norms before are noted.
    """
    parts = [torch.linalg.vector_norm(sample.reshape(rows, -1), dim=1) for sample in samples]
    norms = torch.linalg.vector_norm(torch.stack(parts), dim=0) * rows
    facts.add("gradient norm before clipping", float(norms.mean()), rows)
    facts.add("rows clipped", float((norms > clip).double().mean()), rows)
    factors = torch.full_like(norms, clip) / norms.clamp_min(clip) * rows
    return [torch.einsum("n,n...->...", factors, sample) for sample in samples]


def mixing_layer(module: nn.Module) -> str | None:
    """Return the first layer that lets rows of a batch change each other, ``'1' (BatchNorm2d)``; None: none known."""
    for name, layer in module.named_modules():
        batch_norm = isinstance(layer, nn.modules.batchnorm._BatchNorm)
        tracking = isinstance(layer, nn.modules.instancenorm._InstanceNorm) and layer.track_running_stats
        if batch_norm or tracking:
            return f"{name!r} ({type(layer).__name__})"
    return None
