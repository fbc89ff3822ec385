"""Accuracy against what it costs a client, on CIFAR-10 with 100 and 500 clients: SplitNN, FedAvg, large-batch SGD.

The network is a small VGG: six 3 x 3 convolutions with batch normalisation (16, 16, 32, 32, 64, 64 channels, pooling
after each pair), then 1024-64-10; 138,778 parameters, 20 MFLOP a forward. SplitNN is cut after the first convolution
and goes round robin, a batch a turn, for ten epochs. FedAvg draws a tenth of the clients in each round, for one local
epoch; a step of large-batch SGD has a batch of every client, and four times the learning rate. All share initial
weights, rows, batches of 50, SGD with momentum 0.9 and weight decay 0.0005; the others stop at seven times SplitNN's
client compute. Rows are dealt evenly, with a learning rate of 0.05; or by class from a Dirichlet distribution with 0.5,
with 0.02: at 0.05 SplitNN, each batch of which is one client's, came to 43 % in seven epochs and then diverged (100
clients, seed 0). Costs are means over clients: FLOPs forwards and backwards, by PyTorch's counter, and bytes of frames
both ways. Accuracy is of the first 2,000 test images.

Three seeds of initial weights, orders and shares. What was broken off goes on where it was, and some cases alone are
kept for the run of all; a case takes 6 to 14 minutes on a quiet core.

    python benchmarks/seed_experiment.py --cifar10 cifar10.npz --clients 100 --rows-by even
    python benchmarks/seed_experiment.py --table     # writes the table into its pages, and the plot

Ends with 1 if SplitNN is not beyond 85 % of its final accuracy when FedAvg passes 25 %, or if the ratio of client
compute is not the planner's.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measuring
import torch
from common import real_images
from common.drawing import COLOURS, draw
from common.kept_runs import RESULTS, Kept, mean, standard_error
from common.pages import put
from torch import nn

import cutlayer as cl
from cutlayer.baselines import (
    Budget,
    Curve,
    FedAvg,
    LargeBatch,
    Method,
    curve_of,
    spent,
    train,
    training_share,
)
from cutlayer.metering.events import EpochEnded, Event
from cutlayer.runtime.simulate import Progress
from cutlayer.sessions.process import keep_memory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "seed_experiment"
WIDTHS, HIDDEN, CUT = (16, 32, 64), 64, "conv1"
ROWS, TEST, BATCH, EPOCHS, TIMES = 50_000, 2_000, 50, 10, 7.0
RATES = {"even": 0.05, "dirichlet": 0.02}
CLIENTS = [100, 500]
SPLIT, FEDAVG, LARGE = "SplitNN", "FedAvg", "large-batch SGD"
DEALT = {"even": "even shares", "dirichlet": "Dirichlet 0.5"}
PASSED, SHARE_OF_FINAL = 0.25, 0.85
METHODS: dict[str, Method] = {
    FEDAVG: FedAvg(rounds=10_000, sample=0.1),
    LARGE: LargeBatch(rounds=10_000, steps=1, rate=4.0),
}
"""What SplitNN is compared with; compute is what ends them."""


def network(seed: int) -> nn.Sequential:
    """Return the small VGG, [B, 3, 32, 32] -> [B, 10]."""
    made, channels = nn.Sequential(), 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for number in range(2 * len(WIDTHS)):
            width = WIDTHS[number // 2]
            made.add_module(f"conv{number + 1}", nn.Conv2d(channels, width, 3, padding=1))
            made.add_module(f"norm{number + 1}", nn.BatchNorm2d(width))
            made.add_module(f"relu{number + 1}", nn.ReLU())
            if number % 2:
                made.add_module(f"pool{number // 2 + 1}", nn.MaxPool2d(2))
            channels = width
        made.add_module("flatten", nn.Flatten())
        made.add_module("fc1", nn.Linear(channels * 16, HIDDEN))
        made.add_module("relu", nn.ReLU())
        made.add_module("fc2", nn.Linear(HIDDEN, 10))
    return made


def planned_ratio(model: nn.Module, cut: str, clients: int, rows: int) -> float:
    """Return a client's FLOPs in SplitNN by those with the whole network, for the same rows, as planned."""
    found = cl.plan(
        model,
        torch.zeros(2, 3, 32, 32),
        labels=torch.zeros(2, dtype=torch.long),
        clients=clients,
        rows=rows,
        batch_size=BATCH,
        schedules=("round_robin",),
        leak=False,
    )
    split = next(one for one in found.offers if one.cut == cut)
    whole = next(one for one in found.rivals if one.method == "fedavg")
    return split.client_flops / whole.client_flops


