"""Patch shuffling: the tokens of each row leave in an order that only their sender knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import StudyError
from .base import Defence, Moment, Place

__all__ = ["ShuffledPatches"]


@dataclass(frozen=True, kw_only=True)
class ShuffledPatches(Defence):
    """Send the tokens of a row [T, C] in a random order, drawn for each row and each time it is sent.

    Yao et al. 2022, "Privacy-preserving split learning via patch shuffling over transformers" (ICDM). Attention does
    not ask for an order, so a transformer behind the cut can do without; gradients go back to where tokens came from.

    Attributes:
        keep: How many tokens at the front stay where they are: 1 if there is a class token.
    """

    word: ClassVar[str] = "patch-shuffle"
    protects: ClassVar[str] = "where in a row a patch or token was"
    against: ClassVar[str] = "whoever receives the activations"
    leaves: ClassVar[str] = (
        "the tokens themselves, nor their places as far as they tell them: position embeddings that are "
        "added before the cut do, and so do edges that fit together; it gives no guarantee, so attack what "
        "leaves and see"
    )
    keep: int = 0

    def __post_init__(self) -> None:
        self._check_whole("keep", least=0)

    def misfit(self, place: Place) -> str | None:
        """Return why not: rows must be tokens [T, C], two of which can change places."""
        return None if place.shape is None or self._fits(place.shape) else self._why(place.shape)

    def outgoing(self, activation: Tensor, moment: Moment) -> Tensor:
        """Return the activation [B, T, C] with its tokens in another order.

        Raises:
            StudyError: Rows are not [T, C].
        """
        shape = tuple(activation.shape[1:])
        if not self._fits(shape):
            raise StudyError(self._why(shape), party=moment.party, cut=moment.cut, step=moment.step)
        drawn = moment.noise.uniform(activation.detach()[:, self.keep :, 0].double())
        moved = drawn.argsort(dim=1) + self.keep
        stays = torch.arange(self.keep, device=moved.device).expand(len(moved), self.keep)
        order = torch.cat([stays, moved], dim=1)
        moment.facts.count("rows", len(activation))
        return activation.gather(1, order[:, :, None].expand_as(activation))

    def _fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == 2 and shape[0] >= self.keep + 2

    def _why(self, shape: tuple[int, ...]) -> str:
        wanted = (
            f"tokens [T, C] with at least two beside the {self.keep} that stay"
            if self.keep
            else "tokens [T, C]"
        )
        return f"a row of shape {list(shape)} is not {wanted}"
