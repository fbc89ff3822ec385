"""Steps a second of a small network, where the frames cost most beside the arithmetic.

Workload W: 784 -> 256 ReLU | 256 -> 10, cut at the bar, batches of 64, SGD with learning rate 0.05, float32,
one client, 12,800 rows of random numbers of MNIST's shape. ``study.simulate`` makes, counts and checks every
frame; it is compared with loops written by hand that have both halves in one process and just detach the
activation: (a) rows taken with ``x[rows]`` from tensors in memory; (b) rows through
``DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)``. All sides in turn, in one thread; a ratio is
the median over the rounds. Told beside it: the time to build parties before the first step, and the ratio
of processor seconds to loop (a), building included, which other programs on the machine disturb less.

Ends with 1 if ``simulate`` makes less than 0.9 times the steps a second of loop (a).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator

import measuring
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import cutlayer as cl

MIN_RATIO = 0.9
ROWS, BATCH, RATE = 12_800, 64, 0.05

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]


def halves() -> tuple[nn.Module, nn.Module]:
    """Return the client's and the server's half."""
    network = cl.networks.mlp((784, 256, 10))
    return network[:3], network[3:]


def by_hand(batches: Batches) -> Callable[[], float]:
    """Return a loop over both halves in one process; called, it trains an epoch and returns steps a second."""
    head, top = halves()
    client, server = (torch.optim.SGD(half.parameters(), lr=RATE) for half in (head, top))
    loss_of = nn.CrossEntropyLoss()

    def epoch() -> float:
        began, steps, total = time.perf_counter(), 0, 0.0
        for x, y in batches():
            activation = head(x)
            smashed = activation.detach().requires_grad_()
            loss = loss_of(top(smashed), y)
            server.zero_grad()
            loss.backward()
            client.zero_grad()
            activation.backward(smashed.grad)
            server.step()
            client.step()
            total += loss.item()
            steps += 1
        return steps / (time.perf_counter() - began)

    return epoch


def in_memory(x: Tensor, y: Tensor) -> Batches:
    """Return batches taken from tensors by their row numbers, in a new order each time."""

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.split(torch.randperm(len(x)), BATCH):
            yield x[rows], y[rows]

    return batches


def simulated(x: Tensor, y: Tensor, built: list[float]) -> Callable[[], float]:
    """Return a simulation of one epoch; called, it returns steps a second and notes the time before them."""
    people = cl.data.arrays(x, y).split_rows(1)
    graph = cl.vanilla(cl.networks.mlp((784, 256, 10)), "activation1", clients=people)
    study = cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=RATE), batch_size=BATCH, evaluate=())

    def epoch() -> float:
        began = time.perf_counter()
        seconds = measuring.training_seconds(study.simulate(people))
        built.append(time.perf_counter() - began - seconds)
        return ROWS / BATCH / seconds

    return epoch


def measure(rounds: int) -> measuring.Figures:
    """Return steps a second of all sides and their ratios."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(ROWS, 784, generator=draw), torch.randint(0, 10, (ROWS,), generator=draw)
    built: list[float] = []
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)
    found = measuring.in_turn(
        {
            "simulate": simulated(x, y, built),
            "loop_in_memory": by_hand(in_memory(x, y)),
            "loop_data_loader": by_hand(lambda: iter(loader)),
        },
        rounds,
    )
    values, cpu = found.values, found.cpu_seconds
    return {
        "steps_per_second": found.medians(),
        "ratio_to_loop_in_memory": measuring.ratio(values["simulate"], values["loop_in_memory"]),
        "ratio_to_loop_data_loader": measuring.ratio(values["simulate"], values["loop_data_loader"]),
        "ratio_of_cpu_seconds": measuring.ratio(cpu["loop_in_memory"], cpu["simulate"]),
        "before_first_step_seconds": statistics.median(built),
        "rounds": rounds,
        "steps_per_round": ROWS // BATCH,
        "min_ratio": MIN_RATIO,
    }


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    reached = figures["ratio_to_loop_in_memory"]
    if reached < MIN_RATIO and not figures["quick"]:
        return [f"{reached:.3f} of the loop in memory, at least {MIN_RATIO} is wanted"]
    return []


def main() -> int:
    """Measure, print, and return the exit status."""
    arguments = measuring.parser(__doc__).parse_args()
    measuring.one_thread()
    print("Workload W, steps a second:")
    figures = measure(3 if arguments.quick else 41) | {"quick": arguments.quick}
    for name, speed in figures["steps_per_second"].items():
        print(f"{name:20} {speed:8.0f} steps/s")
    print(f"simulate makes {figures['ratio_to_loop_in_memory']:.3f} times the steps of the loop in memory,")
    print(f"{figures['ratio_to_loop_data_loader']:.3f} times those of the loop with a DataLoader")
    return measuring.finish("workload_w", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
