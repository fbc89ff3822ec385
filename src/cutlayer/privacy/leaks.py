"""What gradients at a cut tell of labels: leak AUC by norm and by cosine.

Li, Sun et al. 2022, "Label leakage and protection in two-party split learning" (ICLR; arXiv 2102.08504): with few,
uneven classes, the norm and the direction of a row's gradient give its label away.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .facts import Facts

__all__ = ["area_under_curve", "cosine_leak", "measure_leaks", "norm_leak"]

_MOST_CLASSES = 100
_MOST_ROWS, _MOST_PAIRED = 256, 64


def measure_leaks(gradient: Tensor, labels: Tensor, facts: Facts) -> None:
    """Note what the gradients [B, ...] of one batch tell of its labels [B], if those are classes."""
    classes = classes_of(labels[:_MOST_ROWS])
    facts.count("batches")
    if classes is None or len(classes) != min(len(gradient), _MOST_ROWS):
        return
    rows = gradient.detach()[:_MOST_ROWS].flatten(1)
    by_norm, by_cosine = norm_leak(rows, classes), cosine_leak(rows[:_MOST_PAIRED], classes[:_MOST_PAIRED])
    if by_norm is not None:
        facts.add("leak AUC by norm", by_norm)
    if by_cosine is not None:
        facts.add("leak AUC by cosine", by_cosine)


def classes_of(labels: Tensor) -> Tensor | None:
    """Return labels as classes [B], int64; None if they are numbers to predict."""
    flat = labels.detach().reshape(len(labels), -1)
    if flat.shape[1] != 1:
        return None
    column = flat[:, 0]
    if column.is_floating_point() and not torch.equal(column, column.round()):
        return None
    _, classes = torch.unique(column, return_inverse=True)
    return None if int(classes.max()) >= _MOST_CLASSES else classes


def norm_leak(gradients: Tensor, classes: Tensor) -> float | None:
    """Return the AUC with which the norms of ``gradients`` [B, D] tell the rarer of two classes [B] (section 3.1).

    None unless there are two classes. 0.5 is a guess; below 0.5 the rarer class has the smaller norms.
    """
    counts = torch.bincount(classes)
    if len(counts) != 2 or not bool((counts > 0).all()):
        return None
    return area_under_curve(gradients.norm(dim=1), classes == counts.argmin())


def cosine_leak(gradients: Tensor, classes: Tensor) -> float | None:
    """Return the AUC with which the cosine of two rows' gradients tells that they are of one class (section 3.2).

    Over all pairs of rows of ``gradients`` [B, D]; None unless some pairs are of one class and some of two.
    """
    unit = torch.nn.functional.normalize(gradients, dim=1)
    first, second = torch.triu_indices(len(unit), len(unit), 1, device=unit.device)
    return area_under_curve((unit @ unit.T)[first, second], classes[first] == classes[second])


def area_under_curve(scores: Tensor, positive: Tensor) -> float | None:
    """Return the area under the ROC curve of ``scores`` [N] for ``positive`` [N], bool; ties count half.

    None if all rows are positive or none is.
    """
    yes = int(positive.sum())
    no = len(positive) - yes
    if not yes or not no:
        return None
    others, mine = scores[~positive].sort().values, scores[positive]
    below = torch.searchsorted(others, mine).sum() + torch.searchsorted(others, mine, right=True).sum()
    return float(below) / (2 * yes * no)