def experiment(
    people: cl.data.Holdings, rate: float, seed: int, epochs: int, times: float, folder: Path | None
) -> measuring.Figures:
    """Return the curves of all methods on the same rows.

    Args:
        people: The clients' rows.
        rate: SplitNN's and FedAvg's learning rate.
        seed: Of initial weights and orders.
        epochs: Of SplitNN.
        times: At how many times SplitNN's client compute the others stop.
        folder: Where runs are kept until all are done; None keeps nothing.
    """
    graph = cl.vanilla(network(seed), CUT, clients=people)
    study = cl.Study(
        graph=graph,
        optimizer=cl.optim.SGD(lr=rate, momentum=0.9, weight_decay=5e-4),
        schedule=cl.RoundRobin(turn=1),
        batch_size=BATCH,
        epochs=epochs,
        seed=seed,
        metrics=("accuracy",),
        evaluate=("test",),
    )
    names = [party.name for party in people.parties]
    out = None if folder is None else folder / "split"
    resume = out is not None and (out / "log.jsonl").is_file()
    run = study.simulate(people, out=out, resume=resume, on_progress=Told(SPLIT))
    curves = [curve_of(SPLIT, run.events, names, share=training_share(study, people, epochs))]
    row_flops = [flops_of_a_row(run.events, names)]
    for name, method in METHODS.items():
        out = None if folder is None else folder / method.word
        resume = out is not None and (out / "log.jsonl").is_file()
        budget = Budget(flops=times * curves[0].points[-1].flops)
        done = train(study, people, method, out=out, resume=resume, budget=budget, on_progress=Told(name))
        curves.append(curve_of(name, done.events, names))
        row_flops.append(flops_of_a_row(done.events, names))
    return judged(curves) | {"compute_ratios": [row_flops[0] / other for other in row_flops[1:]]}


def flops_of_a_row(events: Sequence[Event], names: list[str]) -> float:
    """Return the FLOPs of all clients by the rows that were trained on."""
    return spent(events, names).flops * len(names) / sum(e.rows for e in events if isinstance(e, EpochEnded))


def judged(curves: list[Curve]) -> measuring.Figures:
    """Return the curves of SplitNN, FedAvg and large-batch SGD, and what they come to."""
    split, averaged, _ = curves
    last = split.points[-1]
    passed = averaged.passing(PASSED)
    then = split.at("flops", passed.flops) if passed is not None else last
    return {
        "curves": {one.name: [vars(point) for point in one.points] for one in curves},
        "final": last.score,
        "fedavg_passes": None if passed is None else passed.flops,
        "split_then": 0.0 if then is None else then.score,
        "share_of_final": (0.0 if then is None else then.score) / last.score,
        "equal_compute": {one.name: _score(one, "flops", last.flops) for one in curves},
        "equal_traffic": {one.name: _score(one, "bytes", _common(curves)) for one in curves},
        "common_bytes": _common(curves),
    }


def _common(curves: list[Curve]) -> float:
    """Return the client traffic that all methods reached."""
    return min(one.points[-1].bytes for one in curves)


def _score(curve: Curve, axis: str, limit: float) -> float:
    """Return the score at a cost; 0.1, a blind guess, before the first point."""
    point = curve.at(axis, limit)
    return 0.1 if point is None else point.score


class Told:
    """Says now and then where a run stands."""

    def __init__(self, name: str) -> None:
        self._name, self._epoch = name, -1

    def __call__(self, now: Progress) -> None:
        """Say it, once for each epoch or round."""
        if now.epoch != self._epoch:
            self._epoch = now.epoch
            print(f"  {self._name}: {now.epoch} done, loss {now.loss:.3f}", flush=True)


def measure(asked: argparse.Namespace) -> measuring.Figures:
    """Return the figures of every case."""
    rows, test, epochs = (600, 100, 1) if asked.quick else (ROWS, TEST, EPOCHS)
    counts = [5] if asked.quick else asked.clients
    source = random_images(rows, test) if asked.quick else real_images.cifar10(asked.cifar10, rows, test)
    settings = {"rows": rows, "test": test, "epochs": epochs, "batch": BATCH, "rates": RATES, "times": TIMES}
    kept = Kept(NAME, settings, quick=asked.quick)
    cases: dict[str, Any] = {}
    for seed in range(1 if asked.quick else asked.seeds):
        for count in counts:
            for dealt in asked.rows_by:
                key = f"{count} clients, {DEALT[dealt]}, seed {seed}"
                print(key, flush=True)
                people = source.split_rows(count, by=dealt, alpha=0.5, seed=seed, test="first")
                folder = (
                    None
                    if asked.quick
                    else RESULTS / f"{NAME}.partial" / key.replace(" ", "-").replace(",", "")
                )
                cases[key] = kept.run(
                    key, partial(experiment, people, RATES[dealt], seed, epochs, TIMES, folder)
                )
                _tell(cases[key])
    if not asked.quick and (asked.clients, asked.rows_by) == (CLIENTS, list(DEALT)):
        kept.done()
        shutil.rmtree(RESULTS / f"{NAME}.partial", ignore_errors=True)
    return {
        "cases": cases,
        "planned_ratio": planned_ratio(network(0), CUT, counts[0], rows),
        "settings": settings,
        "quick": asked.quick,
    }


