"""NoPeek: what leaves shall not be near where raw data are near; distance correlation joins the sender's loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Defence, Moment, Place
from .distance import (
    DISTANCES,
    centred_distances,
    corrected_of_centred,
    correlation_of_centred,
    correlation_with,
    permuted,
)

__all__ = ["NoPeek"]

_MEASURED = 8
"""Batches of an epoch on which the corrected correlation and that of permuted pairs are measured."""


@dataclass(frozen=True)
class NoPeek(Defence):
    """Add ``weight`` times the distance correlation of raw rows and activation to the sender's loss.

    Vepakomma et al. 2020, "NoPeek" (arXiv 2008.09161): it is computed and back-propagated at the sender alone; nothing
    more crosses the cut. Published code, and the figures of Titcombe et al. 2021 (arXiv 2104.05743), use squared
    distances, so they are the default; ``"euclidean"`` is the definition, and sees dependence that is not linear too.
    Several raw fields count as one wide row. How far it falls is a matter of weight and of steps: theirs came to 0.47
    on MNIST with 0.1 (and a little noise) after ten epochs, ``benchmarks/nopeek.py`` shows shorter training with more.

    A run tells the distance correlation as trained on, in every batch, and on the first batches of an epoch the
    bias-corrected one and that of permuted pairs: what a batch of this size shows where nothing belongs together.

    Attributes:
        weight: Of the distance correlation, beside a loss of weight 1.
        distance: ``"squared"`` or ``"euclidean"``.
    """

    word: ClassVar[str] = "nopeek"
    protects: ClassVar[str] = "raw rows, as far as distances between rows tell of them,"
    against: ClassVar[str] = "whoever receives the activations, if the server trains what was agreed"
    leaves: ClassVar[str] = (
        "what the task needs, the class among it, nor rows from a decoder that learnt from leaked pairs or "
        "from a server that trains something else; it gives no guarantee, so attack what leaves and see"
    )
    weight: float = 0.1
    distance: str = "squared"

    def __post_init__(self) -> None:
        self._check_positive("weight")
        self._check("distance", self.distance in DISTANCES, " or ".join(map(repr, DISTANCES)))

    def misfit(self, place: Place) -> str | None:
        """Return why not: there must be raw numbers at the sender, and a gradient."""
        if not place.numbers:
            return "the sender holds no raw field of floating-point numbers that what leaves is made of"
        return None if place.gradient else "the sender's segment is not trained"

    def penalty(self, inputs: tuple[Tensor, ...], activation: Tensor, moment: Moment) -> Tensor | None:
        """Return the weighted distance correlation, a scalar; None of fewer than two rows."""
        if not inputs or len(activation) < 2:
            return None
        raw = _wide(inputs).detach().to(torch.promote_types(activation.dtype, torch.float32))
        table = centred_distances(raw, self.distance)
        found = correlation_with(table, activation, self.distance)
        moment.facts.add("distance correlation", float(found.detach()))
        if len(activation) >= 4 and moment.facts.read().get("batches", 0) < _MEASURED:
            self._measure(table, activation.detach(), moment)
        moment.facts.count("batches")
        return self.weight * found

    def _measure(self, table: Tensor, activation: Tensor, moment: Moment) -> None:
        """Note the corrected correlation and that of permuted pairs, with the raw rows' centred ``table`` [B, B]."""
        other = centred_distances(activation, self.distance)
        chance = torch.Generator().manual_seed(moment.step)  # the step will do: this hides nothing
        order = torch.randperm(len(other), generator=chance)
        by_chance = correlation_of_centred(table, permuted(other, order.to(other.device)))
        moment.facts.add("distance correlation, corrected", corrected_of_centred(table, other))
        moment.facts.add("distance correlation, permuted pairs", by_chance)


def _wide(fields: tuple[Tensor, ...]) -> Tensor:
    """Return the rows of all ``fields`` [B, ...] side by side [B, D]."""
    if len(fields) == 1:
        return fields[0]
    return torch.cat([field.reshape(len(field), -1) for field in fields], dim=1)
