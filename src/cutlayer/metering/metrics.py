"""Metrics over all samples of a split, by scikit-learn, at the party that holds the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import StudyError, nearest
from ..graph.parts import Loss, TensorSpec
from .merging import Figures

__all__ = ["METRICS", "measure", "task_of"]

Task = Literal["binary", "multiclass", "regression"]

METRICS: dict[Task, tuple[str, ...]] = {
    "binary": ("loss", "accuracy", "auc", "f1"),
    "multiclass": ("loss", "accuracy", "auc", "f1"),
    "regression": ("loss", "mae", "rmse", "r2"),
}
KNOWN = tuple(dict.fromkeys(name for names in METRICS.values() for name in names))
HIGHER_IS_BETTER = {"accuracy", "auc", "f1", "r2"}

MOST_COLUMNS = 256
"""Above so many columns there are no sums by column: they would swell the log."""

_YES_OR_NO = nn.BCEWithLogitsLoss | nn.BCELoss
_CLASSES = nn.CrossEntropyLoss | nn.NLLLoss
_NUMBERS = nn.MSELoss | nn.L1Loss | nn.SmoothL1Loss | nn.HuberLoss


def task_of(loss: Loss, prediction: Tensor, label: Tensor) -> Task:
    """Return what kind of task a loss trains: by the loss, and for losses of one's own by shape and dtype.

    Whole-number labels against several outputs are classes; anything else is a regression.
    """
    if isinstance(loss.function, _YES_OR_NO):
        return "binary"
    several = prediction.ndim >= 2 and prediction.shape[1] > 1 and not label.is_floating_point()
    if isinstance(loss.function, _CLASSES) or (several and not isinstance(loss.function, _NUMBERS)):
        return "binary" if prediction.ndim == 2 and prediction.shape[1] == 2 else "multiclass"
    return "regression"


def measure(loss: Loss, prediction: Tensor, label: Tensor, names: Sequence[str] = ()) -> Figures:
    """Return the metrics ``names`` (or all that fit the task) of ``prediction`` [N, ...] against ``label`` [N, ...].

    AUC of several classes is the mean over classes, each against the rest; F1 of several classes the
    mean over classes. A metric that these labels cannot define (AUC where only one class occurs) is left out.
    With them come the sums from which the metrics of several label holders are merged (:mod:`.merging`).

    Raises:
        StudyError: A metric that does not fit the task.
    """
    task = task_of(loss, prediction, label)
    if loss.reconstructs and names:  # they are asked for of the losses that have labels
        names = [name for name in names if name in METRICS[task]] or ["loss"]
    for name in names:
        if name not in METRICS[task]:
            raise StudyError(f"metric {name!r} does not fit a {task} task", todo=nearest(name, METRICS[task]))
    found: dict[str, float] = {"loss": _loss(loss, prediction, label)}
    sums: dict[str, list[list[float]]] = {}
    if math.isfinite(found["loss"]) and (weight := _weight(loss, label)):
        sums["loss"] = [[found["loss"] * weight], [weight]]
    truth = label.detach().cpu().numpy()
    if set(names) == {"loss"}:
        pass  # the others take a hundred times as long
    elif task == "regression":
        _regression(prediction.detach().double().cpu().numpy().reshape(truth.shape), truth, found, sums)
    else:
        _classification(loss, task, prediction.detach().double().cpu(), truth, found, sums)
    asked = names or METRICS[task]
    return Figures(
        {name: found[name] for name in asked if name in found and math.isfinite(found[name])},
        {name: sums[name] for name in asked if name in sums},
    )


def _loss(loss: Loss, prediction: Tensor, label: Tensor) -> float:
    try:
        with torch.no_grad():
            return float(loss.compute(prediction, label))
    except Exception as error:
        raise StudyError(
            f"loss {loss.name!r} cannot be measured: {error}",
            got=f"predictions {TensorSpec.of(prediction)}, labels {TensorSpec.of(label)}",
            todo="labels must be 0 … classes-1; check them and the outputs of the last layer",
        ) from error


def _weight(loss: Loss, label: Tensor) -> float:
    """Return what the loss's mean is divided by: rows, or for classes the weights of the labels that count."""
    function = loss.function
    if getattr(function, "reduction", "mean") != "mean":
        return 0.0
    if not isinstance(function, _CLASSES) or label.is_floating_point():
        return float(len(label))
    counted = label[label != function.ignore_index]
    if function.weight is None:
        return float(counted.numel())
    return float(function.weight.detach().double()[counted].sum())


