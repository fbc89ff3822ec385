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
    from matplotlib.patches import Rectangle

    with plot_style():
        settings = list(dict.fromkeys(point.setting for point in found))
        figure, axes = figure_of(4.6 * len(afters) + 2.6, max(4.2, 0.22 * len(settings) + 1), len(afters))
        for axis, after in zip(axes, afters, strict=True):
            _scatter(axis, [point for point in found if point.after == after], settings)
        words = [f"{number}  {setting}" for number, setting in enumerate(settings, 1)]
        blank = [Rectangle((0, 0), 1, 1, alpha=0) for _ in words]
        figure.legend(blank, words, loc="outside right upper", handlelength=0, handletextpad=0, fontsize=9)
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


def _scatter(axis: Axes, found: Sequence[Point], settings: Sequence[str]) -> None:
    """Draw a numbered point for each setting; those that others beat in everything in grey, beneath."""
    most = max(point.bytes for point in found)
    for point in sorted(found, key=lambda one: (one.best, -one.bytes)):
        axis.errorbar(
            point.leaked, point.value, yerr=point.deviation or None, color="#8a939a", elinewidth=1, capsize=2
        )
        colour = COLOURS[0] if point.best else "#9aa5ad"
        size = 110 + 240 * point.bytes / most
        axis.scatter(point.leaked, point.value, s=size, color=colour, alpha=0.85, edgecolor="white", zorder=3)
        axis.annotate(
            str(settings.index(point.setting) + 1), (point.leaked, point.value), ha="center", va="center",
            fontsize=8, color="white", fontweight="bold", zorder=4,
        )  # fmt: skip
    axis.set_xlim(-0.06, 1.08)
    axis.set_xlabel("share that the best attack gets\n0: no more than a blind guess")
    axis.set_ylabel(f"{found[0].metric} on rows held out")
    axis.set_title(f"To {AFTER[found[0].after]}")
    axis.margins(y=0.15)
