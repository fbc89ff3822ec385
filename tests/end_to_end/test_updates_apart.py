"""States handed over as updates between real processes, over mutual TLS, also past a client that dies in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trial
from trial import Bench, Trial


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with trial.bench(tmp_path_factory.mktemp("updates")) as made:
        yield made


def test_updates_between_processes_come_to_the_simulators_bits(bench: Bench, tmp_path: Path) -> None:
    study = bench.dealt("vanilla-relayed", turn="3\nupdates = true")
    with Trial(bench, study, tmp_path, {"client-1": [["restore:before:1"]]}) as tried:
        tried.wait()
        tried.check()
        assert tried.kills["client-1"] == 1
