"""UnSplit's label inference: the label with which a copy of the network behind the cut sends the nearest gradient.

Erdogan, Küpçü and Çiçek 2022, "UnSplit" (WPES; arXiv 2108.09033): who receives a gradient and knows the
architecture of the part that made it works out, for every label, which gradient a clone of that part would have sent,
takes the label whose gradient is nearest, and brings the clone nearer to it. In the paper it is the server of a U-shape
and the clone is a client's last layer; it can be any party that sends activations and has no labels.

Nearest is here by direction, where the paper has the mean squared error: a network that is nearly right sends short
gradients, and a clone that is not yet does not. The clone begins with the initial weights, which all parties of a study
know, so that its classes have the right names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Guess, Knowledge, OnProgress
from .labels import LabelAttack
from .learning import batches, seeded
from .transcript import Sight, Transcript

__all__ = ["UnSplitLabels"]

_PIECE = 64


@dataclass(frozen=True)
class UnSplitLabels(LabelAttack):
    """The label whose simulated gradient is nearest to the one that came.

    Attributes:
        steps: Batches from which the clone learns.
        lr: Adam's step size on its weights.
    """

    word: ClassVar[str] = "unsplit-labels"
    adversary: ClassVar[str] = (
        "a party that sends activations, has no labels, and knows the architecture behind the cut"
    )
    needs: ClassVar[str] = (
        "what it sent and the gradients that came for it, the number of classes, and the architecture of the segment "
        "that has the labels"
    )
    source: ClassVar[str] = "Erdogan, Küpçü and Çiçek 2022 (WPES), label inference"
    steps: int = 50
    lr: float = 3e-3

    def __post_init__(self) -> None:
        self._check_whole("steps", least=0)
        self._check_positive("lr")

    def misfit(self, seen: Transcript, known: Knowledge) -> str | None:
        """Return why not: what is needed and missing."""
        if why := super().misfit(seen, known):
            return why
        if not seen.pairs("activation", "gradient")[0]:
            return "what it sent for these gradients was not seen"
        if known.classes < 2:
            return "the number of classes is not known"
        return None if known.has("behind") else "the architecture behind the cut is not known"

    def guess(self, seen: Transcript, known: Knowledge, seed: int, on_progress: OnProgress = None) -> Guess:
        """Return the label of the nearest gradient for every row of which both were seen."""
        self._refuse(seen, known)
        sent, came = seen.pairs("activation", "gradient")
        z = torch.cat([sight.rows for sight in sent]).float()
        true = F.normalize(torch.cat([sight.rows for sight in came]).flatten(1).float(), dim=1)
        clone = known.module("behind").requires_grad_()
        with seeded(seed, self.word):
            self._approach(clone, z, true, known.classes, on_progress)
            pieces = zip(torch.split(z, _PIECE), torch.split(true, _PIECE), strict=True)
            apart = torch.cat([_apart(clone, *piece, known.classes).detach() for piece in pieces])
        scores = apart[:, 0] - apart[:, 1] if known.classes == 2 else None
        cosine = 1 - float(apart.min(1).values.mean())
        return Guess(
            at=_places(seen, came),
            labels=apart.argmin(1),
            scores=scores,
            note=f"mean cosine of its clone's gradients and those that came: {cosine:.2f}",
        )

    def _approach(
        self, clone: nn.Module, z: Tensor, true: Tensor, classes: int, on_progress: OnProgress
    ) -> None:
        """Move the clone's weights so that the nearest of its gradients come nearer."""
        optimizer = torch.optim.Adam(clone.parameters(), lr=self.lr)
        for step, rows in enumerate(batches(len(z), self.steps)):
            optimizer.zero_grad()
            nearest = _apart(clone, z[rows], true[rows], classes).min(1).values
            nearest.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if on_progress is not None:
                on_progress((step + 1) / self.steps)


def _places(seen: Transcript, chosen: list[Sight]) -> Tensor:
    """Return the places of the rows of ``chosen`` among all gradients seen [N], int64."""
    numbers = {sight.number for sight in chosen}
    sights = seen.sights("gradient", training=True)
    return torch.cat([torch.full((len(s.rows),), s.number in numbers) for s in sights]).nonzero()[:, 0]


def _apart(clone: nn.Module, z: Tensor, true: Tensor, classes: int) -> Tensor:
    """Return how far the clone's gradient for each label is from that of each row [B, classes]: 1 less their cosine.

    Args:
        clone: The copy of the segment behind the cut.
        z: What was sent [B, ...].
        true: The directions of the gradients that came [B, D].
        classes: How many labels there are.
    """
    labels = torch.arange(classes).repeat_interleave(len(z))
    leaf = z.repeat(classes, *[1] * (z.dim() - 1)).requires_grad_()
    outputs = clone(leaf).flatten(1)
    if outputs.shape[1] == 1:
        loss = F.binary_cross_entropy_with_logits(outputs[:, 0], labels.to(outputs.dtype), reduction="sum")
    else:
        loss = F.cross_entropy(outputs, labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    simulated = F.normalize(gradient.flatten(1), dim=1).reshape(classes, len(z), -1)
    return 1 - (simulated * true).sum(2).T
