"""What a hijacking server gets, as tables and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from measuring import Figures

from .drawing import draw
from .kept_runs import RESULTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["picture", "tables"]

_SAID = {"SplitGuard": "do not depend on the labels", "Gradients Scrutinizer": "do not tell one label"}
"""Words of each alarm's error."""
_SERVERS = {
    "blind": "none: the mean of its own images",
    "honest": "honest, same networks",
    "hijacked": "hijacks",
}


def tables(figures: Figures) -> dict[str, str]:
    """Return the tables of the page in Markdown, by name."""
    return {"what is got": _got(figures), "alarm rates": _rates(figures), "hiding": _hiding(figures)}


def _got(figures: Figures) -> str:
    lines = ["| server | SSIM | mean squared error | digit found | task accuracy |", "|---|---|---|---|---|"]
    for name, said in _SERVERS.items():
        one = figures["unwatched"][name]
        task = f"{one['accuracy']['mean']:.1f} %" if "accuracy" in one else ""
        ssim, mse = (f"{one[key]['mean']:.3f} ± {one[key]['deviation']:.3f}" for key in ("ssim", "mse"))
        lines.append(f"| {said} | {ssim} | {mse} | {one['digit_found']['mean']:.0f} % | {task} |")
    return "\n".join(lines)


def _rates(figures: Figures) -> str:
    title = "| alarm | noticed | step: median, latest | SSIM by then | digit found by then | false alarms |"
    lines = [title, "|---|---|---|---|---|---|"]
    for alarm, one in figures["alarms"].items():
        false = sum(_SAID[alarm] in said for said in figures["honest"]["alarms"])
        lines.append(
            f"| {alarm} | {one['noticed']} of {one['runs']} | {one['median']}, {one['latest']} "
            f"| {one['ssim_by_then']:.2f} | {one['digit_found_by_then']:.0f} % "
            f"| {false} of {figures['honest']['runs']} |"
        )
    return "\n".join(lines)


def _hiding(figures: Figures) -> str:
    title = "| share of the task's gradient | SSIM | digit found | task accuracy | SplitGuard | Gradients Scrutinizer |"
    lines = [title, "|---|---|---|---|---|---|"]
    for share, one in figures["hiding"].items():
        steps = ["silent" if step is None else f"step {step}" for step in one["noticed"].values()]
        lines.append(
            f"| {share} | {one['ssim']:.2f} | {one['digit_found']:.0f} % | {one['accuracy']:.1f} % "
            f"| {' | '.join(steps)} |"
        )
    return "\n".join(lines)


def picture(name: str, rows: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Draw rows of images [1, H, W], each with its title."""

    def panel(axes: list[Axes]) -> None:
        for axis, (title, images) in zip(axes, rows.items(), strict=True):
            side_by_side = np.concatenate([image[0] for image in images], axis=1)
            axis.imshow(side_by_side, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(title, fontsize=9)
            axis.set_axis_off()

    draw(RESULTS / f"{name}.svg", panel, width=7.0, height=0.95 * len(rows), rows=len(rows))
