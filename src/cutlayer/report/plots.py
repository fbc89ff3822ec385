"""A run in plots: what was compared, how well it learned, what crossed the cuts, what it cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LogError
from ..metering.events import Event, Noted
from ..metering.learned import losses, metrics
from ..metering.protection import by_epoch
from ..metering.reading import viewer
from ..metering.table import Cell, human_bytes, human_flops, human_seconds
from ..metering.tables import compute, time, traffic
from .drawing import COLOURS, MARKERS, figure_of, plot_style
from .telling import LEAK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PLOTS", "save_plots"]

NAMED_COLOURS = {
    "training": "#0072B2", "evaluation": "#E69F00", "hand-over": "#009E73",
    "forward": "#0072B2", "backward": "#56B4E9",
}  # fmt: skip
SHOWN_BARS = 10
COMPARED = 3
SHOWN_MEASURES = 6

Bars = dict[str, dict[str, float]]
"""Amounts by part (a colour) by bar."""


def save_plots(events: Sequence[Event], folder: Path) -> dict[str, Path]:
    """Write the plots for which there is something to show, as PNG and as SVG.

    Args:
        events: The run's log, whole or as far as it got.
        folder: Where to; made if missing.

    Returns:
        The PNG files by name; the SVG files stand beside them.

    Raises:
        LogError: The folder cannot be written.
    """
    written = {}
    for name, draw in PLOTS.items():
        with plot_style():
            figure = draw(events)
            if figure is None:
                continue
            try:
                folder.mkdir(parents=True, exist_ok=True)
                figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
                figure.set_layout_engine("none")  # everything has its place by now
                figure.savefig(folder / f"{name}.png", dpi=160, metadata={"Software": "cutlayer"})
            except OSError as error:
                raise LogError(
                    f"cannot write {folder}: {error.strerror}", todo="choose a folder you may write to"
                ) from error
        written[name] = folder / f"{name}.png"
    return written


def learning(events: Sequence[Event]) -> Figure | None:
    """Plot the training loss and each metric by epoch, a line for each split."""
    return _lines(_curves(events))


def leaking(events: Sequence[Event]) -> Figure | None:
    """Plot what was measured of leaks and defences by epoch, a line for each cut and defence."""
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for (_, cut, what, measure), values in by_epoch(events).items():
        if measure != "batches" and len(values) > 1:
            where = cut.replace("<-", " ← ").replace("->", " → ")
            line = where if what == "label leak" else f"{where}, {what}"
            _add_curve(curves, measure, line, [epoch + 1 for epoch in values], list(values.values()))
    curves = dict(list(curves.items())[:SHOWN_MEASURES])
    figure = _lines(curves)
    for title, axis in zip(curves, figure.axes if figure is not None else (), strict=False):
        if title.startswith(LEAK):
            _from_a_guess(axis)
    return figure


def _from_a_guess(axis: Axes) -> None:
    """Show how far a leak is from a guess and from certainty, not only how it moved."""
    axis.axhline(0.5, color="#8a939a", linestyle="--", linewidth=1.2, label="a guess")
    axis.set_ylim(min(0.45, axis.get_ylim()[0]), 1.03)
    axis.legend(loc="best")


def _lines(curves: dict[str, dict[str, list[tuple[float, float]]]]) -> Figure | None:
    """Plot lines by epoch, an axis for each title."""
    from matplotlib.ticker import MaxNLocator

    if not curves:
        return None
    columns = min(len(curves), 2)
    rows = math.ceil(len(curves) / columns)
    figure, axes = figure_of(4.6 * columns, 2.9 * rows, columns, rows)
    names = list(dict.fromkeys(name for lines in curves.values() for name in lines))
    for axis, (title, lines) in zip(axes, curves.items(), strict=False):
        for name, points in lines.items():
            index = names.index(name) % len(COLOURS)
            marker = MARKERS[index] if len(points) <= 30 else ""
            axis.plot(*zip(*points, strict=True), color=COLOURS[index], marker=marker, label=name)
        axis.set_title(title)
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.margins(y=0.12)
        axis.legend(loc="best")
    for axis in axes[len(curves) :]:
        axis.set_axis_off()
    return figure


def _curves(events: Sequence[Event]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return points (epoch, value) by title and line; what is not finite is left out."""
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    trained, measured = losses(events), metrics(events)
    several = "loss of" in measured.columns or len(trained.columns) > 5
    for name in trained.columns[3:-1]:
        _add_curve(
            curves, name if several else "loss", "training", trained.column("epoch"), trained.column(name)
        )
    for metric in measured.columns[4 if "loss of" in measured.columns else 3 :]:
        for split in dict.fromkeys(measured.column("split")):
            for of in dict.fromkeys(measured.column("loss of")) if "loss of" in measured.columns else (None,):
                chosen = [r for r in measured.rows if r[1] == split and (of is None or r[2] == of)]
                index = measured.columns.index(metric)
                title = metric if of is None else f"{metric}, {of}" if metric != "loss" else str(of)
                _add_curve(curves, title, str(split), [r[0] for r in chosen], [r[index] for r in chosen])
    return curves


