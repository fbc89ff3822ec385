"""Steps a second of VGG-11 in bfloat16, compiled, and both, beside float32 and the uncut loop.

VGG-11 with one linear layer on 512 features, random images of CIFAR-10's shape, batches of 64, SGD with learning rate
0.01 and momentum 0.9, one client, cut after the first block, two threads. The uncut loop in float32 and
`study.simulate` in float32, in bfloat16 (autocast in both segments), with both segments compiled, and with both, in
turn; speeds are those of the last epoch, ratios to the uncut loop are medians over the rounds. Told beside it: how
much longer the first epoch took, in which segments are compiled. What is quick depends on the processor.

Speeds are told and not judged. Ends with 1 if what is in bfloat16 or compiled does not equal its own central twin, bit
for bit.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import measuring
import torch
from torch import Tensor, nn

import cutlayer as cl
from cutlayer.metering.events import EpochEnded

BATCH, CUT, EPOCHS, THREADS = 64, "features.2", 2, 2
RATE, MOMENTUM = 0.01, 0.9
BOTH = ("head", "top")
FORMS = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "compiled": {"compiled": BOTH},
    "bfloat16_compiled": {"precision": "bfloat16", "compiled": BOTH},
}


def uncut(x: Tensor, y: Tensor) -> Callable[[], float]:
    """Return the loop over the uncut network; called, it trains an epoch and returns steps a second."""
    network, loss_of = cl.networks.vgg11(10), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM)

    def epoch() -> float:
        began, total = time.perf_counter(), 0.0
        for rows in torch.split(torch.arange(len(x)), BATCH):
            optimizer.zero_grad()
            loss = loss_of(network(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += loss.item()
        return len(x) / BATCH / (time.perf_counter() - began)

    return epoch


def simulated(study: cl.Study, people: cl.data.Holdings, beyond: list[float]) -> Callable[[], float]:
    """Return a simulation; called, it returns the last epoch's steps a second and notes the first one's extra time."""

    def train() -> float:
        epochs = [event for event in study.simulate(people).events if isinstance(event, EpochEnded)]
        beyond.append(epochs[0].seconds - epochs[-1].seconds)
        return epochs[-1].steps / epochs[-1].seconds

    return train


def measure(rounds: int, steps: int) -> measuring.Figures:
    """Return steps a second of all sides, their ratios to the uncut loop, and which equal their twins."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(steps * BATCH, 3, 32, 32, generator=draw)
    y = torch.randint(0, 10, (len(x),), generator=draw)
    people = cl.data.arrays(x, y).split_rows(1)
    plain = cl.Study(
        graph=cl.vanilla(cl.networks.vgg11(10), CUT, clients=people),
        optimizer=cl.optim.SGD(lr=RATE, momentum=MOMENTUM), batch_size=BATCH, epochs=EPOCHS, evaluate=(),
    )  # fmt: skip
    studies = {name: replace(plain, **form) for name, form in FORMS.items()}
    beyond: dict[str, list[float]] = {name: [] for name in FORMS}
    sides = {name: simulated(study, people, beyond[name]) for name, study in studies.items()}
    found = measuring.in_turn({"uncut": uncut(x, y), **sides}, rounds, warm_up=rounds > 1)
    equal = {}
    for name, study in studies.items():
        once = replace(study, epochs=1)
        equal[name] = once.simulate(people).equals(once.central(people))
    return {
        "steps_per_second": found.medians(),
        "ratio_to_uncut": {
            name: measuring.ratio(found.values[name], found.values["uncut"]) for name in FORMS
        },
        "first_epoch_longer_seconds": {name: statistics.median(values) for name, values in beyond.items()},
        "equal_to_twin": equal,
        "threads": THREADS,
        "rounds": rounds,
        "steps_per_epoch": steps,
    }


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    return [f"{name} differs from its twin" for name, same in figures["equal_to_twin"].items() if not same]


def main() -> int:
    """Measure, print, and return the exit status."""
    arguments = measuring.parser(__doc__).parse_args()
    torch.set_num_threads(THREADS)
    print("VGG-11, steps a second:")
    figures = measure(*((1, 2) if arguments.quick else (7, 8))) | {"quick": arguments.quick}
    for name, speed in figures["steps_per_second"].items():
        ratio = figures["ratio_to_uncut"].get(name, 1.0)
        print(f"{name:18} {speed:8.3f} steps/s, {ratio:.2f} of the uncut loop in float32")
    return measuring.finish("precision", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