def random_images(rows: int, test: int) -> cl.data.Source:
    """Return random images of CIFAR-10's shape, for a smoke test."""
    draw_from = torch.Generator().manual_seed(0)
    parts = [
        made
        for count in (rows, test)
        for made in (
            torch.randn(count, 3, 32, 32, generator=draw_from),
            torch.randint(10, (count,), generator=draw_from),
        )
    ]
    return cl.data.arrays(*parts)


def _tell(case: measuring.Figures) -> None:
    for name, points in case["curves"].items():
        last = points[-1]
        print(
            f"  {name:16} {len(points)} points, {last['score']:.3f} at {last['flops']:.3g} FLOP and "
            f"{last['bytes']:.3g} bytes a client, {last['seconds']:.0f} s",
            flush=True,
        )


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    found = []
    for name, case in figures["cases"].items():
        ratios, due = case["compute_ratios"], figures["planned_ratio"]
        if not all(math.isclose(ratio, due, rel_tol=1e-9) for ratio in ratios):
            found.append(f"{name}: a client computes {ratios} of the uncut network's FLOPs, not {due}")
        if not figures["quick"] and case["final"] < PASSED:
            found.append(f"{name}: SplitNN ends at {case['final']:.3f}")
        elif not figures["quick"] and case["share_of_final"] < SHARE_OF_FINAL:
            found.append(
                f"{name}: when FedAvg passes {PASSED:.0%}, SplitNN is at {case['split_then']:.3f}, "
                f"{case['share_of_final']:.0%} of its final accuracy"
            )
    return found


def by_case(figures: measuring.Figures) -> dict[str, list[measuring.Figures]]:
    """Return the runs of each case, seed by seed."""
    found: dict[str, list[measuring.Figures]] = {}
    for name, case in figures["cases"].items():
        found.setdefault(name.rpartition(", seed")[0], []).append(case)
    return found


def table(figures: measuring.Figures) -> str:
    """Return the figures as a table in Markdown: means over seeds with their standard error, or seed by seed."""
    head = (
        "| case | "
        + " | ".join((SPLIT, FEDAVG, LARGE))
        + " | FedAvg at 7 times | FedAvg passes 25 % at so many times | SplitNN then, of its final "
        "| same traffic: SplitNN, FedAvg, large-batch |"
    )
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for name, runs in by_case(figures).items():
        cells = [
            _told([run["final"] for run in runs]),
            *(_told([run["equal_compute"][method] for run in runs]) for method in (FEDAVG, LARGE)),
            _told([run["curves"][FEDAVG][-1]["score"] for run in runs]),
            ", ".join(map(_when, runs)),
            ", ".join(f"{run['share_of_final']:.0%}" for run in runs),
            ", ".join(
                f"{mean([run['equal_traffic'][method] for run in runs]):.3f}"
                for method in (SPLIT, FEDAVG, LARGE)
            )
            + f" at {mean([run['common_bytes'] for run in runs]) / 1e6:.1f} MB",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _told(scores: list[float]) -> str:
    more = f" ± {standard_error(scores):.3f}" if len(scores) > 1 else ""
    return f"{mean(scores):.3f}{more}"


def _when(run: measuring.Figures) -> str:
    """Return at how many times SplitNN's client compute FedAvg passes."""
    passed = run["fedavg_passes"]
    return "never" if passed is None else f"{passed / run['curves'][SPLIT][-1]['flops']:.2f}"


def plot(figures: measuring.Figures) -> None:
    """Draw accuracy against client FLOPs and client bytes, a row for each case and a line for each seed."""
    cases = by_case(figures)

    def panels(axes: list[Axes]) -> None:
        for row, (name, runs) in enumerate(cases.items()):
            for column, (axis, unit) in enumerate((("flops", "FLOP"), ("bytes", "bytes"))):
                panel = axes[2 * row + column]
                for run in runs:
                    for place, (method, points) in enumerate(run["curves"].items()):
                        costs, scores = [p[axis] for p in points], [100 * p["score"] for p in points]
                        label = method if run is runs[0] else None
                        panel.plot(costs, scores, color=COLOURS[place], marker="o", markersize=3, label=label)
                panel.set_xscale("log")
                panel.set_xlabel(f"{unit} of a client in training")
                panel.set_ylabel("test accuracy (%)")
                panel.set_title(name)
                if column:
                    panel.legend(loc="upper left")

    draw(RESULTS / f"{NAME}.svg", panels, width=10.0, height=3.4 * len(cases), columns=2, rows=len(cases))


def main() -> int:
    """Train, print, and return the exit status."""
    parser = measuring.parser(__doc__)
    real_images.wanted(parser, "cifar10")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--rows-by", nargs="+", choices=list(DEALT), default=list(DEALT))
    parser.add_argument("--table", action="store_true", help="only write table and plot, from the results")
    asked = parser.parse_args()
    if asked.table:
        figures = json.loads((RESULTS / f"{NAME}.json").read_text())["figures"]
        for page in ("baselines.md", "../README.md"):
            put(page, "the experiment of the seed", table(figures))
        plot(figures)
        return 0
    measuring.one_thread()
    keep_memory()
    figures = measure(asked)
    return measuring.finish(NAME, figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
