"""The true VGG-16 of the seed's experiment, for as far as two cores go: SplitNN, FedAvg and large-batch SGD.

VGG-16 with batch normalisation and the head 4096-4096-1000, images of 32 x 32: 37,702,696 parameters, 0.67 GFLOP a
forward. SplitNN is cut after the first convolution's ReLU and goes round robin, a batch a turn, over 100 clients with
50 rows each (the first 5,000 training images of CIFAR-10, batches of 50, SGD with 0.01 and momentum 0.9), for so many
epochs as time allows. FedAvg does one round with 2 of the 100 clients: a full local epoch of each is what a client can
be asked at best, and is some 280 times the compute of SplitNN's epoch. Large-batch SGD does two steps with a batch of
every client, at four times the learning rate. Accuracy is of the first 500 test images.

What must hold is the cost: FLOPs of a client in SplitNN, against those of a client that has the whole network, for the
same rows, as the meters count them and as `cutlayer plan` foretells them.

    python benchmarks/seed_vgg16.py --cifar10 cifar10.npz

Ends with 1 if the meters' ratio is not the planner's.
"""

from __future__ import annotations

import argparse
import math
import sys

import measuring
from common import real_images
from common.kept_runs import RESULTS
from seed_experiment import FEDAVG, LARGE, SPLIT, Told, flops_of_a_row, planned_ratio, random_images
from torch import nn

import cutlayer as cl
from cutlayer.baselines import FedAvg, LargeBatch, Method, curve_of, train, training_share
from cutlayer.sessions.process import keep_memory

NAME, CUT = "seed_vgg16", "features.2"
CLIENTS, ROWS, TEST, BATCH, EPOCHS, RATE = 100, 5_000, 500, 50, 4, 0.01
SAMPLED = 2


def network() -> nn.Module:
    """Return the network, [B, 3, 32, 32] -> [B, 1000]; classes from 10 on never occur."""
    return cl.networks.vgg16(1000, batch_norm=True, head="imagenet", pixels=32)


def measure(asked: argparse.Namespace) -> measuring.Figures:
    """Return what both come to, and the ratio of a client's compute by meters and by planner."""
    clients, rows, test, epochs = (2, 100, 10, 1) if asked.quick else (CLIENTS, ROWS, TEST, asked.epochs)
    source = random_images(rows, test) if asked.quick else real_images.cifar10(asked.cifar10, rows, test)
    people = source.split_rows(clients, seed=0, test="first")
    names = [party.name for party in people.parties]
    study = cl.Study(
        graph=cl.vanilla(network(), CUT, clients=people),
        optimizer=cl.optim.SGD(lr=RATE, momentum=0.9),
        schedule=cl.RoundRobin(turn=1),
        batch_size=BATCH,
        epochs=epochs,
        metrics=("accuracy",),
        evaluate=("test",),
    )
    folder = None if asked.quick else RESULTS / f"{NAME}.partial"
    resume = folder is not None and (folder / "log.jsonl").is_file()
    split = study.simulate(people, out=folder, resume=resume, on_progress=Told(SPLIT))
    curves = [curve_of(SPLIT, split.events, names, share=training_share(study, people, epochs))]
    whole = []
    methods: dict[str, Method] = {
        FEDAVG: FedAvg(rounds=1, sample=min(1.0, SAMPLED / clients)),
        LARGE: LargeBatch(rounds=2, steps=1, rate=4.0),
    }
    for name, method in methods.items():
        done = train(study, people, method, on_progress=Told(name))
        curves.append(curve_of(name, done.events, names))
        whole.append(flops_of_a_row(done.events, names))
    return {
        "curves": {one.name: [vars(point) for point in one.points] for one in curves},
        "metered_ratios": [flops_of_a_row(split.events, names) / other for other in whole],
        "planned_ratio": planned_ratio(network(), CUT, clients, rows),
        "settings": {"clients": clients, "rows": rows, "test": test, "epochs": epochs, "rate": RATE},
        "quick": asked.quick,
    }


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    metered, planned = figures["metered_ratios"], figures["planned_ratio"]
    if all(math.isclose(ratio, planned, rel_tol=1e-9) for ratio in metered):
        return []
    return [f"a client computes {metered} of what it would with the whole network, not {planned}"]


def main() -> int:
    """Train, print, and return the exit status."""
    parser = measuring.parser(__doc__)
    real_images.wanted(parser, "cifar10")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    asked = parser.parse_args()
    measuring.one_thread()
    keep_memory()
    figures = measure(asked)
    for name, points in figures["curves"].items():
        for point in points:
            print(
                f"{name:15} {point['score']:.3f} at {point['flops']:.3g} FLOP and {point['bytes']:.3g} bytes a client"
            )
    print(f"client compute for the same rows: {figures['metered_ratios'][0]:.6f} of the whole network's")
    return measuring.finish(NAME, figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
