"""Runs of a long benchmark, kept one by one: what was interrupted goes on where it was; and their means."""

from __future__ import annotations

import gc
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from measuring import Figures

__all__ = ["Kept", "mean", "paired", "spread", "standard_error"]

RESULTS = Path(__file__).resolve().parents[1] / "results"


class Kept:
    """The runs of one benchmark, a line of JSON for each, in a file beside its results until all are there.

    A run is found again by its name and the settings that it was made with.

    Args:
        name: The benchmark's name.
        settings: What all runs have in common; runs with others are left alone.
        quick: Keep nothing.
    """

    def __init__(self, name: str, settings: Figures, *, quick: bool) -> None:
        self._path = None if quick else RESULTS / f"{name}.partial.jsonl"
        self._settings = json.loads(json.dumps(settings))
        self._runs: dict[str, Figures] = {}
        if self._path is not None and self._path.exists():
            lines = [json.loads(line) for line in self._path.read_text().splitlines()]
            self._runs = {one["run"]: one["figures"] for one in lines if one["settings"] == self._settings}

    def run(self, name: str, work: Callable[[], Figures]) -> Figures:
        """Return the figures of the run ``name``: those that are kept, or those of ``work()``, which are kept then."""
        if name not in self._runs:
            began = time.perf_counter()
            self._runs[name] = work() | {"seconds": round(time.perf_counter() - began, 1)}
            gc.collect()  # a run's rows and segments refer to each other
            if self._path is not None:
                line = {"run": name, "settings": self._settings, "figures": self._runs[name]}
                with self._path.open("a") as file:
                    file.write(json.dumps(line) + "\n")
        return self._runs[name]

    def done(self) -> None:
        """Forget the runs: their figures are in the results."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return statistics.mean(values)


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation over seeds; 0 of one alone."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean; 0 of one alone."""
    return spread(values) / math.sqrt(len(values))


def paired(values: Sequence[float], others: Sequence[float]) -> Figures:
    """Return how much ``values`` are above ``others``, seed by seed: the mean and its standard error."""
    over = [a - b for a, b in zip(values, others, strict=True)]
    return {"mean": mean(over), "standard_error": standard_error(over)}
