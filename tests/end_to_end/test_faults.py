"""Whoever dies, wherever: the final weights are the simulator's, bit for bit; real processes over mutual TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trial
from trial import Bench, Trial


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with trial.bench(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.mark.parametrize("name", ["vanilla", "vanilla-relayed", "u-shape", "vertical", "multi-hop"])
def test_without_faults(bench: Bench, name: str, tmp_path: Path) -> None:
    with Trial(bench, bench.dealt(name), tmp_path) as tried:
        tried.wait()
        tried.check()
