"""How much of what an attack was after it got: scores that the auditor works out, who knows the truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DataError, StudyError
from ..privacy.distance import corrected_distance_correlation, distance_correlation
from ..privacy.leaks import area_under_curve
from ..seeds import generator
from .learning import applied, classifier, fit, seeded

__all__ = [
    "independent_classifier",
    "label_accuracy",
    "leak_auc",
    "mean_squared_error",
    "peak_signal_to_noise",
    "purity",
    "r_squared",
    "reached_by_chance",
    "reclassified",
    "score_inputs",
    "score_labels",
    "standardized_error",
    "structural_similarity",
]

_LEAST_ERROR = 1e-10
_MOST_PAIRS = 256
_PERMUTATIONS = 200


def score_inputs(
    guess: Tensor,
    truth: Tensor,
    *,
    low: float,
    high: float,
    labels: Tensor | None = None,
    judge: nn.Module | None = None,
) -> dict[str, float]:
    """Return all scores of reconstructed inputs [N, ...] that fit them, by name.

    Args:
        guess: What an attack believes.
        truth: What it was.
        low: The least value that an input can have; minus infinity where there is none, as for standardized columns.
        high: The greatest.
        labels: Of the rows [N], for the re-classification.
        judge: An independent classifier of inputs; see `independent_classifier`.
    """
    guess, truth = _alike(guess, truth)
    found = {"mse": mean_squared_error(guess, truth)}
    if math.isfinite(low) and math.isfinite(high):
        found["psnr_db"] = peak_signal_to_noise(guess, truth, low, high)
        if truth.dim() == 4 and min(truth.shape[2:]) >= 3:
            found["ssim"] = structural_similarity(guess, truth, low, high)
    if truth.dim() == 2:
        found["standardized_mse"] = standardized_error(guess, truth)
        found["r2"] = r_squared(guess, truth)
    if len(truth) >= 4:
        few = slice(0, _MOST_PAIRS)
        found["distance_correlation"] = float(distance_correlation(truth[few], guess[few]))
        found["distance_correlation_corrected"] = float(
            corrected_distance_correlation(truth[few], guess[few])
        )
    if labels is not None and judge is not None:
        found["reclassified_accuracy"] = reclassified(judge, guess, labels)
    return found


def score_labels(
    labels: Tensor | None, scores: Tensor | None, truth: Tensor, positive: int | None = None
) -> dict[str, float]:
    """Return the scores of guessed labels [N], and of numbers that should tell the rarer class or members [N].

    Args:
        labels: What an attack believes; its numbers are those of the truth.
        scores: The more, the likelier the rarer of two classes.
        truth: What they are [N].
        positive: The class that the scores should tell, e.g. 1 for members; without, the rarer.
    """
    found = {}
    if labels is not None:
        found["label_accuracy"] = label_accuracy(labels, truth)
        found["balanced_accuracy"] = _balanced(labels, truth)
        found["purity"] = purity(labels, truth)
    auc = leak_auc(scores, truth, positive) if scores is not None else None
    if auc is not None:
        found["leak_auc"] = auc
    return found


def reached_by_chance(
    labels: Tensor | None, scores: Tensor | None, truth: Tensor, positive: int | None = None, *, seed: int
) -> dict[str, float]:
    """Return what the same guesses score at most, 19 times of 20, where they have nothing to do with the rows.

    A permutation test: the scores of `score_labels` for the truth in `_PERMUTATIONS` random orders, and the value that
    95 % of them do not exceed. Few rows, or a rare class, are told by luck further than many.

    Args:
        labels: What an attack believes [N].
        scores: The more, the likelier the rarer of two classes [N].
        truth: What they are [N].
        positive: The class that the scores should tell; without, the rarer.
        seed: Of the orders.
    """
    chance, by_measure = generator(seed, "audit", "by chance"), dict[str, list[float]]()
    for _ in range(_PERMUTATIONS):
        order = torch.from_numpy(chance.permutation(len(truth)))
        for name, value in score_labels(labels, scores, truth[order], positive).items():
            by_measure.setdefault(name, []).append(value)
    return {name: float(np.quantile(values, 0.95)) for name, values in by_measure.items()}


def mean_squared_error(guess: Tensor, truth: Tensor) -> float:
    """Return the mean squared difference of [N, ...], in the square of the data's own unit."""
    return float((guess - truth).double().square().mean())


def peak_signal_to_noise(guess: Tensor, truth: Tensor, low: float, high: float) -> float:
    """Return the mean PSNR of the rows of [N, ...] in dB, for data between ``low`` and ``high``; 100 where equal."""
    errors = (guess - truth).double().square().flatten(1).mean(1) / (high - low) ** 2
    return float((-10 * errors.clamp_min(_LEAST_ERROR).log10()).mean())


