"""Rows as they are, and as an attack reconstructed them, as pictures that a page can show side by side."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import LogError

__all__ = ["save_pictures"]

_SHOWN, _LARGEST = 8, 3
_ZOOM_TO = 96  # pixels


def save_pictures(
    folder: Path, name: str, truth: Tensor, guess: Tensor, low: float, high: float
) -> dict[str, str]:
    """Write the first rows of images [N, C, H, W] as two PNG strips; return their paths within ``folder``.

    Rows that are no images, with one or three channels, have no picture.

    Raises:
        LogError: The folder cannot be written.
    """
    if truth.ndim != 4 or truth.shape[1] not in (1, _LARGEST) or not low < high < math.inf:
        return {}
    from matplotlib.image import imsave

    stem = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()
    found = {}
    for which, rows in (("original", truth), ("reconstruction", guess)):
        path = Path("pictures") / f"{stem}-{which}.png"
        try:
            (folder / "pictures").mkdir(parents=True, exist_ok=True)
            imsave(folder / path, _strip(rows[:_SHOWN], low, high))
        except OSError as error:
            raise LogError(
                f"{folder / path} cannot be written: {error.strerror}", todo="make room on the disk"
            ) from error
        found[which] = str(path)
    return found


def _strip(rows: Tensor, low: float, high: float) -> np.ndarray:
    """Return images [N, C, H, W] side by side, uint8 [H', W', 3], each pixel a few wide, with a white gap."""
    images = ((rows.detach().float().clamp(low, high) - low) / (high - low) * 255).round().byte()
    zoom = max(1, _ZOOM_TO // images.shape[2])
    colour = images.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    large = colour.repeat(zoom, axis=1).repeat(zoom, axis=2)
    gap = np.full((large.shape[1], 6, 3), 255, dtype=np.uint8)
    return np.concatenate([part for image in large for part in (image, gap)][:-1], axis=1)
