"""Label inference by a party that has no labels, from what it sends and what comes back for it.

By norm and by cosine: Li, Sun et al. 2022, "Label leakage and protection in two-party split learning" (ICLR; arXiv
2102.08504, section 3). By clustering and by completing the model: Fu et al. 2022, "Label inference attacks against
vertical federated learning" (USENIX Security).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn import functional as F

from ..seeds import stream
from .base import Attack, Guess, Knowledge, OnProgress
from .learning import applied, classifier, fit, seeded
from .transcript import Transcript, stacked

__all__ = ["ActivationClusters", "Completion", "CosineLabels", "GradientClusters", "NormLabels"]

_AT_THE_CLIENT = "a party that sends activations and has no labels"


@dataclass(frozen=True)
class LabelAttack(Attack):
    """Base of attacks that are after labels: their blind guess is the commonest label that is known, for every row."""

    after: ClassVar[str] = "labels"
    sees: ClassVar[str] = "gradient"
    adversary: ClassVar[str] = _AT_THE_CLIENT

    def misfit(self, seen: Transcript, known: Knowledge) -> str | None:
        """Return why not: nothing of the kind was seen."""
        return None if seen.sights(self.sees, training=True) else f"no {self.sees} was seen in training"

    def blind(self, guess: Guess, known: Knowledge, seed: int) -> Guess:
        """Return the commonest label, and the same score for all."""
        labels = torch.full((len(guess.at),), known.blind_label()) if guess.labels is not None else None
        scores = torch.zeros(len(guess.at)) if guess.scores is not None else None
        return Guess(at=guess.at, labels=labels, scores=scores, note="the commonest label")


@dataclass(frozen=True)
class NormLabels(LabelAttack):
    """Two classes, one of them rarer: its rows have the greater gradients, since the network expects them less."""

    word: ClassVar[str] = "norm"
    needs: ClassVar[str] = (
        "gradients of two classes, one of them rarer; its share, to say labels and not only scores"
    )
    source: ClassVar[str] = "Li, Sun et al. 2022, section 3.1"

    def guess(self, seen: Transcript, known: Knowledge, seed: int, on_progress: OnProgress = None) -> Guess:
        """Return each gradient's norm in units of its batch's median, as scores; the greatest are the rarer class."""
        self._refuse(seen, known)
        sizes = [rows.norm(dim=1) for rows in _by_batch(seen)]
        tiny = torch.finfo(torch.float32).tiny
        scores = torch.cat([size / size.median().clamp_min(tiny) for size in sizes])
        labels = None
        if known.rarer_share is not None:
            rarer = max(1, round(known.rarer_share * len(scores)))
            labels = (scores >= scores.topk(rarer).values[-1]).long()
        return Guess(at=torch.arange(len(scores)), labels=labels, scores=scores)


@dataclass(frozen=True)
class CosineLabels(LabelAttack):
    """Rows whose gradients point where those of a row with a known label do have its label."""

    word: ClassVar[str] = "cosine"
    needs: ClassVar[str] = "gradients, and the labels of a few of their rows"
    source: ClassVar[str] = "Li, Sun et al. 2022, section 3.2"

    def misfit(self, seen: Transcript, known: Knowledge) -> str | None:
        """Return why not: no gradients, or no label is known."""
        return super().misfit(seen, known) or _hintless(known)

    def guess(self, seen: Transcript, known: Knowledge, seed: int, on_progress: OnProgress = None) -> Guess:
        """Return the label of the nearest known gradient, and as scores how much nearer the rarer class's is."""
        self._refuse(seen, known)
        unit = F.normalize(_gradients(seen), dim=1)
        hints, classes = known.tensor("hints"), known.tensor("hint_labels").reshape(-1)
        near = unit @ unit[hints].T
        names = torch.unique(classes)
        best = torch.stack([near[:, classes == name].max(dim=1).values for name in names], dim=1)
        scores = None
        if len(names) == 2:
            scores = best[:, 1] - best[:, 0]
        elif len(names) == 1:  # a few positives are known, as in the paper, and nothing else
            return Guess(at=torch.arange(len(unit)), scores=best[:, 0])
        return Guess(at=torch.arange(len(unit)), labels=names[best.argmax(dim=1)], scores=scores)


