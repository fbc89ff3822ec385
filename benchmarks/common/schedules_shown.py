"""The table and the plot of schedules_table.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from measuring import Figures

from .drawing import COLOURS, MARKERS, draw
from .kept_runs import RESULTS
from .pages import put

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["show"]

PAGE = "schedules-compared.md"
PLOT = RESULTS / "schedules_table.svg"
MEASURES = {
    "HAM10000": ("auc_within", 100.0, "AUC within clinics (%)"),
    "CIFAR-10": ("accuracy", 1.0, "test accuracy (%)"),
}
"""Which measure is plotted, in which unit."""

LEARNED = {"accuracy": ("accuracy %", 1), "auc_within": ("AUC within clinics", 3), "auc": ("AUC over all", 3)}
COSTS = {
    "up_mb": ("up MB", 0),
    "down_mb": ("down MB", 0),
    "minutes": ("minutes", 2),
    "client_gflop": ("GFLOP", 0),
}
"""Title and digits of the columns."""

REFERENCES = {"all rows at one client": "--", "each client alone": ":"}
"""What schedules are compared with, and the style of its line."""


def show(figures: Figures) -> None:
    """Print the tables, put each into the page, and draw the plot."""
    for data, rows in figures["data"].items():
        print(f"{data}\n{table(rows)}\n")
        put(PAGE, data, table(rows))
    plot(figures)


def table(rows: Figures) -> str:
    """Return one data set's table in Markdown."""
    learned = {what: words for what, words in LEARNED.items() if what in next(iter(rows.values()))}
    titles = ["schedule", *(title for title, _ in learned.values()), *(title for title, _ in COSTS.values())]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, one in rows.items():
        cells = [
            f"{one[what]['mean']:.{digits}f} ± {one[what]['standard_deviation']:.{digits}f}"
            for what, (_, digits) in learned.items()
        ]
        cells += [f"{one[what]['mean']:,.{digits}f}" for what, (_, digits) in COSTS.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(figures: Figures) -> None:
    """Draw what each schedule reached, a column for each data set: against bytes, and against simulated minutes."""

    def panels(axes: list[Axes]) -> None:
        columns = len(figures["data"])
        for place, axis in enumerate(axes):
            data = list(figures["data"])[place % columns]
            panel(axis, data, figures["data"][data], minutes=place >= columns)
            if place < columns:
                axis.set_title(f"{data}, {figures['epochs'][data]} epochs, {figures['seeds']} seeds")
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=9)

    draw(PLOT, panels, width=11.5, height=7.2, columns=len(figures["data"]), rows=2)


def panel(axis: Axes, data: str, rows: Figures, *, minutes: bool) -> None:
    """Draw one data set's schedules as points, and what they are compared with as lines."""
    measure, unit, label = MEASURES[data]
    for place, (name, one) in enumerate(rows.items()):
        colour, height = COLOURS[place % 7], unit * one[measure]["mean"]
        if name in REFERENCES:
            axis.axhline(height, color=colour, linewidth=1.2, linestyle=REFERENCES[name], label=name)
            continue
        cost = one["minutes"]["mean"] if minutes else one["up_mb"]["mean"] + one["down_mb"]["mean"]
        axis.errorbar(
            cost, height, yerr=unit * one[measure]["standard_deviation"], color=colour, linestyle="none",
            marker=MARKERS[place % len(MARKERS)], capsize=3, markersize=6, elinewidth=1.0, label=name,
        )  # fmt: skip
    axis.set_xlim(left=0)
    axis.set_xlabel("simulated minutes of training" if minutes else "MB that a client sent and received")
    axis.set_ylabel(label)
