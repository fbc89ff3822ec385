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

Ends with 1 if no weight brings distance correlation in batches of 32 to 0.48 or less with at most 1 point of accuracy
lost, if the decoder's SSIM falls with none of them, or if NoPeek adds more than 20 % to the client's step.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from functools import partial

import measuring
import numpy as np
import torch
from common import real_images
from common.kept_runs import Kept, mean, paired, standard_error
from torch import Tensor, nn
from torch.nn import functional as F

import cutlayer as cl
from cutlayer.audit.learning import applied, fit, seeded
from cutlayer.audit.scores import independent_classifier, reclassified, structural_similarity
from cutlayer.metering.events import Worked
from cutlayer.privacy import Noise
from cutlayer.privacy.distance import (
    corrected_distance_correlation,
    correlation_of,
    distance_correlation,
    distances,
    permuted,
)
from cutlayer.privacy.nopeek import NoPeek

NAME = "nopeek"
WEIGHTS = (0.0, 0.5, 2.0)
ROWS, TEST, BATCH, EPOCHS, RATE = 20_000, 3_000, 32, 2, 1e-3
LEAKED, JUDGED, DECODER_STEPS = 5_000, 1_000, 1_500
TIMED_BATCH, TIMED_ROWS, ROUNDS = 64, 1_920, 5
MAX_CORRELATION, MAX_LOST, MAX_TIME = 0.48, 1.0, 1.2


def network(seed: int) -> nn.Sequential:
    """Return the network, [B, 1, 28, 28] -> [B, 10]; ``first`` is the client's part."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(9216, 500), nn.Tanh(),
        )  # fmt: skip
        rest = nn.Sequential(nn.Linear(500, 128), nn.ReLU(), nn.Linear(128, 10))
        made = nn.Sequential()
        made.add_module("first", first)
        made.add_module("rest", rest)
        return made


def small_network(seed: int) -> nn.Sequential:
    """Return 784 -> 256 at the client, 10 at the server."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = nn.Sequential()
        made.add_module("first", nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU()))
        made.add_module("rest", nn.Linear(256, 10))
        return made


def mnist(asked: argparse.Namespace, rows: int, test: int) -> dict[str, Tensor]:
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


def study_of(
    people: cl.data.Holdings, made: nn.Sequential, weight: float, batch: int, epochs: int, seed: int
) -> cl.Study:
    """Return a study of one client with NoPeek, if its weight is not 0."""
    return cl.Study(
        graph=cl.vanilla(made, "first", clients=people),
        optimizer=cl.optim.Adam(lr=RATE),
        batch_size=batch,
        epochs=epochs,
        seed=seed,
        evaluate=(),
        defences=[NoPeek(weight=weight)] if weight else (),
    )


def train(
    data: dict[str, Tensor], judge: nn.Module, weight: float, seed: int, epochs: int, decoder_steps: int
) -> measuring.Figures:
    """Return what one run comes to."""
    people = cl.data.arrays(data["x_train"], data["y_train"]).split_rows(1)
    study = study_of(people, network(seed), weight, BATCH, epochs, seed)
    run = study.simulate(people)
    guess = torch.as_tensor(run.predict(data["x_test"], batch_size=500))
    head = copy.deepcopy(study.graph.segments["head"].module)
    head.load_state_dict(run.weights()["head"])
    head.eval()
    return {
        "accuracy": 100 * float((guess.argmax(1) == data["y_test"]).double().mean()),
        **correlations(data["x_test"], applied(head, data["x_test"])),
        **decoded(data, head, judge, seed, decoder_steps),
    }


def correlations(x: Tensor, z: Tensor) -> measuring.Figures:
    """Return what distance correlation tells of images and their activations."""
    noise, biased, by_chance = Noise(b"the order does not matter", NAME), [], []
    for rows, sent in zip(torch.split(x, BATCH), torch.split(z, BATCH), strict=True):
        a, b = distances(rows, "squared"), distances(sent, "squared")
        biased.append(float(correlation_of(a, b)))
        by_chance.append(float(correlation_of(a, permuted(b, noise.permutation(len(b))))))
    rows, sent = x[:JUDGED].double(), z[:JUDGED].double()
    return {
        "correlation": mean(biased),
        "correlation_permuted": mean(by_chance),
        "correlation_1000": float(distance_correlation(rows, sent, "squared")),
        "corrected": float(corrected_distance_correlation(rows, sent, "squared")),
        "corrected_euclidean": float(corrected_distance_correlation(rows, sent)),
    }


def decoded(
    data: dict[str, Tensor], head: nn.Module, judge: nn.Module, seed: int, steps: int
) -> measuring.Figures:
    """Return how well a decoder with leaked pairs makes images of activations."""
    leaked, truth = data["x_train"][:LEAKED], data["x_test"][:JUDGED]
    with seeded(seed, "leaked pairs"):
        decoder = nn.Sequential(
            nn.Linear(500, 1024), nn.ReLU(), nn.Linear(1024, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28))
        )
        fit(decoder, applied(head, leaked), leaked, F.mse_loss, steps=steps)
    guess = applied(decoder, applied(head, truth))
    blind = leaked.mean(0, keepdim=True).expand_as(truth)
    return {
        "ssim": structural_similarity(guess, truth, 0.0, 1.0),
        "mse": float((guess - truth).square().mean()),
        "reclassified": 100 * reclassified(judge, guess, data["y_test"][:JUDGED]),
        "ssim_blind": structural_similarity(blind.contiguous(), truth, 0.0, 1.0),
        "reclassified_original": 100 * reclassified(judge, truth, data["y_test"][:JUDGED]),
    }


