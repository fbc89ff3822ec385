"""Gradients Scrutinizer: an honest server's gradients tell labels apart; those of one who steers the client do not.

Fu et al. 2023, "Focusing on Pinocchio's nose: a gradients scrutinizer to thwart split-learning hijacking attacks using
intrinsic attributes" (NDSS, section V). It only looks, so the server cannot tell that it is there. Of each pair of rows
of a batch the cosine of their gradients at the cut is taken, mapped to 0 to 1 by (1 + cos) / 2, and the pairs of one
label are held against those of two. A pair counts by the product of both gradients' lengths: rows that are learnt
already have a gradient near 0, whose direction tells nothing. Over the last batches::

    gap         mean of pairs of one label less mean of pairs of two
    fit error   root mean square by which one parabola over time misses both means, twice that
    overlap     share of the pairs' distributions that is common to both
    score       square root of gap x fit error x (1 - overlap)

The three are the paper's; weights, how they are put together, and the threshold are of this implementation. The score
is about as large as the gap where labels decide, and near 0 where they do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import AlarmError
from .base import Defence, Moment, Place

__all__ = ["Scrutinizer", "scrutiny"]

_MOST_ROWS = 64
_BINS = 32
Look = tuple[float, float, np.ndarray, np.ndarray]
"""Of one batch: weighted mean similarity of pairs of one label and of two, and both weighted histograms [_BINS]."""


@dataclass(frozen=True)
class Scrutinizer(Defence):
    """Watches whether gradients tell labels apart, and stops when they don't.

    Attributes:
        after: How many batches go before.
        batches: The score is of so many last batches.
        below: Alarm, if the score is below.
        patience: And has been, in so many batches on end.

    Raises:
        StudyError: A setting that cannot be.
    """

    after: int = 20
    batches: int = 30
    below: float = 0.01
    patience: int = 10

    word: ClassVar[str] = "scrutinizer"
    protects: ClassVar[str] = "rows, by stopping when gradients do not tell one label from another"
    against: ClassVar[str] = (
        "a server that hijacks the training, by sending gradients that are not of the task"
    )
    leaves: ClassVar[str] = (
        "what left before the alarm, nor anything from a server that is honest but curious, or that makes up "
        "gradients which go by the labels"
    )

    def __post_init__(self) -> None:
        self._check_whole("after", least=0)
        self._check_whole("batches", least=3)
        self._check_whole("patience")
        self._check_share("below")

    def misfit(self, place: Place) -> str | None:
        """Only who has labels can hold gradients against them."""
        if not place.gradient:
            return "no gradient comes back"
        return None if place.labels == "source" else "who receives the gradients here has no labels"

    def incoming(self, gradient: Tensor, moment: Moment) -> Tensor:
        """Look at a gradient [B, ...].

        Raises:
            AlarmError: It does not tell labels apart, and has not for a while.
        """
        if moment.labels is None or not moment.training:
            return gradient
        seen = moment.recall("seen") + 1
        moment.keep("seen", seen)
        found = _look(gradient, moment.labels) if seen > self.after else None
        if found is None:
            return gradient
        looks = [*_unpacked(moment.memory.get("looks")), found][-self.batches :]
        moment.memory["looks"] = _packed(looks)
        if len(looks) == self.batches:
            self._judge(looks, moment)
        return gradient

    def _judge(self, looks: list[Look], moment: Moment) -> None:
        score = scrutiny(looks)
        moment.facts.add("score", score)
        low = moment.recall("low") + 1 if score < self.below else 0
        moment.keep("low", low)
        if low >= self.patience:
            raise AlarmError(
                "the gradients that come back do not tell one label from another: the server is not training the task",
                party=moment.party,
                cut=moment.cut,
                step=moment.step,
                got=f"a Gradients Scrutinizer score of {score:.3f} over the last {len(looks)} batches",
                expected=f"at least {self.below:g}",
                todo="send nothing more, tell the other parties, and see docs/alarms.md",
            )


def scrutiny(looks: list[Look]) -> float:
    """Return the score, 0 to 1, of batches in order."""
    same, other = (np.array([look[place] for look in looks]) for place in (0, 1))
    gap = max(0.0, float(same.mean() - other.mean()))
    time = np.linspace(-1, 1, len(looks))
    both = np.concatenate((same, other))
    curve = np.polynomial.Polynomial.fit(np.tile(time, 2), both, 2, domain=[-1, 1])
    error = 2 * float(np.sqrt(np.mean((both - curve(np.tile(time, 2))) ** 2)))
    alike, unlike = (
        np.mean([counts / counts.sum() for counts in kind], axis=0)
        for kind in list(zip(*looks, strict=True))[2:]
    )
    overlap = float(np.minimum(alike, unlike).sum())
    return float((gap * min(1.0, error) * max(0.0, 1 - overlap)) ** 0.5)


def _packed(looks: list[Look]) -> Tensor:
    """Return looks side by side [K, 2 + 2 _BINS], float64."""
    return torch.from_numpy(np.stack([np.concatenate((look[:2], *look[2:])) for look in looks]))


def _unpacked(packed: Tensor | None) -> list[Look]:
    rows = () if packed is None else packed.cpu().numpy()
    return [(float(row[0]), float(row[1]), row[2 : 2 + _BINS], row[2 + _BINS :]) for row in rows]


def _look(gradient: Tensor, labels: Tensor) -> Look | None:
    """Return what pairs of rows of one batch look like; None unless some are of one label and some of two."""
    rows = gradient.detach()[:_MOST_ROWS].flatten(1).double()
    target = labels.detach()[:_MOST_ROWS].reshape(len(rows), -1).to(rows.device)
    lengths = rows.norm(dim=1)
    rows, target, lengths = rows[lengths > 0], target[lengths > 0], lengths[lengths > 0]
    unit = rows / lengths[:, None]
    first, second = torch.triu_indices(len(unit), len(unit), 1, device=unit.device)
    alike = ((unit @ unit.T)[first, second].clamp(-1, 1) + 1) / 2
    weight = (lengths / lengths.mean())[first] * (lengths / lengths.mean())[second]
    equal = (target[first] == target[second]).all(1)
    if not bool(equal.any()) or bool(equal.all()):
        return None
    found = []
    for pairs in (equal, ~equal):
        values, weights = alike[pairs].cpu().numpy(), weight[pairs].cpu().numpy()
        found.append(
            (
                float(np.average(values, weights=weights)),
                np.histogram(values, _BINS, (0, 1), weights=weights)[0],
            )
        )
    (same, same_counts), (other, other_counts) = found
    return same, other, same_counts, other_counts
