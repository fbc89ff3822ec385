"""Marvell: the least Gaussian noise on returned gradients with which two classes cannot be told apart well.

Li, Sun et al. 2022, "Label leakage and protection in two-party split learning" (ICLR; arXiv 2102.08504), section 4.
The gradients of class 0 are taken as normal with mean m_0 and variance u in each of d directions, those of class 1 with
m_1 and v. Noise of covariance ``l1 e e^T + l2 (I - e e^T)``, e along the gap m_1 - m_0, each class its own, gives::

    a_i = l_i(0) + u,  b_i = l_i(1) + v,  D = |m_1 - m_0|^2
    sumKL = ((d - 1) (a_2 / b_2 + b_2 / a_2) + (a_1 + D) / b_1 + (b_1 + D) / a_1) / 2 - d

    detection error >= 1/2 - sqrt(sumKL) / 4        AUC <= 1/2 + sqrt(sumKL) / 2 - sumKL / 8        (theorem 1)

The paper minimises sumKL for a power P of the noise, ``(1 - p) tr S_0 + p tr S_1 <= P``, and raises P until sumKL is
low enough. The P where that ends is found here at once, by minimising ``power + price * sumKL`` for the price at which
sumKL is what it may be. In logarithms of a and b all of that is convex, so what is found is the best. It falls apart
into directions across the gap, with a closed form, and the one along it, with one for a given b. That l2 <= l1, which
the paper asks for, comes out by itself: along the gap there is more to gain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import StudyError
from .base import Defence, Moment, Place
from .leaks import classes_of
from .max_norm import at_label_holder, tell_noise, with_max_norm

__all__ = ["Classes", "Marvell", "Variances", "least_noise", "sum_of_divergences"]

_HALVINGS = 36
"""Of an interval of logarithms, at most 35 wide: to nine digits."""


@dataclass(frozen=True, kw_only=True)
class Classes:
    """What a batch's gradients are like, by class.

    Attributes:
        share: Of rows in class 1, between 0 and 1.
        first: Variance of class 0 in each direction.
        second: Variance of class 1.
        gap: Squared distance between the classes' means.
        width: Directions, d.
    """

    share: float
    first: float
    second: float
    gap: float
    width: int


@dataclass(frozen=True, kw_only=True)
class Variances:
    """Variances of the noise on each class: along the gap between the classes, and in each direction across."""

    first_along: float
    first_across: float
    second_along: float
    second_across: float

    def power(self, of: Classes) -> float:
        """Return the mean squared norm of the noise over the rows."""
        first = self.first_along + (of.width - 1) * self.first_across
        second = self.second_along + (of.width - 1) * self.second_across
        return (1 - of.share) * first + of.share * second


@dataclass(frozen=True, kw_only=True)
class Marvell(Defence):
    """Add the least noise with which nobody detects a row's class with a smaller ``error``, in each batch anew.

    A batch whose rows are all of one class has no gap to hide; its gradients get `MaxNorm`'s noise.

    Attributes:
        error: The mean of the rates of false positives and of false negatives that stays for every detector; 0.5 is
            a guess. With 0.4 no detector has an AUC above 0.68, with 0.45 none above 0.595.
    """

    word: ClassVar[str] = "marvell"
    protects: ClassVar[str] = (
        "labels of two classes, as far as one batch's gradients tell them and up to the stated error,"
    )
    against: ClassVar[str] = "the party that receives the gradients and has no labels"
    leaves: ClassVar[str] = (
        "labels from attacks that compare many steps or the gradients of several parties, nor from what the "
        "trained half of the network knows of them; its bound holds as far as gradients of a class are "
        "normal and spread alike in all directions"
    )
    error: float = 0.4

    def __post_init__(self) -> None:
        self._check_share("error", below=0.5)

    def misfit(self, place: Place) -> str | None:
        """Return why not: the labels must be where the gradient is sent."""
        return at_label_holder(place)

    def returning(self, gradient: Tensor, moment: Moment) -> Tensor:
        """Return the gradient [B, ...] with noise.

        Raises:
            StudyError: The labels are not of two classes, or not one a row.
        """
        second = _second_class(gradient, moment)
        rows = gradient.detach().flatten(1).double()
        if bool(second.all()) or not bool(second.any()):
            moment.facts.count("batches of one class")
            noisy = with_max_norm(gradient, moment.noise)
        else:
            between, classes = _classes(rows, second)
            found = least_noise(classes, (2 - 4 * self.error) ** 2)
            moment.facts.add("sum of divergences", sum_of_divergences(classes, found))
            drawn = _noise(found, between, second, moment.noise.normal(rows))
            noisy = gradient + drawn.to(gradient.dtype).reshape(gradient.shape)
        tell_noise(gradient, noisy, moment)
        return noisy


def sum_of_divergences(of: Classes, noise: Variances) -> float:
    """Return KL(class 0 | class 1) + KL(class 1 | class 0) of noisy gradients (theorem 2)."""
    a1, a2 = noise.first_along + of.first, noise.first_across + of.first
    b1, b2 = noise.second_along + of.second, noise.second_across + of.second
    across = _ratio(a2, b2) + _ratio(b2, a2) - 2
    along = _ratio(a1 + of.gap, b1) + _ratio(b1 + of.gap, a1) - 2
    return ((of.width - 1) * across + along) / 2


def least_noise(of: Classes, most: float) -> Variances:
    """Return the noise of least power with which the sum of divergences is at most ``most``."""
    none = Variances(first_along=0.0, first_across=0.0, second_along=0.0, second_across=0.0)
    unit = max(of.first, of.second, of.gap)
    if unit == 0 or sum_of_divergences(of, none) <= most:
        return none

    def enough(log_price: float) -> bool:
        return sum_of_divergences(of, _at_price(of, unit * math.exp(log_price))) <= most

    low, high = 0.0, 0.0
    while not enough(high):
        low, high = high, high + 4.0
    while low == high or enough(low):
        low, high = low - 4.0, low
    return _at_price(of, unit * math.exp(_turn(enough, low, high)))


def _at_price(of: Classes, price: float) -> Variances:
    """Return the variances that minimise power + ``price`` * sum of divergences."""
    a2, b2 = of.first, of.second
    if a2 < b2:
        a2 = max(a2, b2 / math.sqrt(1 + 2 * (1 - of.share) * b2 / price))
    elif b2 < a2:
        b2 = max(b2, a2 / math.sqrt(1 + 2 * of.share * a2 / price))
    a1, b1 = _along(of, price)
    return Variances(
        first_along=a1 - of.first,
        first_across=a2 - of.first,
        second_along=b1 - of.second,
        second_across=b2 - of.second,
    )


def _along(of: Classes, price: float) -> tuple[float, float]:
    """Return the variances of both classes along the gap, noise included: where the slope for b turns positive."""
    first, second = 2 * (1 - of.share) / price, 2 * of.share / price
    least = min(first, second)
    most = max(of.first, of.second, (1 + math.sqrt(1 + 4 * least * of.gap)) / (2 * least))

    def best(b: float) -> float:
        return max(of.first, math.sqrt((b + of.gap) / (first + 1 / b)))

    def rises(log_b: float) -> bool:
        b = math.exp(log_b)
        a = best(b)
        return second + 1 / a - (a + of.gap) / b**2 >= 0

    low, high = math.log(max(of.second, 1e-15 * most)), math.log(most)
    b = max(of.second, math.exp(low if rises(low) else _turn(rises, low, high)))
    return best(b), b


def _turn(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return the least number between ``low`` and ``high`` from which on something holds, by bisection."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _second_class(gradient: Tensor, moment: Moment) -> Tensor:
    """Return which rows are of the second of two classes [B], bool."""
    labels = moment.labels
    classes = None if labels is None else classes_of(labels)
    if labels is None or classes is None or len(classes) != len(gradient) or int(classes.max()) > 1:
        raise StudyError(
            "marvell hides which of two classes a row has",
            party=moment.party,
            cut=moment.cut,
            step=moment.step,
            got="no labels"
            if labels is None
            else f"labels {list(labels.shape)}, e.g. {labels.flatten()[:3].tolist()}",
            expected=f"a label for each of {len(gradient)} rows, of two classes",
            todo="take 'max-norm', which needs no labels",
        )
    return classes.to(gradient.device) == 1


def _classes(rows: Tensor, second: Tensor) -> tuple[Tensor, Classes]:
    """Return the unit vector [D] between the classes' means, and what the classes of ``rows`` [B, D] are like."""
    means, variances = [], []
    for group in (rows[~second], rows[second]):
        means.append(group.mean(0))
        variances.append(float((group - means[-1]).square().mean()))
    between = means[1] - means[0]
    gap = float(between.square().sum())
    share = float(second.double().mean())
    classes = Classes(share=share, first=variances[0], second=variances[1], gap=gap, width=rows.shape[1])
    return between / max(math.sqrt(gap), 1e-300), classes


def _noise(by: Variances, between: Tensor, second: Tensor, normal: Tensor) -> Tensor:
    """Return noise [B, D] of the variances ``by`` class, made of standard ``normal`` numbers [B, D]."""
    along = torch.where(second, math.sqrt(by.second_along), math.sqrt(by.first_along))[:, None]
    across = torch.where(second, math.sqrt(by.second_across), math.sqrt(by.first_across))[:, None]
    part = (normal @ between)[:, None] * between
    return across * (normal - part) + along * part


def _ratio(upper: float, lower: float) -> float:
    """Return ``upper / lower``; 1 of nothing to nothing: both classes are the same there."""
    if lower == 0:
        return 1.0 if upper == 0 else math.inf
    return upper / lower
