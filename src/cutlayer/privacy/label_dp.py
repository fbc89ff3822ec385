"""Label differential privacy by randomised response: the holder of labels trains on labels of which some are others.

Warner 1965, for more than two classes as in Ghazi, Golowich, Kumar, Manurangsi and Zhang 2021, "Deep learning with
label differential privacy" (NeurIPS; arXiv 2102.06062), section 3: with K classes, a label stays with probability
e^epsilon / (e^epsilon + K - 1), and is each of the others with probability 1 / (e^epsilon + K - 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import DataError
from .base import Defence, Place
from .noise import Noise

__all__ = ["LabelDP"]

_MOST_EPSILON = 50.0
_MOST_OF_FLOATS = 100
"""Classes that labels kept as floating-point numbers may have; more are numbers to predict."""


@dataclass(frozen=True, kw_only=True)
class LabelDP(Defence):
    """``label-dp:2``: training labels by randomised response, drawn once for all epochs.

    Attributes:
        epsilon: What it costs of a label's privacy; delta is 0.
        classes: How many there are, 0 to ``classes - 1``; if 0, those among the party's training labels, which then
            are no secret.
    """

    word: ClassVar[str] = "label-dp"
    protects: ClassVar[str] = "each single training label"
    against: ClassVar[str] = (
        "everyone but its holder: whoever gets gradients, predictions or weights of what was trained"
    )
    leaves: ClassVar[str] = (
        "inputs, labels of rows that are held out, what a good model says of a row's label anyway, "
        "nor which classes there are"
    )

    epsilon: float
    classes: int = 0

    def __post_init__(self) -> None:
        self._check_positive("epsilon")
        self._check("epsilon", self.epsilon <= _MOST_EPSILON, f"at most {_MOST_EPSILON:g}, e.g. 1 or 3")
        self._check_whole("classes", least=0)
        self._check("classes", self.classes != 1, "0, or at least 2")

    def misfit(self, place: Place) -> str | None:
        """Return why there is no label to change: neither end of the cut has those of the loss behind it."""
        return None if place.labels else "neither side of it has the labels of the loss that it leads to"

    def flipped(self, classes: int) -> float:
        """Return the expected share of labels that become others, with ``classes`` classes."""
        return (classes - 1) / (math.exp(self.epsilon) + classes - 1)

    def relabelled(self, labels: Tensor, noise: Noise) -> Tensor:
        """Return the labels [N] to train on.

        A label is drawn anew from all classes with a fitting probability, which is the same law; with the same draws
        it may be done twice, for two cuts, and is as if done once.

        Raises:
            DataError: The labels are no classes.
        """
        known = self._known(labels)
        count = len(known)
        anew = count / (math.exp(self.epsilon) + count - 1)
        flat = labels.reshape(-1)
        chance, which = noise.doubles(len(flat)), noise.doubles(len(flat))
        others = known[torch.from_numpy((which * count).astype("int64")).to(known.device)]
        drawn = torch.from_numpy(chance < anew).to(flat.device)
        kept: Tensor = torch.where(drawn, others, flat)
        return kept.reshape(labels.shape)

    def statement(self) -> str:
        """Return what it does; of how many labels it makes others."""
        shares = (
            f"{100 * self.flipped(self.classes):.2g} %"
            if self.classes
            else f"{100 * self.flipped(2):.2g} % with two classes, {100 * self.flipped(10):.2g} % with ten"
        )
        return f"{super().statement()} Of the training labels, {shares} are expected to be others."

    def _known(self, labels: Tensor) -> Tensor:
        """Return the classes [K], in the labels' dtype."""
        if not labels.numel() or labels.numel() != len(labels):
            raise self._no_classes(labels, f"labels of shape {tuple(labels.shape)}")
        found: Tensor = torch.unique(labels.detach())
        if labels.is_floating_point():
            if not bool((found == found.round()).all()):
                raise self._no_classes(labels, "numbers that are not whole")
            if len(found) > _MOST_OF_FLOATS:
                raise self._no_classes(labels, f"{len(found)} different numbers")
        if self.classes:
            if bool((found < 0).any()) or bool((found >= self.classes).any()):
                raise self._no_classes(labels, f"labels from {found.min():g} to {found.max():g}")
            return torch.arange(self.classes, device=labels.device).to(labels.dtype)
        return found

    def _no_classes(self, labels: Tensor, got: str) -> DataError:
        return DataError(
            f"{self} wants one class a row as labels",
            got=got,
            expected=f"classes 0 to {self.classes - 1}" if self.classes else "classes, as whole numbers [N]",
            todo="for numbers to predict, add noise before the study begins, or leave label-dp out",
        )