def _regression(
    guess: np.ndarray, truth: np.ndarray, found: dict[str, float], sums: dict[str, list[list[float]]]
) -> None:
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    truth, guess = truth.reshape(len(truth), -1), guess.reshape(len(truth), -1)
    found["mae"] = float(mean_absolute_error(truth, guess))
    found["rmse"] = float(root_mean_squared_error(truth, guess))
    if len(truth) > 1:
        found["r2"] = float(r2_score(truth, guess))
    label = truth.astype(np.float64)
    off, rows = guess - label, [float(len(truth))] * truth.shape[1]
    sums["mae"] = [[float(np.abs(off).sum())], [float(off.size)]]
    if 0 < len(rows) <= MOST_COLUMNS:
        squares, mean = np.square(off).sum(axis=0).tolist(), label.mean(axis=0)
        sums["rmse"] = [rows, squares]
        sums["r2"] = [rows, squares, mean.tolist(), np.square(label - mean).sum(axis=0).tolist()]


def _classification(
    loss: Loss,
    task: Task,
    prediction: Tensor,
    truth: np.ndarray,
    found: dict[str, float],
    sums: dict[str, list[list[float]]],
) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    plain = truth.ndim == 1  # pixels have no AUC: there are too many to sort
    if isinstance(loss.function, _YES_OR_NO):
        threshold = 0.0 if isinstance(loss.function, nn.BCEWithLogitsLoss) else 0.5
        score = prediction.reshape(-1).numpy()
        guess, truth = (score > threshold).astype(np.int64), truth.reshape(-1).astype(np.int64)
    else:
        prediction, truth = _by_class(loss, prediction, truth)
        chance = prediction.exp() if isinstance(loss.function, nn.NLLLoss) else prediction.softmax(dim=1)
        score = (chance[:, 1] if task == "binary" else chance).numpy()
        guess = prediction.argmax(dim=1).numpy()
    average = "binary" if task == "binary" else "macro"
    found["accuracy"] = float(accuracy_score(truth, guess))
    found["f1"] = float(f1_score(truth, guess, average=average, zero_division=0.0))
    sums["accuracy"] = [[float((guess == truth).sum())], [float(len(truth))]]
    if not len(truth) or truth.min() >= 0:
        sums["f1"] = _counts(task, guess, truth)
    auc = _auc(task, score, truth) if plain else None
    if auc is not None:
        found["auc"] = auc


def _counts(task: Task, guess: np.ndarray, truth: np.ndarray) -> list[list[float]]:
    """Return true positives, false positives and false negatives by class; of two classes, those of class 1."""
    classes = max(2, int(max(guess.max(initial=0), truth.max(initial=0))) + 1)
    hits, guessed, there = (np.bincount(x, minlength=classes) for x in (truth[guess == truth], guess, truth))
    chosen = slice(1, 2) if task == "binary" else slice(None)
    return [x[chosen].astype(float).tolist() for x in (hits, guessed - hits, there - hits)]


def _by_class(loss: Loss, prediction: Tensor, truth: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Return predictions [M, classes] and classes [M], without what the loss ignores; pixels count one by one."""
    if truth.shape == tuple(prediction.shape) and truth.dtype.kind == "f":  # a chance for each class
        truth = truth.argmax(axis=1)
    rows, classes = prediction.movedim(1, -1).reshape(-1, prediction.shape[1]), truth.reshape(-1)
    counts = classes != getattr(loss.function, "ignore_index", -100)
    return rows[torch.from_numpy(counts)], classes[counts]


def _auc(task: Task, score: np.ndarray, truth: np.ndarray) -> float | None:
    from sklearn.metrics import roc_auc_score

    classes = np.unique(truth)
    if task == "binary":
        return float(roc_auc_score(truth, score)) if len(classes) == 2 else None
    if score.ndim != 2 or len(classes) < 2:
        return None
    # One class against the rest, over the classes that occur: others have no AUC.
    each = [roc_auc_score(truth == c, score[:, int(c)]) for c in classes if 0 <= c < score.shape[1]]
    return float(np.mean(each))
