"""Inversion by a learnt decoder: a network that makes inputs of activations, trained on pairs that the adversary has.

Vepakomma et al. 2020 (NoPeek, arXiv 2008.09161), the worst case: pairs of inputs and activations leaked. He, Zhang and
Lee 2019 (ACSAC), section 5: pairs are made by asking the sender's segment (black box), or where nobody answers, by a
*shadow* of it that is trained against the receiver's own segment (query-free).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Guess, Knowledge, OnProgress
from .inversion import InputAttack
from .learning import applied, decoder, fit, frozen, seeded
from .transcript import Transcript

__all__ = ["Decoding", "Shadow", "decoded", "halves"]


@dataclass(frozen=True)
class Decoding(InputAttack):
    """A decoder that learns from leaked pairs or, without any, from what the sender's segment makes of public rows.

    Attributes:
        steps: Batches of 64 pairs that it learns from.
        lr: Adam's step size.
        rows: How many rows are decoded, the last that were seen.
    """

    word: ClassVar[str] = "decoder"
    adversary: ClassVar[str] = (
        "the party that receives activations, if some of the sender's rows leaked or it may ask"
    )
    needs: ClassVar[str] = (
        "activations, and pairs of inputs and activations: leaked ones, or public rows and the sender's segment to ask"
    )
    source: ClassVar[str] = "Vepakomma et al. 2020 (leaked pairs); He, Zhang and Lee 2019 (black box)"
    steps: int = 1000
    lr: float = 3e-3
    rows: int = 256

    def __post_init__(self) -> None:
        self._check_whole("steps", "rows")
        self._check_positive("lr")

    def misfit(self, seen: Transcript, known: Knowledge) -> str | None:
        """Return why not: no activations, or no pairs to learn from."""
        if not seen.sights("activation"):
            return "no activations were seen"
        if not known.has("leaked_x", "leaked_z") and not known.has("public_x", "client"):
            return "neither did rows leak, nor can the sender's segment be asked about public rows"
        return None

    def guess(self, seen: Transcript, known: Knowledge, seed: int, on_progress: OnProgress = None) -> Guess:
        """Return what the decoder makes of the activations seen."""
        self._refuse(seen, known)
        x, z, note = _pairs(known)
        with seeded(seed, self.word):
            return decoded(seen, known, x, z, self, on_progress=on_progress, note=note)


@dataclass(frozen=True)
class Shadow(Decoding):
    """A decoder that learns from a shadow of the sender's segment, which learns against the receiver's own.

    Attributes:
        steps: Batches that the shadow learns from, and again as many for the decoder.
        lr: Adam's step size.
        rows: How many rows are decoded, the last that were seen.
    """

    word: ClassVar[str] = "shadow"
    adversary: ClassVar[str] = "the party that receives activations and has the rest of the network"
    needs: ClassVar[str] = "activations, its own segment, the sender's architecture, public rows with labels"
    source: ClassVar[str] = "He, Zhang and Lee 2019, query-free"

    def misfit(self, seen: Transcript, known: Knowledge) -> str | None:
        """Return why not: what is needed and missing."""
        if not seen.sights("activation"):
            return "no activations were seen"
        if not known.has("architecture", "own"):
            return "it knows no architecture for a shadow, or has no segment to train it against"
        return (
            "there are no public rows with labels"
            if known.public_x is None or known.public_y is None
            else None
        )

    def guess(self, seen: Transcript, known: Knowledge, seed: int, on_progress: OnProgress = None) -> Guess:
        """Return what the shadow's decoder makes of the activations seen."""
        self._refuse(seen, known)
        x, y = known.tensor("public_x"), known.tensor("public_y")
        with seeded(seed, self.word):
            shadow = known.module("architecture").requires_grad_()
            whole = nn.Sequential(shadow, frozen(known.module("own")))
            first, second = halves(on_progress)
            fit(whole, x, y, F.cross_entropy, steps=self.steps, lr=self.lr, on_progress=first)
            z = applied(shadow, x)
            right = float((applied(whole, x).argmax(1) == y).double().mean())
            note = f"its shadow is right on {100 * right:.0f} % of the public rows"
            return decoded(seen, known, x, z, self, on_progress=second, note=note, aligned=True)


def decoded(
    seen: Transcript,
    known: Knowledge,
    x: Tensor,
    z: Tensor,
    how: Decoding,
    *,
    on_progress: OnProgress = None,
    note: str = "",
    aligned: bool = False,
) -> Guess:
    """Return what a decoder makes of the activations seen that has learnt from pairs ``x`` and ``z`` [K, ...].

    Args:
        seen: What was seen.
        known: Shape and range of inputs.
        x: Inputs to learn from.
        z: Their activations.
        how: The decoder's settings.
        on_progress: Called with how much is done.
        note: How the pairs came about.
        aligned: The pairs are of another segment than the activations: bring both to the same mean and deviation.
    """
    activations = seen.rows("activation").float()
    at = torch.arange(len(activations))[-how.rows :]
    centre, spread = _scale(z)
    here = _scale(activations) if aligned else (centre, spread)
    network = decoder(z.shape[1:], known.shape, known.low, known.high)
    fit(network, (z - centre) / spread, x, F.mse_loss, steps=how.steps, lr=how.lr, on_progress=on_progress)
    return Guess(at=at, inputs=applied(network, (activations[at] - here[0]) / here[1]), note=note)


def _scale(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each channel of images [N, C, H, W], of each feature of others."""
    over = (0, 2, 3) if z.dim() == 4 else (0,)
    return z.mean(over, keepdim=True), z.std(over, keepdim=True).clamp_min(1e-3 * float(z.std()) + 1e-9)


def _pairs(known: Knowledge) -> tuple[Tensor, Tensor, str]:
    """Return inputs and activations to learn from, and where they are from."""
    if known.has("leaked_x", "leaked_z"):
        x = known.tensor("leaked_x")
        return x, known.tensor("leaked_z").float(), f"learnt from {len(x)} pairs that leaked"
    x = known.tensor("public_x")
    z = applied(frozen(known.module("client")), x)
    return x, z, f"learnt from {len(x)} public rows that it asked about"


def halves(on_progress: OnProgress) -> tuple[OnProgress, OnProgress]:
    """Return progress for the first and for the second half of an attack."""
    if on_progress is None:
        return None, None
    tell = on_progress
    return (lambda part: tell(part / 2)), (lambda part: tell(0.5 + part / 2))
