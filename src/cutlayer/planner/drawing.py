"""The trade-off of a plan as a plot: what a client computes, what crosses, what shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..metering.table import human_bytes, human_flops, human_seconds
from ..report.drawing import COLOURS, MARKERS, figure_of, plot_style
from .offers import Offer
from .singh import ETA, Case

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .planning import Plan

__all__ = ["save_break_even", "save_trade_off"]

_NAMES = {"fedavg": "federated averaging", "large_batch": "large-batch SGD"}


def save_trade_off(plan: Plan, folder: Path) -> list[Path]:
    """Draw ``plan`` as ``trade-off.svg`` and ``.png`` into ``folder`` and return both.

    On the left traffic over computing of a client, a point a cut; on the right the time of each, and the leakage.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = plan.best or plan.offers[0]
    offers = [one for one in plan.offers if one.schedule == shown.schedule]
    offers.sort(key=lambda one: one.method != shown.method)
    with plot_style():
        figure, (left, right) = figure_of(11.0, 4.4, columns=2)
        _costs(left, plan, offers)
        _times(figure, right, plan, offers)
        files = [folder / f"trade-off.{kind}" for kind in ("svg", "png")]
        for file in files:
            metadata = {"Date": None} if file.suffix == ".svg" else None
            figure.savefig(file, dpi=150, metadata=metadata)
    return files


def _costs(axes: Axes, plan: Plan, offers: Sequence[Offer]) -> None:
    """Draw what a client computes against what it sends and receives."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for number, method in enumerate(dict.fromkeys(one.method for one in offers)):
        mine = [one for one in offers if one.method == method]
        axes.scatter(
            [max(one.client_flops, 1) for one in mine], [one.client_bytes for one in mine],
            s=26, color=COLOURS[number], marker=MARKERS[number], alpha=0.8,
            label=f"{method.replace('_', '-')}, {mine[0].schedule.replace('_', ' ')}",
        )  # fmt: skip
    for number, one in enumerate(plan.rivals):
        axes.scatter(
            [one.client_flops], [one.client_bytes], s=60 + 90 * number, marker="XD"[number],
            facecolors="none" if number else COLOURS[-2], edgecolors=COLOURS[-2 - number],
            label=_NAMES[one.method],
        )  # fmt: skip
    best = plan.best
    if best is not None:
        axes.scatter(
            [max(best.client_flops, 1)], [best.client_bytes], s=150, facecolors="none", edgecolors="#23292e",
            linewidths=1.6, label=f"advised: {best.cut}",
        )  # fmt: skip
    for name, line in (("client_flops", axes.axvline), ("client_bytes", axes.axhline)):
        if name in plan.limits.given:
            line(plan.limits.given[name], color="#999999", linestyle="--", linewidth=1.2)
    axes.set(xscale="log", yscale="log", title="What a client does and sends")
    axes.set_xlabel("FLOP of a client, whole training")
    axes.set_ylabel("bytes of a client, whole training")
    for axis, text, subs in (
        (axes.xaxis, human_flops, (1.0, 3.0)),
        (axes.yaxis, human_bytes, (1.0, 2.0, 5.0)),
    ):
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda value, _, text=text: text(value)))
        axis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelrotation=30, labelsize=8)
    axes.legend(fontsize=8, markerscale=0.6)


def _times(figure: Figure, axes: Axes, plan: Plan, offers: Sequence[Offer]) -> None:
    """Draw the time by how deep the first cut is, as is advised, and the leakage where it was measured."""
    method = offers[0].method
    mine = [one for one in offers if one.method == method]
    places = range(len(mine))
    axes.plot(places, [one.seconds for one in mine], color=COLOURS[0], marker="o", label="time")
    for number, one in enumerate(plan.rivals):
        dashes = (5 * number, (5, 5))  # so that one shows in the gaps of the other where both take as long
        axes.axhline(one.seconds, color=COLOURS[-2 - number], linestyle=dashes, label=_NAMES[one.method])
    way = f"{method.replace('_', '-')}, {mine[0].schedule.replace('_', ' ')}"
    axes.set(title=f"How long it takes: {way}", ylabel="time of the whole training", ylim=(0, None))
    axes.yaxis.set_major_formatter(lambda value, _: human_seconds(value) if value else "0")
    every = max(1, len(mine) // 12)
    axes.set_xticks(
        list(places)[::every], [one.cut for one in mine][::every], rotation=60, ha="right", fontsize=8
    )
    axes.set_xlabel("cut after")
    other = None
    if any(not math.isnan(one.leakage) for one in mine):
        other = axes.twinx()
        other.plot(places, [one.leakage for one in mine], color=COLOURS[1], marker="s", label="leakage")
        other.set(ylabel="distance correlation with raw rows")
        other.set_ylim(min(0.0, *(one.leakage for one in mine if not math.isnan(one.leakage))) - 0.02, 1.05)
        other.grid(visible=False)
    figure.legend(*_labelled(axes, other), fontsize=8, loc="outside lower right", ncols=4)


def _labelled(axes: Axes, other: Axes | None) -> tuple[list[Artist], list[str]]:
    """Return what both axes have drawn, with its names."""
    drawn, names = axes.get_legend_handles_labels()
    more = other.get_legend_handles_labels() if other is not None else ([], [])
    return [*drawn, *more[0]], [*names, *more[1]]


def save_break_even(folder: Path) -> list[Path]:
    """Draw from how many clients on split learning sends less, over the network's size; return SVG and PNG.

    After Singh et al. 2019 (arXiv 1909.09145): K = 2pq / ((2 - eta) N), a straight line where both axes are logarithms.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = [10 ** (5 + step / 10) for step in range(51)]
    with plot_style():
        figure, (axes,) = figure_of(6.4, 4.4)
        for number, activations in enumerate((1e8, 1e9, 1e10)):
            cases = [Case(clients=1, weights=n, rows=activations / 2, width=1, share=ETA) for n in weights]
            axes.plot(
                weights, [case.break_even for case in cases], color=COLOURS[number], label=f"2pq = {activations:.0e}"
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="weights of the network (N)", ylabel="clients (K)")
        axes.set_title("Above its line, split learning sends less than federated averaging")
        axes.set_ylim(1, None)
        axes.legend(fontsize=8)
        files = [folder / f"break-even.{kind}" for kind in ("svg", "png")]
        for file in files:
            figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None)
    return files
