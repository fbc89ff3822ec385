"""Steps a second of VGG-11 on CIFAR-10, where the arithmetic costs most.

VGG-11 with one linear layer on 512 features, 32 x 32 pixels, batches of 64, SGD with learning rate 0.01 and
momentum 0.9, one client, cut after the first block (``features.2``: convolution, ReLU, pooling; 4 MB of
activations a batch). ``study.simulate`` is compared with a plain loop over the uncut network that takes
the same rows in the same order; both in turn, in one thread; the ratio is the median over the rounds. The weights
of both are compared too: they are equal to the last bit.

The images are CIFAR-10's where its file is given, else random ones of the same shape, which take as long.

Ends with 1 if ``simulate`` makes less than 0.97 times the steps a second of the uncut loop, or if the
weights differ.
"""

from __future__ import annotations

import copy
import sys
import time
from pathlib import Path

import measuring
import torch
from torch import Tensor, nn

import cutlayer as cl

MIN_RATIO = 0.97
BATCH, CUT = 64, "features.2"
RATE, MOMENTUM = 0.01, 0.9


def images(path: Path | None, rows: int) -> tuple[str, Tensor, Tensor]:
    """Return what the images are, pixels [rows, 3, 32, 32] and labels [rows]."""
    real = measuring.read_cifar10(path)
    if real is not None:
        return "CIFAR-10", real[0][:rows].clone(), real[1][:rows].clone()
    draw = torch.Generator().manual_seed(0)
    pixels = torch.rand(rows, 3, 32, 32, generator=draw)
    return "random images of CIFAR-10's shape", pixels, torch.randint(0, 10, (rows,), generator=draw)


def train_uncut(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Train the uncut network on all rows in their order; return steps a second."""
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM)
    loss_of = nn.CrossEntropyLoss()
    network.train()
    began, steps, total = time.perf_counter(), 0, 0.0
    for rows in torch.split(torch.arange(len(x)), BATCH):
        optimizer.zero_grad()
        loss = loss_of(network(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        total += loss.item()
        steps += 1
    return steps / (time.perf_counter() - began)


def measure(path: Path | None, rounds: int, steps: int) -> measuring.Figures:
    """Return steps a second of both sides, their ratio, and whether their weights are equal."""
    what, x, y = images(path, steps * BATCH)
    print(f"{what}, {steps} steps a round, steps a second:")
    people = cl.data.arrays(x, y).split_rows(1)
    network = cl.networks.vgg11(10)
    study = cl.Study(
        graph=cl.vanilla(network, CUT, clients=people), optimizer=cl.optim.SGD(lr=RATE, momentum=MOMENTUM),
        batch_size=BATCH, shuffle=False, evaluate=(),
    )  # fmt: skip
    rows = people.party("client-0").splits["train"].batch(torch.arange(len(x)))
    x, y = rows["x"], rows["y"]
    trained: dict[str, dict[str, Tensor]] = {}

    def simulate() -> float:
        run = study.simulate(people)
        origin = {name: segment.origin for name, segment in study.graph.segments.items()}
        trained["split"] = {origin[s][n]: t for s, state in run.weights().items() for n, t in state.items()}
        return steps / measuring.training_seconds(run)

    def uncut() -> float:
        fresh = copy.deepcopy(network)
        speed = train_uncut(fresh, x, y)
        trained["uncut"] = fresh.state_dict()
        return speed

    found = measuring.in_turn({"simulate": simulate, "uncut": uncut}, rounds)
    same = trained["split"].keys() == trained["uncut"].keys() and all(
        torch.equal(tensor, trained["uncut"][name]) for name, tensor in trained["split"].items()
    )
    return {
        "images": what,
        "steps_per_second": found.medians(),
        "ratio_to_uncut": measuring.ratio(found.values["simulate"], found.values["uncut"]),
        "ratio_of_cpu_seconds": measuring.ratio(found.cpu_seconds["uncut"], found.cpu_seconds["simulate"]),
        "weights_equal": same,
        "rounds": rounds,
        "steps_per_round": steps,
        "min_ratio": MIN_RATIO,
    }


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    found = [] if figures["weights_equal"] else ["the weights differ from those of the uncut network"]
    reached = figures["ratio_to_uncut"]
    if reached < MIN_RATIO and not figures["quick"]:
        found.append(f"{reached:.3f} of the uncut loop, at least {MIN_RATIO} is wanted")
    return found


def main() -> int:
    """Measure, print, and return the exit status."""
    arguments = measuring.parser(__doc__, cifar10=True).parse_args()
    measuring.one_thread()
    rounds, steps = (1, 2) if arguments.quick else (13, 3)
    figures = measure(arguments.cifar10, rounds, steps) | {"quick": arguments.quick}
    for name, speed in figures["steps_per_second"].items():
        print(f"{name:10} {speed:8.3f} steps/s")
    print(f"simulate makes {figures['ratio_to_uncut']:.3f} times the steps of the uncut loop")
    print(f"the weights of both are {'equal to the last bit' if figures['weights_equal'] else 'NOT equal'}")
    return measuring.finish("vgg11_cifar", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
