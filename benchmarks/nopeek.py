"""NoPeek on MNIST: distance correlation, accuracy, what a decoder makes of the activations, and the time it takes.

The network of Titcombe et al. 2021 (arXiv 2104.05743): two convolutions (32, 64 channels), pooling, a linear layer of
500 numbers and tanh at the client; 128 and 10 at the server. Theirs takes ten epochs of 40,000 images with a rate of
1e-4 and weights up to 1; a tenth of its steps are made here, so they are longer and NoPeek's weight is higher: Adam
with 1e-3, the first 20,000 training images, two epochs, batches of 32, weights 0, 0.5 and 2, squared distances.
Accuracy is that on 3,000 test images; seeds differ in initial weights and in the order of rows.

Distance correlation on the test images: squared, in batches of 32 as in training, which is biased upwards; that of
permuted pairs beside it, the same where nothing belongs together; in one batch of 1,000; bias-corrected there, squared
and Euclidean. The decoder has the worst case of Vepakomma et al. 2020: 5,000 training images leaked with their
activations. It is judged by SSIM and by a classifier that was trained on other images, on the first 1,000 test images;
a blind guess is the mean image. Time is that of all the client does in a step, batches of 64, by the run's own
clock, with NoPeek and without in turn; for this network, and told only, for the smallest, 784 -> 256.

Each run is kept, so that what was interrupted goes on where it was; about 20 minutes on one core.

    python benchmarks/nopeek.py --mnist mnist63k.npz
    python benchmarks/nopeek.py --mnist mnist63k.npz --picture    # only the picture beside the results
    python benchmarks/nopeek.py --table      # writes the table into docs/defences.md

Ends with 1 if no weight brings distance correlation in batches of 32 to 0.48 or less with at most 1 point of accuracy
lost, if the decoder's SSIM falls with none of them, or if NoPeek adds more than 20 % to the client's step.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from functools import partial

import measuring
import numpy as np
import torch
from common.nopeek_command import ended
from common.nopeek_trial import Data, Trial, failures_of, network_of, study_of
from torch import nn

import cutlayer as cl
from cutlayer.metering.events import Worked

NAME = "nopeek"
SETTINGS: measuring.Figures = {
    "rows": 20_000,
    "test": 3_000,
    "batch": 32,
    "epochs": 2,
    "rate": 1e-3,
    "leaked": 5_000,
    "decoder_steps": 1_500,
}
TIMED_BATCH, TIMED_ROWS, ROUNDS = 64, 1_920, 5
MAX_TIME = 1.2


def network(seed: int) -> nn.Sequential:
    """Return the network, [B, 1, 28, 28] -> [B, 10]; ``first`` is the client's part."""

    def first() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(9216, 500), nn.Tanh(),
        )  # fmt: skip

    return network_of(seed, first, lambda: nn.Sequential(nn.Linear(500, 128), nn.ReLU(), nn.Linear(128, 10)))


def small_network(seed: int) -> nn.Sequential:
    """Return 784 -> 256 at the client, 10 at the server."""

    def first() -> nn.Sequential:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU())

    return network_of(seed, first, lambda: nn.Linear(256, 10))


def decoder() -> nn.Sequential:
    """Return a network that makes images of activations, [B, 500] -> [B, 1, 28, 28]."""
    return nn.Sequential(
        nn.Linear(500, 1024), nn.ReLU(), nn.Linear(1024, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28))
    )


TRIAL = Trial(name=NAME, network=network, decoder=decoder, weights=(0.0, 0.5, 2.0), settings=SETTINGS)


def mnist(asked: argparse.Namespace, rows: int, test: int) -> Data:
    """Return images from 0 to 1, labels, and the images after the training rows, for the judge."""
    if asked.mnist is None:
        sys.exit("give --mnist PATH or set CUTLAYER_MNIST; see benchmarks/README.md")
    with np.load(asked.mnist, allow_pickle=False) as content:
        x, y, x_test, y_test = (content[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    cuts = {
        "train": (x, y, slice(0, rows)),
        "judge": (x, y, slice(-rows, None)),
        "test": (x_test, y_test, slice(test)),
    }
    found = {}
    for split, (images, labels, at) in cuts.items():
        found[f"x_{split}"] = torch.from_numpy(images[at]).float()[:, None] / 255
        found[f"y_{split}"] = torch.from_numpy(labels[at].astype(np.int64))
    return found


def step_time(data: Data, small: bool, rounds: int) -> measuring.Figures:
    """Return milliseconds of the client's step without NoPeek, and how many times as long it is with it."""
    people = cl.data.arrays(data["x_train"][:TIMED_ROWS], data["y_train"][:TIMED_ROWS]).split_rows(1)
    made = small_network if small else network
    settings = SETTINGS | {"batch": TIMED_BATCH, "epochs": 1}

    def client_ms(weight: float) -> float:
        run = study_of(people, made(0), weight, settings, 0).simulate(people)
        worked = [e for e in run.events if isinstance(e, Worked) and e.party == "client-0"]
        return 1000 * sum(e.seconds for e in worked) / max(e.calls for e in worked if e.op == "forward")

    found = measuring.in_turn({"plain": partial(client_ms, 0.0), "nopeek": partial(client_ms, 0.1)}, rounds)
    return {
        "plain_ms": statistics.median(found.values["plain"]),
        "times": measuring.ratio(found.values["nopeek"], found.values["plain"]),
    }


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    if figures["quick"]:
        return []
    found = failures_of(figures)
    times = figures["client_step"]["this network"]["times"]
    if times > MAX_TIME:
        found.append(f"the client's step takes {times:.2f} times as long with NoPeek")
    return found


def client_steps(data: Data, quick: bool) -> measuring.Figures:
    """Return what NoPeek adds to the client's step, of both networks."""
    rounds = 1 if quick else ROUNDS
    times = {"this network": step_time(data, False, rounds), "784 -> 256": step_time(data, True, rounds)}
    return {"client_step": times}


def main() -> int:
    """Train, print, and return the exit status."""
    return ended(__doc__, "mnist", TRIAL, mnist, failures, client_steps)


if __name__ == "__main__":
    sys.exit(main())