def step_time(data: dict[str, Tensor], small: bool, rounds: int) -> measuring.Figures:
    """Return milliseconds of the client's step without NoPeek, and how many times as long it is with it."""
    people = cl.data.arrays(data["x_train"][:TIMED_ROWS], data["y_train"][:TIMED_ROWS]).split_rows(1)
    made = small_network if small else network

    def client_ms(weight: float) -> float:
        run = study_of(people, made(0), weight, TIMED_BATCH, 1, 0).simulate(people)
        worked = [e for e in run.events if isinstance(e, Worked) and e.party == "client-0"]
        return 1000 * sum(e.seconds for e in worked) / max(e.calls for e in worked if e.op == "forward")

    found = measuring.in_turn({"plain": partial(client_ms, 0.0), "nopeek": partial(client_ms, 0.1)}, rounds)
    return {
        "plain_ms": statistics.median(found.values["plain"]),
        "times": measuring.ratio(found.values["nopeek"], found.values["plain"]),
    }


def measure(asked: argparse.Namespace) -> measuring.Figures:
    """Return all figures, by weight."""
    rows, test, epochs, steps = (640, 100, 1, 20) if asked.quick else (ROWS, TEST, EPOCHS, DECODER_STEPS)
    data = mnist(asked, rows, test)
    settings = {
        "rows": rows,
        "test": test,
        "batch": BATCH,
        "epochs": epochs,
        "rate": RATE,
        "leaked": LEAKED,
        "decoder_steps": steps,
    }
    kept = Kept(NAME, settings, quick=asked.quick)
    seeds = range(1 if asked.quick else asked.seeds)
    judge = independent_classifier(data["x_judge"], data["y_judge"], 10, 0, steps=20 if asked.quick else 600)
    runs: dict[float, list[measuring.Figures]] = {weight: [] for weight in WEIGHTS}
    for seed in seeds:
        for weight in WEIGHTS:
            one = kept.run(
                f"weight {weight} seed {seed}", partial(train, data, judge, weight, seed, epochs, steps)
            )
            runs[weight].append(one)
            told = "  ".join(
                f"{name} {one[name]:.3f}" for name in ("correlation", "corrected", "ssim", "reclassified")
            )
            print(
                f"seed {seed} weight {weight}  {one['accuracy']:.2f} %  {told}  {one['seconds']} s",
                flush=True,
            )
    rounds = 1 if asked.quick else ROUNDS
    times = {"this network": step_time(data, False, rounds), "784 -> 256": step_time(data, True, rounds)}
    kept.done()
    found = {f"{weight:g}": summary(made, runs[0.0]) for weight, made in runs.items()}
    return {
        "weights": found,
        "client_step": times,
        "settings": settings,
        "seeds": len(seeds),
        "quick": asked.quick,
    }


def summary(runs: list[measuring.Figures], plain: list[measuring.Figures]) -> measuring.Figures:
    """Return one weight's figures over the seeds."""
    told = [name for name in runs[0] if name != "seconds"]
    means = {name: mean([one[name] for one in runs]) for name in told}
    errors = {name: standard_error([one[name] for one in runs]) for name in told}
    lost = paired([one["accuracy"] for one in plain], [one["accuracy"] for one in runs])
    return {
        "mean": means,
        "standard_error": errors,
        "points_lost": lost,
        "seconds": [one["seconds"] for one in runs],
    }


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    if figures["quick"]:
        return []
    found = []
    plain, *defended = figures["weights"].values()
    good = [
        one
        for one in defended
        if one["mean"]["correlation"] <= MAX_CORRELATION and one["points_lost"]["mean"] <= MAX_LOST
    ]
    if not good:
        told = "; ".join(
            f"{o['mean']['correlation']:.3f} for {o['points_lost']['mean']:.2f}" for o in defended
        )
        found.append(f"distance correlation for points of accuracy lost: {told}")
    if all(one["mean"]["ssim"] >= plain["mean"]["ssim"] for one in defended):
        found.append(f"the decoder's SSIM is {plain['mean']['ssim']:.3f} without NoPeek, and no less with it")
    times = figures["client_step"]["this network"]["times"]
    if times > MAX_TIME:
        found.append(f"the client's step takes {times:.2f} times as long with NoPeek")
    return found


def main() -> int:
    """Train, print, and return the exit status."""
    parser = measuring.parser(__doc__)
    real_images.wanted(parser, "mnist")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    measuring.one_thread()
    figures = measure(asked)
    for weight, one in figures["weights"].items():
        told = "  ".join(f"{name} {value:.3f}" for name, value in one["mean"].items())
        print(f"weight {weight}: {told}")
    return measuring.finish(NAME, figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
