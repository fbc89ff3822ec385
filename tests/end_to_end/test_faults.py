"""Whoever dies, wherever: the final weights are the simulator's, bit for bit; real processes over mutual TLS."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trial
from random_kills import random_kills
from trial import Bench, Trial

COMPUTING = [
    "send:before:3",
    "send:after:2",
    "receive:after:4",
    "gradient:in:2",
    "backward:after:3",
    "step:before:2",
    "step:after:5",
    "saving:half:1",
    "saving:half:2",
    "saving:filled:1",
    "saving:told:2",
    "answer:before:1",
    "go:before:1",
    "go:after:1",
]
HANDING = [
    "give:before:1",
    "give:after:1",
    "take:before:1",
    "restore:before:1",
    "restore:after:1",
    "take:after:1",
]
ENDING = [
    "epoch:before:1",
    "epoch:after:1",
    "infer:after:1",
    "done:before:1",
    "done:after:1",
    "done:after:9",
    "finish:before:1",
]

CLIENTS = ("client-0", "client-1", "client-2")
CASTS = {
    "vanilla": {"server": COMPUTING, **dict.fromkeys(CLIENTS, COMPUTING + HANDING)},
    "vanilla-relayed": {
        "server": [*COMPUTING, "relay:before:1", "relay:after:1"],
        **dict.fromkeys(CLIENTS, COMPUTING + HANDING),
    },
    "u-shape": {"server": COMPUTING, **dict.fromkeys(CLIENTS, COMPUTING + HANDING)},
    "multi-hop": {"server": COMPUTING, "relay": COMPUTING, **dict.fromkeys(CLIENTS[:2], COMPUTING + HANDING)},
    "vertical": dict.fromkeys(("server", "clinic", "lab"), COMPUTING),
    "extended-vanilla": dict.fromkeys(("server", "institute", "clinic", "lab"), COMPUTING),
    "multi-task": dict.fromkeys(("server", "ward", "clinic", "lab"), COMPUTING),
}
"""The phases in which each party is killed, by study."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with trial.bench(tmp_path_factory.mktemp("faults")) as made:
        yield made


def plan_of(name: str, share: int = 1) -> dict[str, list[Sequence[str]]]:
    """Return one fault for each process of each party: every ``share``-th of its list, begun elsewhere for each."""
    plan: dict[str, list[Sequence[str]]] = {}
    for index, (party, phases) in enumerate(CASTS[name].items()):
        faults = phases[index % share :: share] + ENDING[index % share :: share]
        plan[party] = [[fault] for fault in faults]
    return plan


@pytest.mark.parametrize("name", ["extended-vanilla", "multi-task"])
def test_between_processes_the_bits_are_the_simulators(bench: Bench, name: str, tmp_path: Path) -> None:
    with Trial(bench, bench.dealt(name), tmp_path) as tried:
        tried.wait(limit_s=200)
        tried.check()
        assert not any(tried.kills.values())


@pytest.mark.parametrize("name", ["vanilla", "vertical"])
def test_each_party_is_killed_in_some_phases(bench: Bench, name: str, tmp_path: Path) -> None:
    plan = plan_of(name, share=5)
    with Trial(bench, bench.dealt(name), tmp_path, plan) as tried:
        tried.wait(limit_s=200)
        tried.check()
        assert tried.kills == {party: len(faults) for party, faults in plan.items()}


@pytest.mark.long
@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("name", CASTS)
def test_each_party_is_killed_in_each_phase(bench: Bench, name: str, half: int, tmp_path: Path) -> None:
    plan = {party: faults[half::2] for party, faults in plan_of(name).items()}
    with Trial(bench, bench.dealt(name), tmp_path, plan) as tried:
        tried.wait(limit_s=900)
        tried.check()
        assert tried.kills == {party: len(faults) for party, faults in plan.items()}


@pytest.mark.long
def test_random_parties_are_killed_at_random_times(bench: Bench, tmp_path: Path) -> None:
    figures = random_kills(bench, tmp_path, kills=300, seed=int(os.environ.get("SEED", "0")))
    assert figures.kills >= 300
    assert figures.hosts > 20