def _add_curve(
    curves: dict[str, dict[str, list[tuple[float, float]]]],
    title: str,
    line: str,
    epochs: Sequence[Cell],
    values: Sequence[Cell],
) -> None:
    points = [
        (float(e), float(v))
        for e, v in zip(epochs, values, strict=True)
        if isinstance(e, int) and isinstance(v, int | float) and math.isfinite(v)
    ]
    if points:
        curves.setdefault(title, {})[line] = points


def comparing(events: Sequence[Event]) -> Figure | None:
    """Plot the last comparison that was noted (three figures or more), a point for each, the best marked."""
    noted = [e for e in events if isinstance(e, Noted) and len(e.figures) >= COMPARED]
    if not noted:
        return None
    figures = noted[-1].figures
    figure, (axis,) = figure_of(9.2, 1.1 + 0.36 * len(figures))
    places, values = range(len(figures)), list(figures.values())
    low = min(values) - 0.15 * (max(values) - min(values) or 1.0)
    colours = [COLOURS[1] if value == max(values) else COLOURS[0] for value in values]
    axis.hlines(places, low, values, color="#c3cad0", linewidth=1.5)
    axis.scatter(values, places, s=70, color=colours, zorder=3)
    for place, value in zip(places, values, strict=True):
        axis.annotate(
            f"{value:.3f}", (value, place), xytext=(9, 0), textcoords="offset points", va="center", fontsize=9
        )
    axis.set_yticks(places, list(figures))
    axis.invert_yaxis()
    axis.set_title(noted[-1].subject)
    axis.set_xlim(low, max(values) + 0.15 * (max(values) - low))
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="y", visible=False)
    return figure


def crossing(events: Sequence[Event]) -> Figure | None:
    """Plot the bytes over each cut and direction, by what they were for."""
    bars: Bars = {}
    for phase, cut, content, _, _, _, frame_bytes, *_ in traffic(events).rows:
        name = str(cut).replace("->", " ← " if content == "gradient" else " → ")
        name = name if content in ("handover", "statistics", "verdict") else f"{name}\n{content}"
        _put(bars, name, str(phase), frame_bytes)
    whose = viewer(events)
    what = f"Bytes that {whose} sent" if whose else "Bytes that crossed"
    return _stacked(f"{what}, by cut and direction", bars, human_bytes)


def computing(events: Sequence[Event]) -> Figure | None:
    """Plot the FLOPs of each party, by direction."""
    bars: Bars = {}
    for party, _, forward, backward, evaluation, *_ in compute(events).rows:
        for part, flops in (("forward", forward), ("backward", backward), ("evaluation", evaluation)):
            _put(bars, str(party), part, flops)
    return _stacked("Floating point operations, by party", bars, human_flops)


def working(events: Sequence[Event]) -> Figure | None:
    """Plot the time spent in each action, by party."""
    bars: Bars = {}
    spent = time(events)
    for party in dict.fromkeys(spent.column("party")):
        for _, action, _, seconds, *_ in (row for row in spent.rows if row[0] == party):
            _put(bars, str(action), str(party), seconds)
    ranked = sorted(bars.items(), key=lambda bar: -sum(bar[1].values()))
    return _stacked("Time, by action", dict(ranked), human_seconds)


def _put(bars: Bars, bar: str, part: str, amount: Cell) -> None:
    parts = bars.setdefault(bar, {})
    parts[part] = parts.get(part, 0.0) + (float(amount) if isinstance(amount, int | float) else 0.0)


def _stacked(title: str, bars: Bars, unit: Callable[[float], str]) -> Figure | None:
    """Plot horizontal bars, the first on top, stacked by part, with the sum in words at the end of each."""
    bars = {name: parts for name, parts in bars.items() if sum(parts.values()) > 0}
    if not bars:
        return None
    if len(bars) > SHOWN_BARS:
        title = f"{title} (the largest {SHOWN_BARS} of {len(bars)})"
        largest = sorted(bars, key=lambda name: -sum(bars[name].values()))[:SHOWN_BARS]
        bars = {name: parts for name, parts in bars.items() if name in largest}
    figure, (axis,) = figure_of(9.2, 1.3 + 0.4 * len(bars))
    places = range(len(bars))
    ends = [0.0] * len(bars)
    for index, part in enumerate(dict.fromkeys(part for parts in bars.values() for part in parts)):
        widths = [parts.get(part, 0.0) for parts in bars.values()]
        colour = NAMED_COLOURS.get(part, COLOURS[index % len(COLOURS)])
        axis.barh(
            places, widths, left=ends, height=0.62, color=colour, label=part, edgecolor="white", linewidth=0.6
        )
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    for place, end in zip(places, ends, strict=True):
        axis.annotate(
            unit(end), (end, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9
        )
    axis.set_yticks(places, list(bars))
    axis.invert_yaxis()
    axis.set_title(title)
    axis.set_xlim(0, max(ends) * 1.13)
    axis.xaxis.set_major_formatter(lambda value, _: unit(value))
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=5)
    return figure


PLOTS: dict[str, Callable[[Sequence[Event]], Figure | None]] = {
    "comparison": comparing, "protection": leaking, "learning": learning, "traffic": crossing,
    "compute": computing, "time": working,
}  # fmt: skip
"""What draws each plot; None where the log has nothing for it."""
