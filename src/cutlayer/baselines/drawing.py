"""A comparison as plots, as a page that needs nothing else, and as numbers for programs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LogError
from ..metering.table import human_bytes, human_flops, human_seconds
from ..report.drawing import COLOURS, MARKERS, figure_of, plot_style
from .comparing import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PAGE", "draw_comparison", "write_comparison"]

PAGE, DRAWING, NUMBERS = "compare.html", "compare", "compare.json"
_AXES = {
    "flops": ("compute", "of a client, forwards and backwards", human_flops),
    "bytes": ("traffic", "of a client, sent and received", human_bytes),
    "seconds": ("time", "all parties in one process", human_seconds),
}
_ONE_DECADE = 20.0
"""From which ratio of the largest to the smallest cost an axis is logarithmic."""


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write ``compare.html``, ``compare.svg``, ``compare.png`` and ``compare.json``; return the page's path.

    It leads to the report of each run that has one.

    Raises:
        LogError: They cannot be written.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loader = ChoiceLoader([PackageLoader("cutlayer.baselines", ""), PackageLoader("cutlayer.report", "")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, table = environment.get_template("report.css").render(), comparison.table()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drawing = _save(draw_comparison(comparison), folder)
        numbers = {curve.name: [asdict(point) for point in curve.points] for curve in comparison.curves}
        about = {"study": comparison.name, "metric": comparison.metric, "clients": comparison.clients}
        text = json.dumps({**about, "settings": comparison.settings, "curves": numbers}, indent=1)
        (folder / NUMBERS).write_text(text + "\n", encoding="utf-8")
        page = environment.get_template("compare.html.j2").render(
            comparison=comparison,
            table=table,
            rows=_cells(comparison),
            drawing=f"data:image/svg+xml;base64,{base64.b64encode(drawing).decode()}",
            reports={
                name: (run / "report.html").relative_to(folder).as_posix()
                for name, run in comparison.folders.items()
                if (run / "report.html").is_file()
            },
            style=style,
            style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        )
        (folder / PAGE).write_text(page, encoding="utf-8")
    except OSError as error:
        raise LogError(f"cannot write {folder}: {error.strerror}", todo="make room on the disk") from error
    return folder / PAGE


def draw_comparison(comparison: Comparison) -> Figure:
    """Draw the score against compute and traffic of a client, and against time."""
    with plot_style():
        figure, axes = figure_of(13.2, 4.1, columns=len(_AXES))
        for panel, (axis, (title, about, unit)) in zip(axes, _AXES.items(), strict=True):
            costs: list[float] = []
            for place, curve in enumerate(comparison.curves):
                xs = [getattr(point, axis) for point in curve.points]
                ys = [point.score for point in curve.points]
                marker = MARKERS[place % len(MARKERS)] if len(xs) <= 60 else ""
                colour = COLOURS[place % len(COLOURS)]
                panel.plot(xs, ys, color=colour, marker=marker, label=curve.name)
                costs += [x for x in xs if x > 0]
            if costs and max(costs) > _ONE_DECADE * min(costs):
                panel.set_xscale("log")
            panel.xaxis.set_major_formatter(_shown_as(unit))
            panel.tick_params(axis="x", labelrotation=30)
            panel.set_title(f"{comparison.metric} against {title}")
            panel.set_xlabel(about)
            panel.set_ylabel(comparison.metric)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _shown_as(unit: Callable[[float], str]) -> Callable[[float, float], str]:
    return lambda value, place: unit(value)


def _save(figure: Figure, folder: Path) -> bytes:
    """Write a figure as SVG and as PNG; return the SVG."""
    with plot_style():
        figure.savefig(folder / f"{DRAWING}.svg", metadata={"Date": None})
        figure.set_layout_engine("none")  # everything has its place by now
        figure.savefig(folder / f"{DRAWING}.png", dpi=160, metadata={"Software": "cutlayer"})
    return (folder / f"{DRAWING}.svg").read_bytes()


def _cells(comparison: Comparison) -> list[list[str]]:
    """Return the table's cells, costs in units that people know."""
    rows = []
    for row, shown in zip(comparison.table().rows, comparison.table().cells(), strict=True):
        flops, sizes, seconds = (float(cell or 0) for cell in row[2:5])
        rows.append([*shown[:2], human_flops(flops), human_bytes(sizes), human_seconds(seconds), *shown[5:]])
    return rows
