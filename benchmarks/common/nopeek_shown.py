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

__all__ = ["SHOWN", "draw_images", "packed", "unpacked"]

SHOWN = 6


def packed(images: Tensor) -> Figures:
    """Return images [N, C, H, W] from 0 to 1 in 256 steps, as something that fits into a line of JSON."""
    content = (255 * images).round().to(torch.uint8).numpy()
    return {"shape": list(images.shape), "content": base64.b64encode(content.tobytes()).decode()}


def unpacked(kept: Figures) -> Tensor:
    """Return the images of `packed`."""
    content = np.frombuffer(base64.b64decode(str(kept["content"])), dtype=np.uint8)
    return torch.from_numpy(content.copy()).reshape(kept["shape"]) / 255


def draw_images(name: str, truth: Tensor, made: Mapping[float, Tensor]) -> None:
    """Draw the first of ``truth`` [N, C, H, W], and below them what was made of them with each of NoPeek's weights."""
    titles = {weight: f"NoPeek, weight {weight:g}" if weight else "without NoPeek" for weight in made}
    lines = {"original": truth[:SHOWN]} | {titles[weight]: images for weight, images in made.items()}

    def panel(axes: list[Axes]) -> None:
        for axis, (title, images) in zip(axes, lines.items(), strict=True):
            side_by_side = torch.cat(list(images), dim=2).permute(1, 2, 0).numpy()
            axis.imshow(side_by_side, cmap="gray", vmin=0, vmax=1, interpolation="none")
            axis.set_title(title, fontsize=9)
            axis.set_axis_off()

    draw(RESULTS / f"{name}.svg", panel, width=5.6, height=0.95 * len(lines), rows=len(lines))
