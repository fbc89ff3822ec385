"""Alarms between real processes: what monitors remember survives a crash, and who rings stops and says why."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trial
from party_studies import write_study
from trial import Bench, Trial

from cutlayer.privacy.noise import simulated_secret

SEED = 7  # of the studies
REMEMBERS = '"shredder:0.2", "splitguard:0.4,after=1,below=0.001", "scrutinizer:1,5,0.0001"'
WATCHED = f'[defences]\n"head->server" = [{REMEMBERS}]'
JUMPY = '[defences]\n"head->server" = ["splitguard:0.49,after=0,below=0.999,scores=1"]'
"""Rings in an honest run, as soon as there is a score."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with trial.bench(tmp_path_factory.mktemp("alarms")) as made:
        yield made


def test_what_defences_remember_survives_crashes_in_the_middle_of_an_epoch(
    bench: Bench, tmp_path: Path
) -> None:
    study = bench.dealt("vanilla", network=WATCHED, every=2)
    plan = {"client-1": [["restore:before:1"], ["forward:before:6"]], "client-0": [["forward:before:7"]]}
    tried = Trial(bench, study, tmp_path, plan)
    for party in tried.parties:
        tried.out(party).mkdir(parents=True)
        (tried.out(party) / "secret").write_bytes(simulated_secret(SEED, party))
    with tried:
        tried.wait()
        tried.check()  # memory is part of the states that are compared
        assert tried.kills["client-1"] == 2 and tried.kills["client-0"] == 1


def test_who_rings_stops_says_why_and_rings_again_when_it_comes_back(bench: Bench, tmp_path: Path) -> None:
    study = bench.dealt("vanilla", network=JUMPY, epochs=12, clients=1, every=2)
    with Trial(bench, study, tmp_path) as tried:
        tried.wait(lambda: "client-0" in tried.codes, failing=["client-0"])
        assert tried.codes["client-0"] == 1
        first = alarm(tried, 0)
        tried.wait(lambda: tried.said("server", "missing: client-0"), failing=["client-0"])
        assert "server" not in tried.codes
        assert "gradients" not in tried.log("server").read_text()  # whom it suspects it does not tell
        assert "disclosure log closed" in tried.log("client-0").read_text()
        tried.start("client-0")
        tried.wait(lambda: "client-0" in tried.codes, failing=["client-0"])
        assert tried.codes["client-0"] == 1
        assert alarm(tried, 1) == first


def alarm(tried: Trial, number: int) -> str:
    """Return what the client's alarms said."""
    said = re.findall(
        r"AlarmError: (client-0, cut head->server, step \d+: .*)", tried.log("client-0").read_text()
    )
    assert len(said) == number + 1, tried.output()
    assert "the server is not training the task; got a mean of the last 1 SplitGuard scores" in said[number]
    return said[number]


def test_a_rehearsal_ends_with_the_words_of_who_rang(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", "vanilla", network=JUMPY, epochs=12, clients=2)
    words = [sys.executable, "-m", "cutlayer.cli", "local", str(study), "--out", str(tmp_path / "here")]
    ended = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )
    said = " ".join((ended.stdout + ended.stderr).split())
    assert ended.returncode == 1, said
    assert re.search(
        r"client-\d ended with an error: .*the gradients that come back do not depend on the labels", said
    ), said
    assert "see docs/alarms.md" in said
    assert not list((tmp_path / "here").glob("*/model/*.safetensors"))
