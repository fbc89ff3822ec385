"""What schedules reach and cost: HAM10000's four clinics, and ten clients with skewed classes of CIFAR-10.

HAM10000: malignant or not, 32 pixels, each clinic with its own images; a fifth of the lesions is held out, other ones
with each seed. CIFAR-10: 10,000 images dealt by a Dirichlet distribution with alpha 0.3 (another deal with each seed),
2,000 test images in equal numbers. The same network everywhere: three convolutions (16, 32, 64 channels) with
group normalisation and a linear layer, cut after the first, 4,096 values a row; local losses have a linear layer on
4 x 4 means beside it. Adam with learning rate 0.002 in all parts, tuned for none. A batch is 64 rows of one
client, or of all clients where they train in one step. The test rows are those that a client has, and meet its own
part where it has one.

Accuracy, and AUC over all clinics' rows; bytes that a client sends and receives in training; the FLOPs of its own
training; and the time that training would take if each client had 20 GFLOP/s, the server 200, with 40 ms and 100 Mbit/s
between them (simulated_clock.py). Means and standard deviations over three seeds.

Each run is kept, so that what was interrupted goes on where it was; about 35 minutes on one core. Ends with 1 if a
schedule learns nothing, that is if its mean AUC is not above 0.5.

    python benchmarks/schedules_table.py --cifar10 cifar10.npz --ham10000 ham10000.npz
    python benchmarks/schedules_table.py --table     # writes the table into docs/schedules-compared.md, and the plot
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import defaultdict
from collections.abc import Callable

import measuring
import torch
from common import real_images, schedules_shown
from common.kept_runs import RESULTS, Kept, mean, spread
from common.simulated_clock import Hosts, Needs, walk
from torch import nn

import cutlayer as cl
from cutlayer.metering.events import Computed, Traffic
from cutlayer.schedules import Schedule
from cutlayer.sessions.process import keep_memory

NAME = "schedules_table"
ROWS, TEST, CLIENTS, ALPHA = 10_000, 2_000, 10, 0.3
BATCH, RATE = 64, 0.002
EPOCHS = {"HAM10000": 6, "CIFAR-10": 6}
HOSTS = Hosts()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """A schedule, and what it needs.

    Attributes:
        schedule: The schedule.
        joint: All clients' rows make one batch, so each has its part of it only.
        local: There is a loss at the client.
        pooled: One client has all rows.
    """

    schedule: Schedule
    joint: bool = False
    local: bool = False
    pooled: bool = False


WAYS = {
    "all rows at one client": Way(schedule=cl.RoundRobin(), pooled=True),
    "round robin": Way(schedule=cl.RoundRobin()),
    "round robin, turns of 4 batches": Way(schedule=cl.RoundRobin(turn=4)),
    "SplitFed v1": Way(schedule=cl.SplitFed(version=1)),
    "SplitFed v1, rounds of 4 batches": Way(schedule=cl.SplitFed(version=1, round=4)),
    "SplitFed v2": Way(schedule=cl.SplitFed(version=2)),
    "SplitFed v3": Way(schedule=cl.SplitFed(version=3)),
    "parallel, own parts": Way(schedule=cl.Parallel(), joint=True),
    "parallel, averaged parts": Way(schedule=cl.Parallel(heads="averaged", round=1), joint=True),
    "GPSL": Way(schedule=cl.Parallel(batches="global")),
    "asynchronous": Way(schedule=cl.Asynchronous(round=4)),
    "local loss (SplitFed v1)": Way(schedule=cl.SplitFed(version=1, local=True), local=True),
    "personalised (SplitFed v2)": Way(schedule=cl.SplitFed(version=2, personal=True)),
}


def halves(classes: int, seed: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Return the client's part, the server's, and the client's guess for a loss of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = nn.Sequential(nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.GroupNorm(4, 16), nn.ReLU())
        second = [nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU(), nn.MaxPool2d(2)]
        third = [nn.Conv2d(32, 64, 3, padding=1), nn.GroupNorm(4, 64), nn.ReLU(), nn.MaxPool2d(2)]
        rest = nn.Sequential(*second, *third, nn.Flatten(), nn.Linear(1024, classes))
        guess = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(256, classes))
    return first, rest, guess


def graph_of(people: cl.data.Holdings, classes: int, seed: int, local: bool) -> cl.SplitGraph:
    """Return the graph, with or without a loss at the client."""
    first, rest, guess = halves(classes, seed)
    segments = [cl.Segment("head", "client", first, ("x",)), cl.Segment("top", "server", rest, ("head",))]
    losses = [cl.Loss(role="server", prediction="top")]
    if local:
        segments.append(cl.Segment("guess", "client", guess, ("head",)))
        losses.append(cl.Loss(role="client", prediction="guess", name="local"))
    shares = [cl.Share("y", "client", "server")]
    return cl.SplitGraph.over(people, segments=segments, losses=losses, shares=shares)


def train(way: Way, people: cl.data.Holdings, classes: int, seed: int, epochs: int) -> measuring.Figures:
    """Return what one run reached and cost."""
    clients = [party.name for party in people.parties]
    study = cl.Study(
        graph=graph_of(people, classes, seed, way.local),
        schedule=way.schedule,
        optimizer=cl.optim.Adam(lr=RATE),
        batch_size=max(BATCH // len(clients), 1) if way.joint else BATCH,
        epochs=epochs,
        seed=seed,
        metrics=("accuracy", "auc"),
        evaluate=("test",),
    )
    run = study.simulate(people)
    program = dataclasses.replace(study, evaluate=()).program(people)
    times = walk(program, Needs(run.events), HOSTS, clients)
    moved: defaultdict[str, float] = defaultdict(float)
    for event in run.events:
        if isinstance(event, Traffic) and event.phase == "training":
            moved[event.sender, "up"] += event.frame_bytes
            moved[event.receiver, "down"] += event.frame_bytes
    for (sender, receiver), size in times.state_bytes.items():
        moved[sender, "up"] += epochs * size
        moved[receiver, "down"] += epochs * size
    flops = sum(
        e.flops
        for e in run.events
        if isinstance(e, Computed) and e.phase == "training" and e.party in clients
    )
    return {
        "accuracy": 100 * run.metrics("test", "loss")["accuracy"],
        "auc": run.metrics("test", "loss").get("auc"),
        "up_mb": sum(moved[name, "up"] for name in clients) / len(clients) / 1e6,
        "down_mb": sum(moved[name, "down"] for name in clients) / len(clients) / 1e6,
        "client_gflop": flops / len(clients) / 1e9,
        "minutes": epochs * times.seconds / 60,
    }


def holdings(name: str, asked: argparse.Namespace) -> Callable[[int, bool], cl.data.Holdings]:
    """Return what deals the rows of a data set: by seed, to its clients or all to one."""
    small = asked.quick

    def ham(seed: int, pooled: bool) -> cl.data.Holdings:
        source = real_images.ham10000(asked.ham10000, seed)
        return source.split_rows(1) if pooled else source.split_rows(by="site")

    def cifar(seed: int, pooled: bool) -> cl.data.Holdings:
        source = real_images.cifar10(asked.cifar10, 600 if small else ROWS, 200 if small else TEST)
        if pooled:
            return source.split_rows(1)
        return source.split_rows(CLIENTS, by="dirichlet", alpha=ALPHA, seed=seed)

    return ham if name == "HAM10000" else cifar


def measure(asked: argparse.Namespace) -> measuring.Figures:
    """Return the figures of all schedules on both data sets."""
    kept = Kept(NAME, {"rows": ROWS, "batch": BATCH, "rate": RATE}, quick=asked.quick)
    seeds = range(1 if asked.quick else asked.seeds)
    found: measuring.Figures = {}
    for seed in seeds:
        for data, full in EPOCHS.items():
            deal, epochs = holdings(data, asked), 1 if asked.quick else full
            classes = 2 if data == "HAM10000" else 10
            for name, way in WAYS.items():
                one = kept.run(
                    f"{data}, {way}, {epochs} epochs, seed {seed}",
                    lambda: train(way, deal(seed, way.pooled), classes, seed, epochs),  # noqa: B023
                )
                found.setdefault(data, {}).setdefault(name, []).append(one)
                print(
                    f"seed {seed} {data} {name:33} {one['accuracy']:5.2f} %  AUC {one['auc']:.3f}"
                    f"  {one['up_mb'] + one['down_mb']:7.1f} MB  {one['minutes']:6.2f} min  {one['seconds']:5.1f} s",
                    flush=True,
                )
    return {
        "data": {data: {name: summary(runs) for name, runs in rows.items()} for data, rows in found.items()},
        "epochs": EPOCHS,
        "hosts": dataclasses.asdict(HOSTS),
        "seeds": len(seeds),
        "quick": asked.quick,
    }


def summary(runs: list[measuring.Figures]) -> measuring.Figures:
    """Return mean and standard deviation over seeds of each figure, and the accuracies and AUCs themselves."""
    figures = {name: [one[name] for one in runs] for name in runs[0]}
    both = {name: {"mean": mean(f), "standard_deviation": spread(f)} for name, f in figures.items()}
    return both | {"accuracies": figures["accuracy"], "aucs": figures["auc"]}


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    if figures["quick"]:
        return []
    return [
        f"{data}, {name}: the mean AUC is {one['auc']['mean']:.3f}"
        for data, rows in figures["data"].items()
        for name, one in rows.items()
        if one["auc"]["mean"] <= 0.5
    ]


def main() -> int:
    """Train, print, and return the exit status."""
    parser = measuring.parser(__doc__)
    real_images.wanted(parser, "cifar10")
    real_images.wanted(parser, "ham10000")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="only write table and plot, from the results")
    asked = parser.parse_args()
    if asked.table:
        schedules_shown.show(json.loads((RESULTS / f"{NAME}.json").read_text())["figures"])
        return 0
    measuring.one_thread()
    keep_memory()
    figures = measure(asked)
    return measuring.finish(NAME, figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
