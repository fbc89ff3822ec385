"""Metrics over the rows of several label holders, from sums that each of them works out over its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

__all__ = ["PARTS", "Figures", "Measurement", "Sums", "fits", "merged", "only_averaged"]

Sums = Mapping[str, Sequence[Sequence[float]]]
"""Sums by metric: lists of equal length, with one number for each class or column, or one in all."""

Lists = Sequence[Sequence[float]]

PARTS = {
    "loss": ("total", "weight"),
    "accuracy": ("right", "labels"),
    "f1": ("true positives", "false positives", "false negatives"),
    "mae": ("absolute errors", "numbers"),
    "rmse": ("rows", "squared errors"),
    "r2": ("rows", "squared errors", "mean of labels", "squared deviations of labels"),
}
"""What the lists of each metric's sums hold."""


class Figures(dict[str, float]):
    """Metrics by name, with the sums from which those of several parties can be merged."""

    def __init__(self, metrics: Mapping[str, float], sums: Sums) -> None:
        super().__init__(metrics)
        self.sums = sums


class Measurement(Protocol):
    """What one party measured."""

    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def metrics(self) -> Mapping[str, float]: ...  # noqa: D102
    @property
    def sums(self) -> Sums: ...  # noqa: D102


def fits(sums: Sums) -> bool:
    """Return whether the sums have the lists that their metrics need; those of unknown metrics may be anything."""
    return all(
        len(lists) == len(PARTS[name]) and len(set(map(len, lists))) == 1 and len(lists[0]) > 0
        for name, lists in sums.items()
        if name in PARTS
    )


def merged(group: Sequence[Measurement]) -> dict[str, float]:
    """Return the metrics over all rows of ``group`` together.

    Those of one party are as it measured them. Those of several come from their sums; where somebody has none
    (there are none for AUC), they are means over the parties that know the metric, weighted by their rows.
    """
    if len(group) == 1:
        return dict(group[0].metrics)
    found = {}
    for name in _names(group):
        value = _from_sums(name, group) if _mergeable(name, group) else _mean(name, group)
        if value is not None:
            found[name] = value
    return found


def only_averaged(group: Sequence[Measurement]) -> list[str]:
    """Return which metrics of :func:`merged` are means weighted by rows, not the values over all rows together."""
    return [name for name in _names(group) if len(group) > 1 and not _mergeable(name, group)]


def _names(group: Sequence[Measurement]) -> list[str]:
    return list(dict.fromkeys(name for e in group for name in (*e.metrics, *e.sums)))


def _mergeable(name: str, group: Sequence[Measurement]) -> bool:
    return name in _MERGED and all(name in e.sums or not e.rows for e in group)


def _mean(name: str, group: Sequence[Measurement]) -> float | None:
    knowing = [e for e in group if name in e.metrics]
    rows = sum(e.rows for e in knowing)
    return sum(e.metrics[name] * e.rows for e in knowing) / rows if rows else None


def _from_sums(name: str, group: Sequence[Measurement]) -> float | None:
    sums = [e.sums[name] for e in group if name in e.sums]
    columns = max(len(lists[0]) for lists in sums)
    wide = [[[*part, *[0.0] * (columns - len(part))] for part in lists] for lists in sums]
    by_column = [[[part[c] for part in lists] for lists in wide] for c in range(columns)]
    try:
        value = _MERGED[name](by_column)
    except (ArithmeticError, ValueError):  # sums that nobody can have measured: a damaged log
        return None
    return value if value is not None and math.isfinite(value) else None


# One formula a metric: from columns (or classes), each a list with one set of sums a party


def _ratio(columns: Sequence[Lists]) -> float | None:
    total, weight = map(math.fsum, zip(*columns[0], strict=True))
    return total / weight if weight else None


def _f1(columns: Sequence[Lists]) -> float:
    """Return the mean F1 over the classes that occur, in labels or predictions."""
    each = []
    for parties in columns:
        hits, false, missed = (sum(part) for part in zip(*parties, strict=True))
        if hits + false + missed:
            each.append(2 * hits / (2 * hits + false + missed))
    return math.fsum(each) / len(each) if each else 0.0


def _rmse(columns: Sequence[Lists]) -> float | None:
    each = []
    for parties in columns:
        rows, squares = map(math.fsum, zip(*parties, strict=True))
        if rows <= 0 or squares < 0:
            return None
        each.append(math.sqrt(squares / rows))
    return math.fsum(each) / len(each)


def _r2(columns: Sequence[Lists]) -> float | None:
    """Return the mean over columns of 1 - squared errors / squared deviations; a constant label has 0, or 1 if hit."""
    each = []
    for parties in columns:
        rows, errors = math.fsum(p[0] for p in parties), math.fsum(p[1] for p in parties)
        if rows < 2:
            return None
        mean = math.fsum(p[0] * p[2] for p in parties) / rows
        spread = math.fsum(p[3] + p[0] * (p[2] - mean) ** 2 for p in parties)
        each.append(1 - errors / spread if spread else float(not errors))
    return math.fsum(each) / len(each)


_MERGED: dict[str, Callable[[Sequence[Lists]], float | None]] = {
    "loss": _ratio, "accuracy": _ratio, "f1": _f1, "mae": _ratio, "rmse": _rmse, "r2": _r2,
}  # fmt: skip