@dataclass(frozen=True)
class GradientClusters(LabelAttack):
    """Groups of gradients that point the same way, one for each class; known labels name them."""

    word: ClassVar[str] = "gradient-clusters"
    needs: ClassVar[str] = "gradients, the number of classes; the labels of a few rows, to name the groups"
    source: ClassVar[str] = "Fu et al. 2022; k-means"

    def misfit(self, seen: Transcript, known: Knowledge) -> str | None:
        """Return why not: nothing of the kind was seen, or no number of classes is known."""
        few = None if known.classes >= 2 else "the number of classes is not known"
        return super().misfit(seen, known) or few

    def guess(self, seen: Transcript, known: Knowledge, seed: int, on_progress: OnProgress = None) -> Guess:
        """Return each row's group, by the label that most known rows in it have."""
        self._refuse(seen, known)
        rows = F.normalize(self._rows(seen), dim=1)
        means = KMeans(known.classes, n_init=4, random_state=stream(seed, "audit", self.word) % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than classes
            groups = torch.from_numpy(means.fit_predict(rows.numpy())).long()
        labels, note = _named(groups, known)
        return Guess(at=torch.arange(len(rows)), labels=labels, note=note)

    def _rows(self, seen: Transcript) -> Tensor:
        return _gradients(seen)


@dataclass(frozen=True)
class ActivationClusters(GradientClusters):
    """Groups of activations that point the same way, one for each class; known labels name them."""

    word: ClassVar[str] = "activation-clusters"
    sees: ClassVar[str] = "activation"
    adversary: ClassVar[str] = "any party that sends or receives activations and has no labels"
    needs: ClassVar[str] = "activations, the number of classes; the labels of a few rows, to name the groups"

    def _rows(self, seen: Transcript) -> Tensor:
        return seen.rows("activation", training=True).flatten(1).float()


@dataclass(frozen=True)
class Completion(LabelAttack):
    """The model completed: a head of one's own on the activations, trained on a few rows whose label is known.

    Attributes:
        steps: Batches that the head learns from, before and after it has taught itself.
        lr: Adam's step size.
        taught: Share of the other rows, those it is surest of, whose labels it then takes for known.
    """

    word: ClassVar[str] = "completion"
    sees: ClassVar[str] = "activation"
    adversary: ClassVar[str] = "any party that sends or receives activations and has no labels"
    needs: ClassVar[str] = "activations, and the labels of a few of their rows"
    source: ClassVar[str] = "Fu et al. 2022, passive model completion; self-training in place of MixMatch"
    steps: int = 300
    lr: float = 1e-3
    taught: float = 0.5

    def __post_init__(self) -> None:
        self._check_whole("steps")
        self._check_positive("lr")
        self._check("taught", 0 <= self.taught <= 1, "0 to 1")

    def misfit(self, seen: Transcript, known: Knowledge) -> str | None:
        """Return why not: no activations, or no label is known."""
        return super().misfit(seen, known) or _hintless(known)

    def guess(self, seen: Transcript, known: Knowledge, seed: int, on_progress: OnProgress = None) -> Guess:
        """Return what the head makes of all rows."""
        self._refuse(seen, known)
        z = seen.rows("activation", training=True).float()
        z = (z - z.mean(0)) / z.std(0).clamp_min(1e-6)
        hints, names = known.tensor("hints"), known.tensor("hint_labels").reshape(-1).long()
        classes = max(known.classes, int(names.max()) + 1)
        with seeded(seed, self.word):
            head = classifier(z.shape[1:], classes)
            fit(head, z[hints], names, F.cross_entropy, steps=self.steps, lr=self.lr)
            if taken := math.floor(self.taught * len(z)):
                sure, labels = applied(head, z).softmax(1).max(dim=1)
                labels[hints], sure[hints] = names, 1.0
                surest = sure.topk(max(taken, len(hints))).indices
                fit(head, z[surest], labels[surest], F.cross_entropy, steps=self.steps, lr=self.lr)
        chances = applied(head, z).softmax(1)
        scores = chances[:, 1] if classes == 2 else None
        return Guess(at=torch.arange(len(z)), labels=chances.argmax(1), scores=scores)


def _by_batch(seen: Transcript) -> list[Tensor]:
    """Return the gradients of each batch seen in training [B, D], as of a loss that is summed over its rows."""
    sights = seen.sights("gradient", training=True)
    stacked(sights, seen.party, "gradient")  # of one tensor, or it says which there are
    return [s.rows.flatten(1).float() * len(s.rows) for s in sights]


def _gradients(seen: Transcript) -> Tensor:
    """Return them all [N, D]."""
    return torch.cat(_by_batch(seen))


def _hintless(known: Knowledge) -> str | None:
    there = known.hints is not None and known.hint_labels is not None and len(known.hints)
    return None if there else "it knows no row's label"


def _named(groups: Tensor, known: Knowledge) -> tuple[Tensor, str]:
    """Return groups [N] by the label of most known rows in each; those without any by the commonest of all."""
    if _hintless(known):
        if known.classes == 2 and known.rarer_share is not None:
            counts = torch.bincount(groups, minlength=2)
            return (groups == counts.argmin()).long(), "the smaller group is taken for the rarer class"
        return groups, "groups without names: no label is known"
    hints, names = known.tensor("hints"), known.tensor("hint_labels").reshape(-1).long()
    labels = torch.full_like(groups, known.blind_label())
    for group in torch.unique(groups[hints]):
        labels[groups == group] = names[groups[hints] == group].mode().values
    return labels, f"groups named by {len(hints)} known rows"
