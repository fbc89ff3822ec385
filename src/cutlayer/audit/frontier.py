"""Privacy against accuracy against bytes: a point for each setting, to choose from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LogError
from ..report.drawing import COLOURS, figure_of, plot_style
from .findings import Trained
from .verdicts import AFTER, Verdict, metric_of, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Point", "draw_frontier", "points"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One setting.

    Attributes:
        setting: Its name.
        after: What attacks were after.
        leaked: How far the best of them got from a blind guess to all there is, 0 to 1.
        attack: Which one.
        metric: Name of the task's measure.
        value: Its mean over the seeds.
        deviation: Its standard deviation.
        bytes: That crossed, the mean over the seeds.
        best: Whether no other setting is at least as good in all three and better in one.
    """

    setting: str
    after: str
    leaked: float
    attack: str
    metric: str
    value: float
    deviation: float
    bytes: float
    best: bool = False


def points(trained: Sequence[Trained], found: Sequence[Verdict]) -> list[Point]:
    """Return a point for each setting and each thing that attacks were after."""
    metric = metric_of(trained)
    made = []
    for after in dict.fromkeys(verdict.after for verdict in found):
        own = []
        for setting in dict.fromkeys(one.setting for one in trained):
            tried = [v for v in found if (v.setting, v.after) == (setting, after)]
            runs = [one for one in trained if one.setting == setting and metric in one.metrics]
            if not tried or not runs:
                continue
            best = max(tried, key=lambda verdict: verdict.share)
            value, deviation = spread([one.metrics[metric] for one in runs])
            size, _ = spread([float(one.bytes) for one in runs])
            own.append(
                Point(
                    setting=setting, after=after, leaked=best.share, attack=best.attack, metric=metric,
                    value=value, deviation=deviation, bytes=size,
                )
            )  # fmt: skip
        made += [_marked(point, own) for point in own]
    return made


def draw_frontier(found: Sequence[Point], folder: Path) -> Path | None:
    """Write ``frontier.svg``, ``.png`` and ``.json``; return the first; None where there is nothing to choose from.

    Raises:
        LogError: The folder cannot be written.
    """
    afters = [a for a in AFTER if sum(point.after == a for point in found) > 1]
    if not afters:
        return None
    with plot_style():
        figure, axes = figure_of(5.4 * len(afters), 4.4, len(afters))
        for axis, after in zip(axes, afters, strict=True):
            _scatter(axis, [point for point in found if point.after == after])
        path = folder / "frontier.svg"
        try:
            figure.savefig(path, metadata={"Date": None})
            figure.savefig(path.with_suffix(".png"), dpi=160, metadata={"Software": "cutlayer"})
            path.with_suffix(".json").write_text(
                json.dumps([asdict(point) for point in found], indent=1) + "\n"
            )
        except OSError as error:
            raise LogError(f"cannot write {path}: {error.strerror}", todo="make room on the disk") from error
    return path


def _marked(point: Point, all_: Sequence[Point]) -> Point:
    sign = -1.0 if point.metric == "loss" else 1.0

    def beats(other: Point) -> bool:
        good = (
            other.leaked <= point.leaked,
            sign * other.value >= sign * point.value,
            other.bytes <= point.bytes,
        )
        return all(good) and (other.leaked, other.value, other.bytes) != (
            point.leaked,
            point.value,
            point.bytes,
        )

    return Point(**{**asdict(point), "best": not any(beats(other) for other in all_)})


def _scatter(axis: Axes, found: Sequence[Point]) -> None:
    most = max(point.bytes for point in found)
    for point in found:
        axis.errorbar(
            point.leaked, point.value, yerr=point.deviation or None, color="#8a939a", elinewidth=1, capsize=2
        )
        colour = COLOURS[0] if point.best else "#b9c2c9"
        axis.scatter(
            point.leaked, point.value, s=30 + 220 * point.bytes / most, color=colour, alpha=0.85, zorder=3
        )
        axis.annotate(
            point.setting, (point.leaked, point.value), xytext=(6, 6), textcoords="offset points", fontsize=8
        )
    axis.set_xlim(-0.03, 1.06)
    axis.set_xlabel("share that the best attack gets, 0: no more than a blind guess")
    axis.set_ylabel(f"{found[0].metric} on rows held out")
    axis.set_title(f"To {AFTER[found[0].after]}")
    axis.margins(y=0.15)
