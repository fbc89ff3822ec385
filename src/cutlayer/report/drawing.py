"""How all plots look: colours, style, figures that belong to nobody.

Colours are Okabe and Ito's, which people with colour blindness tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "MARKERS", "figure_of", "plot_style"]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#F0E442")
MARKERS = "osD^vPX*"

_STYLE = {
    "font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#8a939a",
    "axes.axisbelow": True, "axes.grid": True, "grid.color": "#e3e6e8", "grid.linewidth": 0.8,
    "xtick.color": "#4a5359", "ytick.color": "#4a5359", "text.color": "#23292e",
    "axes.labelcolor": "#23292e", "axes.titlecolor": "#23292e", "legend.frameon": False,
    "lines.linewidth": 2.0, "lines.markersize": 4.5, "figure.facecolor": "white",
    "svg.hashsalt": "cutlayer", "svg.fonttype": "path",
}  # fmt: skip


@contextmanager
def plot_style() -> Iterator[None]:
    """Draw inside in the style of all plots."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        yield


def figure_of(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure of inches that belongs to nobody: no windows, nothing global."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)
