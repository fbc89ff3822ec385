"""Images as they are and as decoders make them of activations, one line below the other."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from measuring import Figures
from torch import Tensor

from .drawing import draw
from .kept_runs import RESULTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SHOWN", "draw_images", "packed", "table", "unpacked"]

SHOWN = 6


def packed(images: Tensor) -> Figures:
    """Return images [N, C, H, W] from 0 to 1 in 256 steps, as something that fits into a line of JSON."""
    content = (255 * images).round().to(torch.uint8).numpy()
    return {"shape": list(images.shape), "content": base64.b64encode(content.tobytes()).decode()}


def unpacked(kept: Figures) -> Tensor:
    """Return the images of `packed`."""
    content = np.frombuffer(base64.b64decode(str(kept["content"])), dtype=np.uint8)
    return torch.from_numpy(content.copy()).reshape(kept["shape"]) / 255


def table(figures: Figures, task: str) -> str:
    """Return the table of a page in Markdown: a row for each weight, means over the seeds and standard errors."""
    named, judged = {"accuracy": ("accuracy", "class found"), "auc": ("AUC", "AUC of images made")}[task]
    head = (
        f"NoPeek's weight | {named} | points lost | distance correlation | permuted pairs | corrected "
        f"| decoder: SSIM | {judged}"
    )
    lines = [f"| {head} |", "|---" * head.count(" | ") + "|---|"]
    found = "reclassified" if task == "accuracy" else "reclassified_auc"
    for weight, one in figures["weights"].items():
        means, lost = one["mean"], one["points_lost"]
        cells = [
            weight if float(weight) else "without",
            f"{means[task]:.1f} %",
            f"{lost['mean']:.1f} ± {lost['standard_error']:.1f}" if float(weight) else "",
            *(f"{means[name]:.2f}" for name in ("correlation", "correlation_permuted", "corrected")),
            f"{means['ssim']:.3f}",
            f"{means[found]:.0f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    blind, truth = (means[name] for name in ("ssim_blind", f"{found}_original"))
    lines.append(f"| *blind guess; originals* |  |  |  |  |  | {blind:.3f} | {truth:.0f} % |")
    return "\n".join(lines)


def draw_images(name: str, truth: Tensor, made: Mapping[float, Tensor]) -> None:
    """Draw the first of ``truth`` [N, C, H, W], and below them what was made of them with each of NoPeek's weights.

    Of images of more than 32 pixels only four, so that the file stays small.
    """
    count = SHOWN if truth.shape[-1] <= 32 else 4
    titles = {weight: f"NoPeek, weight {weight:g}" if weight else "without NoPeek" for weight in made}
    lines = {"original": truth[:count]} | {titles[weight]: images[:count] for weight, images in made.items()}

    def panel(axes: list[Axes]) -> None:
        for axis, (title, images) in zip(axes, lines.items(), strict=True):
            side_by_side = torch.cat(list(images), dim=2).permute(1, 2, 0).numpy()
            axis.imshow(side_by_side, cmap="gray", vmin=0, vmax=1, interpolation="none")
            axis.set_title(title, fontsize=9)
            axis.set_axis_off()

    draw(RESULTS / f"{name}.svg", panel, width=5.6, height=0.95 * len(lines), rows=len(lines))