def structural_similarity(guess: Tensor, truth: Tensor, low: float, high: float) -> float:
    """Return the mean SSIM of images [N, C, H, W] between ``low`` and ``high``, 1 where they are equal.

    Wang et al. 2004 (IEEE TIP 13:4) by scikit-image, with a uniform window of 7 pixels, fewer where images are smaller,
    and the mean over channels. Images are brought to 0 … 1 before: what is compared depends on where black is.

    Raises:
        StudyError: scikit-image is not installed.
    """
    try:
        from skimage import metrics
    except ImportError as error:
        raise StudyError(
            "SSIM is worked out by scikit-image, which is not installed",
            todo="pip install 'cutlayer[audit]'",
        ) from error
    ssim: Callable[..., float] = metrics.structural_similarity
    side = min(7, *truth.shape[2:])
    window = side if side % 2 else side - 1
    unit = [((rows.double() - low) / (high - low)).numpy() for rows in (guess, truth)]
    values = [ssim(a, b, win_size=window, data_range=1.0, channel_axis=0) for a, b in zip(*unit, strict=True)]
    return float(np.mean(values))


def standardized_error(guess: Tensor, truth: Tensor) -> float:
    """Return the mean squared error of columns [N, D] in units of their variance; who says the means has 1."""
    return 1.0 - r_squared(guess, truth)


def r_squared(guess: Tensor, truth: Tensor) -> float:
    """Return the coefficient of determination of columns [N, D], each weighted by its variance; 0 if none varies.

    So columns that hardly vary, as the corners of images do, do not drown the others, and constant ones do not count.
    """
    truth, guess = truth.double(), guess.double()
    spread = (truth - truth.mean(0)).square().sum(0)
    error = (guess - truth).square().sum(0)[spread > 0]
    return 1 - float(error.sum() / spread.sum()) if len(error) else 0.0


def independent_classifier(x: Tensor, y: Tensor, classes: int, seed: int, steps: int = 600) -> nn.Module:
    """Return a classifier of inputs [N, ...] trained on the auditor's own rows, to judge reconstructions."""
    with seeded(seed, "judge"):
        return fit(classifier(x.shape[1:], classes), x, y, F.cross_entropy, steps=steps)


def reclassified(judge: nn.Module | Callable[[Tensor], Tensor], guess: Tensor, labels: Tensor) -> float:
    """Return the share of reconstructions [N, ...] in which ``judge`` finds the class of the original [N]."""
    module = judge if isinstance(judge, nn.Module) else _Called(judge)
    return label_accuracy(applied(module, guess).argmax(1), labels)


def label_accuracy(labels: Tensor, truth: Tensor) -> float:
    """Return the share of labels [N] that are right; of an attribute as well."""
    labels, truth = _alike(labels.reshape(-1), truth.reshape(-1))
    return float((labels == truth).double().mean())


def purity(labels: Tensor, truth: Tensor) -> float:
    """Return the accuracy of groups [N] that have no names yet, if each were named after its commonest class."""
    labels, truth = _alike(labels.reshape(-1), truth.reshape(-1))
    _, groups = torch.unique(labels, return_inverse=True)
    _, classes = torch.unique(truth, return_inverse=True)
    table = torch.zeros(int(groups.max()) + 1, int(classes.max()) + 1, dtype=torch.float64)
    table.index_put_((groups, classes), torch.ones(len(groups), dtype=torch.float64), accumulate=True)
    return float(table.max(1).values.sum() / len(truth))


def leak_auc(scores: Tensor, truth: Tensor, positive: int | None = None) -> float | None:
    """Return the AUC with which ``scores`` [N] tell one class [N] from the other; None unless there are two.

    It is not turned round: below 0.5 the scores are the wrong way.

    Args:
        scores: The more, the likelier.
        truth: The classes.
        positive: The class that the scores should tell; without, the rarer, or the greater of two as frequent ones.
    """
    scores, truth = _alike(scores.reshape(-1), truth.reshape(-1))
    values, classes = torch.unique(truth, return_inverse=True)
    if len(values) != 2:
        return None
    counts = torch.bincount(classes)
    rarer = values[0 if counts[0] < counts[1] else 1]
    return area_under_curve(scores, truth == (rarer if positive is None else positive))


def _balanced(labels: Tensor, truth: Tensor) -> float:
    """Return the mean over the true classes of the share of labels that are right."""
    labels, truth = labels.reshape(-1), truth.reshape(-1)
    shares = [float((labels[truth == value] == value).double().mean()) for value in torch.unique(truth)]
    return sum(shares) / len(shares)


class _Called(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)


def _alike(guess: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return both, detached.

    Raises:
        DataError: They are of different shapes, or of no rows.
    """
    if guess.shape != truth.shape or not len(truth):
        raise DataError(
            "a guess and the truth must be of the same rows",
            got=f"{list(guess.shape)} and {list(truth.shape)}",
            expected="the same shape, at least one row",
        )
    return guess.detach().cpu(), truth.detach().cpu()
