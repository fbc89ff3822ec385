"""Images of CIFAR-10 and HAM10000 for benchmarks that train; neither comes with the package.

CIFAR-10 is an ``.npz`` with ``x_train``, ``y_train``, ``x_test``, ``y_test`` (uint8, NHWC), HAM10000 one with
``images`` (uint8, NHWC, 64 pixels), ``diagnosis``, ``site`` and ``lesion`` (text, a row each).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import cutlayer as cl

__all__ = ["cifar10", "ham10000", "labelled", "wanted"]

CIFAR_MEAN, CIFAR_STD = 0.473, 0.251
MALIGNANT = ("akiec", "bcc", "mel")


def wanted(parser: argparse.ArgumentParser, name: str) -> None:
    """Add ``--name PATH``, by default ``$CUTLAYER_NAME``."""
    variable = f"CUTLAYER_{name.upper()}"
    parser.add_argument(
        f"--{name}", type=Path, default=os.environ.get(variable), metavar="PATH",
        help=f"an .npz with the images; default: ${variable}",
    )  # fmt: skip


def _content(path: Path | None, name: str) -> dict[str, np.ndarray]:
    if path is None:
        sys.exit(f"give --{name} PATH or set CUTLAYER_{name.upper()}; see benchmarks/README.md")
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


def pixels(images: np.ndarray) -> Tensor:
    """Return uint8 images [N, H, W, 3] as float32 [N, 3, H, W] of about mean 0 and standard deviation 1."""
    unit = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return ((unit - CIFAR_MEAN) / CIFAR_STD).contiguous()


def cifar10(path: Path | None, rows: int, test: int) -> cl.data.Source:
    """Return the first ``rows`` training and ``test`` test images, which are of all classes alike."""
    content = _content(path, "cifar10")
    parts = [
        made
        for split, count in (("train", rows), ("test", test))
        for made in (pixels(content[f"x_{split}"][:count]), content[f"y_{split}"][:count].astype(np.int64))
    ]
    return cl.data.arrays(*parts)


def ham10000(path: Path | None, seed: int, side: int = 32, test: float = 0.2) -> cl.data.Source:
    """Return lesions with label 1 if malignant (carcinoma, melanoma), of four clinics in the column ``site``.

    All images of a lesion are either training or test rows.

    Args:
        path: The file.
        seed: Of the rows held out.
        side: Pixels; half of the file's are means of four.
        test: Share of the rows held out.
    """
    content = _content(path, "ham10000")
    images = pixels(content["images"])
    images = torch.nn.functional.avg_pool2d(images, images.shape[-1] // side)
    labels = np.isin(content["diagnosis"], MALIGNANT).astype(np.int64)
    about = {"train": {"site": content["site"], "lesion": content["lesion"]}}
    return cl.data.arrays(images, labels, about=about).hold_out(test=test, by="lesion", seed=seed)


def labelled(party: cl.data.PartyData, split: str) -> tuple[Tensor, Tensor]:
    """Return a party's images and labels of ``split``, which are in memory."""
    x, y = party.splits[split].fields["x"], party.splits[split].fields["y"]
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise TypeError("the rows of these data sets are tensors")
    return x, y
