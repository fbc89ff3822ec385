"""Plots of the benchmarks, in the style of the package's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cutlayer.report.drawing import COLOURS, MARKERS, figure_of, plot_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "MARKERS", "draw"]


def draw(
    path: Path,
    panels: Callable[[list[Axes]], None],
    *,
    width: float,
    height: float,
    columns: int = 1,
    rows: int = 1,
) -> None:
    """Write a figure of inches with panels in columns and rows, which ``panels`` fills, as SVG."""
    with plot_style():
        figure, axes = figure_of(width, height, columns, rows)
        panels(axes)
        figure.savefig(path, metadata={"Date": None})
    print(f"drawn: {path.name}", flush=True)
