"""Accuracy against bytes on CIFAR-10, with every codec.

A network of three convolutions with batch normalisation (32, 48, 64 channels; 5 x 5 with stride 2, then 3 x 3 with
pooling; a linear layer), cut after the first: 8,192 values a row. One client, the first 20,000 images, batches of 100,
four epochs, SGD with momentum 0.9, weight decay 0.0005 and one cycle of the learning rate up to 0.1. Seeds differ in
initial weights and in the order of rows; a seed's are the same with every codec. Accuracy is of all 10,000 test images,
which cross the cut by the same codec. Bytes are those of the frames of training, both ways, by training row.

Each run is kept, so that what was interrupted goes on where it was; about 35 minutes on one core.

    python benchmarks/codec_accuracy.py --cifar10 cifar10.npz
    python benchmarks/codec_accuracy.py --table      # writes the table into docs/codecs.md, and the plot

Ends with 1 if 8 bits a value are more than 0.5 points below exact, or take more than 0.26 of its bytes, or if no codec
with at most a sixteenth of the bytes is within 2 points.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from typing import TYPE_CHECKING

import measuring
import torch
from common import real_images
from common.drawing import COLOURS, MARKERS, draw
from common.kept_runs import RESULTS, Kept, mean, paired, spread, standard_error
from common.pages import put
from torch import nn

import cutlayer as cl
from cutlayer.metering.events import Traffic
from cutlayer.sessions.process import keep_memory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "codec_accuracy"
ROWS, TEST, BATCH, EPOCHS, RATE = 20_000, 10_000, 100, 4, 0.1
MAX_LOSS_8_BIT, MAX_SHARE_8_BIT, MAX_LOSS_16_TIMES = 0.5, 0.26, 2.0

CODECS: dict[str, tuple[str, str]] = {
    "exact": ("exact", "exact"),
    "float16": ("float16", "float16"),
    "bfloat16": ("bfloat16", "bfloat16"),
    "float8": ("float8:e4m3", "float8:e5m2"),
    "int8": ("int8", "int8"),
    "int4": ("int4", "int4"),
    "top-k 9.7 %, int8 back": ("topk:0.097,bfloat16", "int8"),
    "top-k 5 %": ("topk:0.05,bfloat16", "bfloat16"),
    "random top-k 9.7 %, int8 back": ("random-topk:0.097,0.1,bfloat16", "int8"),
    "random top-k 5 %": ("random-topk:0.05,0.1,bfloat16", "bfloat16"),
    "int8, top-k 5 % back": ("int8", "topk:0.05,bfloat16"),
    "int8, top-k 5 % back, feedback": ("int8", "topk:0.05,bfloat16+feedback"),
    "PQ, int8 back": ("pq:4,16,0.01", "int8"),
    "C3, 2 rows": ("c3:2", "exact"),
    "C3, 4 rows": ("c3:4", "exact"),
}
"""Codecs of activations and of gradients."""
EIGHT_BITS = ("float8", "int8")
LABELS = {
    "exact": ("right", 6), "float8": ("right", -9), "int8": ("left", -10), "bfloat16": ("left", -10),
    "int8, top-k 5 % back, feedback": ("left", -11), "random top-k 9.7 %, int8 back": ("right", 6),
    "top-k 5 %": ("left", -11), "top-k 9.7 %, int8 back": ("right", -9),
}  # fmt: skip
"""Where a point has its name, if not on its right: the side that it ends at, and points above it."""


def network(seed: int) -> nn.Sequential:
    """Return the network, [B, 3, 32, 32] -> [B, 10]; ``first`` is the client's part."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = nn.Sequential(nn.Conv2d(3, 32, 5, stride=2, padding=2), nn.BatchNorm2d(32), nn.ReLU())
        second = [nn.Conv2d(32, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2)]
        third = [nn.Conv2d(48, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
        made = nn.Sequential()
        made.add_module("first", first)
        made.add_module("rest", nn.Sequential(*second, *third, nn.Flatten(), nn.Linear(1024, 10)))
        return made


def train(source: cl.data.Source, codecs: tuple[str, str], seed: int, epochs: int) -> measuring.Figures:
    """Return accuracy and bytes of one run."""
    people = source.split_rows(1)
    words = dict(zip(("head->server", "head<-server"), codecs, strict=True))
    graph = cl.vanilla(network(seed), "first", clients=people, codecs=words)
    rows = len(people.parties[0].splits["train"])
    cycle = cl.optim.OneCycleLR(max_lr=RATE, total_steps=epochs * (rows // BATCH) + 1, pct_start=0.25)
    study = cl.Study(
        graph=graph,
        optimizer=cl.optim.SGD(lr=RATE, momentum=0.9, weight_decay=5e-4, schedule=cycle, every="step"),
        batch_size=BATCH,
        epochs=epochs,
        seed=seed,
        drop_last=True,
        evaluate=(),
    )
    run = study.simulate(people)
    x, y = real_images.labelled(people.parties[0], "test")
    guess = torch.as_tensor(run.predict(x, batch_size=500))
    sent = [e for e in run.events if isinstance(e, Traffic) and e.phase == "training"]
    by_content = {
        content: sum(e.frame_bytes for e in sent if e.content == content) / (epochs * rows)
        for content in sorted({e.content for e in sent})
    }
    return {
        "accuracy": 100 * float((guess.argmax(1) == y).double().mean()),
        "bytes_a_row": sum(by_content.values()),
        "by_content": by_content,
    }


def measure(asked: argparse.Namespace) -> measuring.Figures:
    """Return accuracies, bytes and differences from exact."""
    rows, test, epochs = (1_000, 500, 1) if asked.quick else (ROWS, TEST, EPOCHS)
    source = real_images.cifar10(asked.cifar10, rows, test)
    settings = {"rows": rows, "test": test, "batch": BATCH, "epochs": epochs, "rate": RATE}
    kept = Kept(NAME, settings, quick=asked.quick)
    seeds = range(1 if asked.quick else asked.seeds)
    runs: dict[str, list[measuring.Figures]] = {name: [] for name in CODECS}
    for seed in seeds:
        for name, codecs in CODECS.items():
            key = f"{' '.join(codecs)} seed {seed}"
            one = kept.run(key, partial(train, source, codecs, seed, epochs))
            runs[name].append(one)
            print(
                f"seed {seed} {name:30} {one['accuracy']:5.2f} %  {one['bytes_a_row']:8.0f} bytes a row"
                f"  {one['seconds']:5.1f} s",
                flush=True,
            )
    kept.done()
    exact = [one["accuracy"] for one in runs["exact"]]
    full = runs["exact"][0]["bytes_a_row"]
    found = {name: summary(name, made, exact, full) for name, made in runs.items()}
    return {"codecs": found, "settings": settings, "seeds": len(seeds), "quick": asked.quick}


def summary(name: str, runs: list[measuring.Figures], exact: list[float], full: float) -> measuring.Figures:
    """Return one codec's figures over the seeds."""
    accuracy = [one["accuracy"] for one in runs]
    return {
        "activations": CODECS[name][0],
        "gradients": CODECS[name][1],
        "accuracy": accuracy,
        "mean": mean(accuracy),
        "standard_deviation": spread(accuracy),
        "standard_error": standard_error(accuracy),
        "below_exact": paired(exact, accuracy),
        "bytes_a_row": runs[0]["bytes_a_row"],
        "by_content": runs[0]["by_content"],
        "fewer": full / runs[0]["bytes_a_row"],
        "seconds": [one["seconds"] for one in runs],
    }


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words, with how sure the seeds make it."""
    if figures["quick"]:
        return []
    found = []
    for name in EIGHT_BITS:
        one = figures["codecs"][name]
        below, error = one["below_exact"]["mean"], one["below_exact"]["standard_error"]
        if below > MAX_LOSS_8_BIT:
            found.append(f"{name} is {below:.2f} points below exact, with a standard error of {error:.2f}")
        if one["fewer"] * MAX_SHARE_8_BIT < 1:
            found.append(f"{name} takes {1 / one['fewer']:.3f} of exact's bytes")
    thin = [one for one in figures["codecs"].values() if one["fewer"] >= 16]
    least = min(one["below_exact"]["mean"] for one in thin)
    if least > MAX_LOSS_16_TIMES:
        found.append(f"with a sixteenth of the bytes the best codec is {least:.2f} points below exact")
    return found


def table(figures: measuring.Figures) -> str:
    """Return the figures as a table in Markdown."""
    title = "| activations | gradients | KB a row | fewer | accuracy % | below exact |"
    lines = [title, "|---|---|---|---|---|---|"]
    for one in figures["codecs"].values():
        below = one["below_exact"]
        lines.append(
            f"| `{one['activations']}` | `{one['gradients']}` | {one['bytes_a_row'] / 1e3:.1f} | {one['fewer']:.1f} "
            f"| {one['mean']:.1f} ± {one['standard_error']:.1f} | {below['mean']:.1f} ± {below['standard_error']:.1f} |"
        )
    return "\n".join(lines)


def plot(figures: measuring.Figures) -> None:
    """Draw accuracy against bytes."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    def panel(axes: list[Axes]) -> None:
        (axis,) = axes
        for place, (name, one) in enumerate(figures["codecs"].items()):
            at, colour = (one["bytes_a_row"] / 1e3, one["mean"]), COLOURS[place % 7]
            axis.errorbar(
                *at, yerr=one["standard_error"], color=colour, marker=MARKERS[place % len(MARKERS)],
                linestyle="none", capsize=3, markersize=6, elinewidth=1.0,
            )  # fmt: skip
            side, offset = LABELS.get(name, ("left", 4))
            axis.annotate(
                name, at, xytext=(8 if side == "left" else -8, offset), textcoords="offset points",
                ha=side, fontsize=9, color=colour,
            )  # fmt: skip
        axis.axhline(figures["codecs"]["exact"]["mean"], color="#8a939a", linewidth=0.8, zorder=0)
        axis.set_xscale("log")
        axis.set_xticks([2, 5, 10, 20, 50])
        axis.set_xlim(1.5, 110)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel("KB of frames a training row, both ways")
        axis.set_ylabel("test accuracy (%)")
        axis.set_title(f"CIFAR-10: accuracy against bytes, mean of {figures['seeds']} seeds ± standard error")

    draw(RESULTS / f"{NAME}.svg", panel, width=8.6, height=5.0)


def main() -> int:
    """Train, print, and return the exit status."""
    parser = measuring.parser(__doc__)
    real_images.wanted(parser, "cifar10")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="only write table and plot, from the results")
    asked = parser.parse_args()
    if asked.table:
        figures = json.loads((RESULTS / f"{NAME}.json").read_text())["figures"]
        put("codecs.md", "accuracy against bytes", table(figures))
        plot(figures)
        return 0
    measuring.one_thread()
    keep_memory()
    figures = measure(asked)
    return measuring.finish(NAME, figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
