"""Attribute inference: a private attribute that has nothing to do with the task, read off activations.

A classifier learns it from activations of rows whose attribute is known, as in Pasquini et al. 2021 (CCS, section 5)
for a dishonest server; here the server is honest and curious.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Attack, Guess, Knowledge, OnProgress
from .learning import applied, classifier, fit, frozen, seeded
from .transcript import Transcript

__all__ = ["AttributeInference"]

_LEAKED, _PUBLIC = ("leaked_z", "leaked_attribute"), ("public_x", "public_attribute", "client")


@dataclass(frozen=True)
class AttributeInference(Attack):
    """A classifier from activations to an attribute.

    Attributes:
        of: The attribute's name, for an audit, which looks it up in the data: a column or a further field.
        steps: Batches that it learns from.
        lr: Adam's step size.
        rows: Of how many rows it is told, the last that were seen.
    """

    word: ClassVar[str] = "attribute"
    after: ClassVar[str] = "attribute"
    adversary: ClassVar[str] = "the party that receives activations"
    needs: ClassVar[str] = (
        "activations, and rows with the attribute and their activations: leaked ones, or public rows and the sender's "
        "segment to ask"
    )
    source: ClassVar[str] = "Pasquini et al. 2021 (CCS), section 5, with an honest server"
    of: str = ""
    steps: int = 500
    lr: float = 1e-3
    rows: int = 1000

    def __post_init__(self) -> None:
        self._check_whole("steps", "rows")
        self._check_positive("lr")

    def misfit(self, seen: Transcript, known: Knowledge) -> str | None:
        """Return why not: no activations, or none of a known attribute."""
        if not seen.sights("activation"):
            return "no activations were seen"
        if known.has(*_LEAKED) or known.has(*_PUBLIC):
            return None
        return "it knows no activations of rows whose attribute it knows"

    def guess(self, seen: Transcript, known: Knowledge, seed: int, on_progress: OnProgress = None) -> Guess:
        """Return the attribute of every row seen, and where it has two values how likely the greater is."""
        self._refuse(seen, known)
        z, attribute = _pairs(known)
        rows = seen.rows("activation").float()
        at = torch.arange(len(rows))[-self.rows :]
        centre, spread = z.mean(0), z.std(0).clamp_min(1e-6)
        with seeded(seed, self.word):
            network = classifier(z.shape[1:], int(attribute.max()) + 1)
            fit(
                network, (z - centre) / spread, attribute, F.cross_entropy,
                steps=self.steps, lr=self.lr, on_progress=on_progress,
            )  # fmt: skip
        chances = applied(network, (rows[at] - centre) / spread).softmax(1)
        scores = chances[:, 1] if chances.shape[1] == 2 else None
        return Guess(at=at, labels=chances.argmax(1), scores=scores)

    def blind(self, guess: Guess, known: Knowledge, seed: int) -> Guess:
        """Return the commonest value of the attribute, and the same score for all."""
        commonest = _told(known).mode().values
        return Guess(
            at=guess.at,
            labels=commonest.expand(len(guess.at)).long().clone(),
            scores=torch.zeros(len(guess.at)) if guess.scores is not None else None,
            note="the commonest value of the attribute",
        )


def _pairs(known: Knowledge) -> tuple[Tensor, Tensor]:
    """Return activations to learn from and the attribute of their rows: those that leaked and those of public rows."""
    leaked = [known.tensor("leaked_z").float()] if known.has(*_LEAKED) else []
    public = (
        [applied(frozen(known.module("client")), known.tensor("public_x"))] if known.has(*_PUBLIC) else []
    )
    return torch.cat(leaked + public), _told(known)


def _told(known: Knowledge) -> Tensor:
    """Return the attribute of all rows of which it is told [N], int64."""
    names = [which[1] for which in (_LEAKED, _PUBLIC) if known.has(*which)]
    return torch.cat([known.tensor(name).reshape(-1).long() for name in names])
