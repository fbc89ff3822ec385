"""Rows without labels help where labels are few, and cause no traffic.

Gupta & Raskar 2018, algorithm 3. Handwritten digits (scikit-learn, 8 x 8 pixels), four clients in turn that keep the
labels of 3.5 % of their rows, about 13 each; the others are rows without labels. A network 64 -> 128 -> 32 -> 64 -> 10,
cut after the 32, Adam with learning rate 0.003, batches of 25, 50 epochs; the decoder 32 -> 128 -> 64 is weighted with
1. Five seeds, each with other labelled rows and other weights. Held-out accuracy of:

- labels only: no decoder;
- labels only, twice the epochs: to see how much is only longer training;
- decoder, labelled rows: the reconstruction of the same rows joins the clients' part;
- decoder, all rows: and rows without labels teach encoder and decoder at home;
- all labels: what there would be to gain.

Ends with 1 if training with all rows is not at least 1 point above labels only, or not above either of the two ways
with labels only by more than two standard errors of the difference over the seeds, or if rows without labels change the
bytes sent, or weights differ from the uncut twin's in any bit.
"""

from __future__ import annotations

import math
import statistics
import sys
from dataclasses import dataclass

import measuring
import torch
from torch import nn

import cutlayer as cl
from cutlayer.metering.events import Traffic

KEEP, ALPHA, BATCH, EPOCHS = 0.035, 1.0, 25, 50
SEEDS = range(5)
MIN_POINTS, MIN_ERRORS = 1.0, 2.0


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to train: with a decoder or without, on which rows, how long."""

    decoder: bool = False
    unlabelled: bool = False
    all_labels: bool = False
    times: int = 1


WAYS = {
    "labels only": Way(),
    "labels only, longer": Way(times=2),
    "decoder, labelled rows": Way(decoder=True),
    "decoder, all rows": Way(decoder=True, unlabelled=True),
    "all labels": Way(all_labels=True),
}


def study_of(way: Way, seed: int, epochs: int) -> tuple[cl.Study, cl.data.Holdings]:
    """Return the study, whose clients' parts have the same initial weights in every way."""
    people = cl.data.digits().split_rows(4, seed=seed)
    if not way.all_labels:
        people = cl.data.hide_labels(people, keep=KEEP, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        graph = cl.vanilla(cl.networks.mlp((64, 128, 32, 64, 10)), "activation2", clients=people)
        if way.decoder:
            decoder = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 64))
            graph = cl.with_decoder(graph, decoder, alpha=ALPHA)
    study = cl.Study(
        graph=graph,
        schedule=cl.RoundRobin(unlabelled=way.unlabelled),
        optimizer=cl.optim.Adam(lr=0.003),
        batch_size=BATCH,
        epochs=epochs * way.times,
        seed=seed,
        metrics=("accuracy",),
        evaluate=("test",),
    )
    return study, people


def sent(run: cl.Run) -> int:
    """Return the bytes of all frames of training and evaluation."""
    return sum(event.frame_bytes for event in run.events if isinstance(event, Traffic))


def measure(epochs: int, seeds: range) -> measuring.Figures:
    """Return accuracies by way and seed, bytes, and whether weights equal the twin's."""
    accuracy: dict[str, list[float]] = {name: [] for name in WAYS}
    sizes: dict[str, list[int]] = {name: [] for name in WAYS}
    equal = True
    for seed in seeds:
        for name, way in WAYS.items():
            study, people = study_of(way, seed, epochs)
            run = study.simulate(people)
            accuracy[name].append(run.metrics("test")["accuracy"])
            sizes[name].append(sent(run))
            if way.unlabelled and seed == seeds[0]:
                equal = run.equals(study.central(people))
        print(
            f"seed {seed}: " + ", ".join(f"{name} {found[-1]:.3f}" for name, found in accuracy.items()),
            flush=True,
        )
    return {
        "accuracy": accuracy,
        "mean": {name: statistics.mean(found) for name, found in accuracy.items()},
        "standard_deviation": {name: spread(found) for name, found in accuracy.items()},
        "gain": {name: gain(accuracy["decoder, all rows"], found) for name, found in accuracy.items()},
        "labels": [sum(len(p.splits["train"]) for p in study_of(Way(), s, 1)[1].parties) for s in seeds],
        "sent_bytes": sizes,
        "same_bytes": sizes["decoder, all rows"] == sizes["decoder, labelled rows"],
        "equal_to_twin": equal,
        "epochs": epochs,
    }


def gain(found: list[float], other: list[float]) -> dict[str, float]:
    """Return how many points ``found`` is above ``other``, seed by seed: their mean and its standard error."""
    points = [100 * (a - b) for a, b in zip(found, other, strict=True)]
    return {"points": statistics.mean(points), "error": spread(points) / math.sqrt(len(points))}


def spread(found: list[float]) -> float:
    """Return the standard deviation over seeds; 0 of one alone."""
    return statistics.stdev(found) if len(found) > 1 else 0.0


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    found = []
    points = figures["gain"]["labels only"]["points"]
    if points < MIN_POINTS and not figures["quick"]:
        found.append(f"{points:.1f} points above labels only, at least {MIN_POINTS} is wanted")
    for name in ("labels only", "labels only, longer"):
        over, error = figures["gain"][name]["points"], figures["gain"][name]["error"]
        if over <= MIN_ERRORS * error and not figures["quick"]:
            found.append(f"{over:.1f} points above {name}, with a standard error of {error:.1f}")
    if not figures["same_bytes"]:
        found.append("rows without labels changed the bytes sent")
    if not figures["equal_to_twin"]:
        found.append("weights differ from the uncut twin's")
    return found


def main() -> int:
    """Train, print, and return the exit status."""
    arguments = measuring.parser(__doc__).parse_args()
    measuring.one_thread()
    made = measure(2, range(1)) if arguments.quick else measure(EPOCHS, SEEDS)
    figures = made | {"quick": arguments.quick}
    for name in WAYS:
        print(
            f"{name}: {100 * figures['mean'][name]:.1f} % +- {100 * figures['standard_deviation'][name]:.1f}"
        )
    return measuring.finish("semi_supervised", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
