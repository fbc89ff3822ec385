"""Dropout at the cut: a part of what would leave does not, in training and ever after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import Defence, Moment

__all__ = ["ActivationDropout"]


@dataclass(frozen=True, kw_only=True)
class ActivationDropout(Defence):
    """Send 0 in place of a random share of an activation's numbers; the others are ``1 / (1 - rate)`` times as large.

    He, Zhang and Lee 2021, "Attacking and protecting data privacy in edge-cloud collaborative inference systems" (IEEE
    Internet of Things Journal 8). Unlike the layer of that name, it does not stop when training ends. Which numbers
    are left out is drawn for each row, and nobody else can draw it.

    Attributes:
        rate: The share that is left out, above 0 and below 1.
    """

    word: ClassVar[str] = "dropout"
    protects: ClassVar[str] = "the details of raw rows"
    against: ClassVar[str] = "whoever receives the activations"
    leaves: ClassVar[str] = (
        "what the numbers that are sent tell, another part each time: who receives a row often puts it "
        "together; it gives no guarantee, so attack what leaves and see"
    )
    rate: float = 0.5

    def __post_init__(self) -> None:
        self._check_share("rate")

    def outgoing(self, activation: Tensor, moment: Moment) -> Tensor:
        """Return the activation [B, ...] with zeros in it."""
        kept = moment.noise.uniform(activation.detach()) >= self.rate
        moment.facts.add("share sent", float(kept.float().mean()))
        return activation * kept / (1 - self.rate)
