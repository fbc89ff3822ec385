"""NoPeek on CIFAR-10: distance correlation, accuracy, and what a decoder makes of the activations.

As `nopeek.py` for MNIST, with a network cut as deep: two convolutions (32, 64 channels), each with pooling, a linear
layer of 500 numbers and tanh at the client; 128 and 10 at the server. The first 10,000 training images, two epochs of
Adam with 1e-3 in batches of 32, squared distances: far from what a long training reaches, and the same for all weights,
0, 0.3 and 2. Of 0.1, 0.3 and 0.5, 0.3 is the least that brought distance correlation below 0.48 on another seed.
Accuracy is that on 2,000 test images; seeds differ in initial weights and in the order of rows.

The decoder (transposed convolutions, 400 batches of 64) has 2,500 training images leaked with their activations. A
classifier trained on the last 10,000 training images judges its reconstructions of 1,000 test images.

Each run is kept, so that what was interrupted goes on where it was; about 8 minutes on one core.

    python benchmarks/nopeek_cifar10.py --cifar10 cifar10.npz
    python benchmarks/nopeek_cifar10.py --cifar10 cifar10.npz --picture    # only the picture beside the results
    python benchmarks/nopeek_cifar10.py --table      # writes the table into docs/defences.md

Ends with 1 if no weight brings distance correlation in batches of 32 to 0.48 or less with at most 1 point of
accuracy lost, or if what the decoder's SSIM is beyond a blind guess is not 1.2 times as much without NoPeek.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

import measuring
import numpy as np
import torch
from common import nopeek_colour
from common.nopeek_command import ended
from common.nopeek_trial import Data, Trial, failures_of

NAME = "nopeek_cifar10"
JUDGE_ROWS, LEAST_FACTOR = 10_000, 1.2
TRIAL = Trial(
    name=NAME,
    network=partial(nopeek_colour.network, side=32, classes=10),
    decoder=partial(nopeek_colour.decoder, 32),
    weights=(0.0, 0.3, 2.0),
    settings={
        "rows": 10_000,
        "test": 2_000,
        "batch": 32,
        "epochs": 2,
        "rate": 1e-3,
        "leaked": 2_500,
        "decoder_steps": 400,
    },
    judge_steps=300,
)


def cifar10(asked: argparse.Namespace, rows: int, test: int) -> Data:
    """Return images from 0 to 1 and labels; the last training images are the judge's."""
    if asked.cifar10 is None:
        sys.exit("give --cifar10 PATH or set CUTLAYER_CIFAR10; see benchmarks/README.md")
    with np.load(asked.cifar10, allow_pickle=False) as content:
        x, y, x_test, y_test = (content[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    parts = {
        "train": (x[:rows], y[:rows]),
        "judge": (x[-JUDGE_ROWS:], y[-JUDGE_ROWS:]),
        "test": (x_test[:test], y_test[:test]),
    }
    found = {}
    for split, (images, labels) in parts.items():
        found[f"x_{split}"] = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255).contiguous()
        found[f"y_{split}"] = torch.from_numpy(labels.astype(np.int64))
    return found


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    return [] if figures["quick"] else failures_of(figures, LEAST_FACTOR)


def main() -> int:
    """Train, print, and return the exit status."""
    return ended(__doc__, "cifar10", TRIAL, cifar10, failures)


if __name__ == "__main__":
    sys.exit(main())
