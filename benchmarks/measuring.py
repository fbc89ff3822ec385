"""What the benchmarks share: arguments, interleaved timing, the last line of figures.

Speeds are compared inside one process, in one thread, both sides in turn, many times: the ratio is the
median of the ratios of neighbours in time, so that a machine that slows down slows both sides down.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import cutlayer as cl
from cutlayer.metering.events import Ended

Figures = dict[str, Any]
Failures = list[str]


def parser(doc: str | None, *, cifar10: bool = False) -> argparse.ArgumentParser:
    """Return a parser whose help is the script's docstring, with ``--quick``.

    Args:
        doc: The docstring.
        cifar10: Whether the script can use CIFAR-10.
    """
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument(
        "--quick", action="store_true", help="as little as shows that it works; speeds are not judged"
    )
    if cifar10:
        made.add_argument(
            "--cifar10", type=Path, default=os.environ.get("CUTLAYER_CIFAR10"), metavar="PATH",
            help="an .npz with x_train, y_train, x_test, y_test (uint8 NHWC); default: $CUTLAYER_CIFAR10",
        )  # fmt: skip
    return made


def one_thread() -> None:
    """Compute in one thread: parties that share cores do, and the order of sums stays the same."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Rounds:
    """What each side returned in each round, and the processor seconds that each whole call took."""

    values: dict[str, list[float]]
    cpu_seconds: dict[str, list[float]]

    def medians(self) -> dict[str, float]:
        """Return the median of each side."""
        return {name: statistics.median(values) for name, values in self.values.items()}


def in_turn(sides: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: bool = True) -> Rounds:
    """Run every side ``rounds`` times, in turn, with progress; before that once to warm up.

    Every other round goes through the sides backwards, so that none is always the first.
    """
    found = Rounds({name: [] for name in sides}, {name: [] for name in sides})
    for work in sides.values() if warm_up else ():
        work()
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            began = time.process_time()
            found.values[name].append(sides[name]())
            found.cpu_seconds[name].append(time.process_time() - began)
        now = "  ".join(f"{name} {values[-1]:.4g}" for name, values in found.values.items())
        print(f"  round {number + 1} of {rounds}: {now}", flush=True)
    return found


def ratio(upper: list[float], lower: list[float]) -> float:
    """Return the median of the ratios of what was measured in the same round."""
    return statistics.median(a / b for a, b in zip(upper, lower, strict=True))


def training_seconds(run: cl.Run) -> float:
    """Return how long the training of ``run`` took, without building parties before it, from its log."""
    return next(event.seconds for event in reversed(run.events) if isinstance(event, Ended))


def read_cifar10(path: Path | None) -> tuple[Tensor, Tensor] | None:
    """Return CIFAR-10's training rows, float32 [N, 3, 32, 32] from 0 to 1 and int64 [N]; None without a file."""
    if path is None:
        return None
    with np.load(path, allow_pickle=False) as content:
        pixels, labels = content["x_train"], content["y_train"]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous() / 255, torch.from_numpy(labels).long()


def finish(name: str, figures: Figures, failures: Failures) -> int:
    """Print what is beyond its bar, then one line of JSON; return the exit status."""
    for failure in failures:
        print(f"beyond the bar: {failure}")
    print(json.dumps({"benchmark": name, "passed": not failures, **_rounded(figures)}), flush=True)
    return 1 if failures else 0


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
