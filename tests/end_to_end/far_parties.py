"""Parties on two hosts with a link between them, started as people start them, and what their own logs tell."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from trial import Bench, Trial

from cutlayer.keys.authority import Authority
from cutlayer.study_file import load_study

_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(_BENCHMARKS))
two_hosts = importlib.import_module("two_hosts")
_PORT = 7443


class FarBench(Bench):
    """A bench whose parties are ``cutlayer serve`` on one host and ``cutlayer join`` on the other.

    Args:
        folder: Where everything is written.
        hosts: The two hosts.
    """

    def __init__(self, folder: Path, hosts: Any) -> None:
        self.folder, self.hosts = folder, hosts
        self.authority = Authority.create(folder / "authority", "far parties")
        self._expected = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, **order: Any) -> int:
        party, study = order["party"], Path(order["folder"]) / "study.toml"
        file = load_study(study)
        serves = file.at(party, None if party == "server" else Path(order["folder"]))
        host = serves.network.host == party
        words = (
            ["serve", str(study), "--listen"] if host else ["join", str(study), "--as", party, "--address"]
        )
        words += [order["address"], "--keys", order["keys"], "--out", order["out"], "--json", "--no-report"]
        words += ["--approve", serves.study.digest, "--threads", "1"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GRPC_VERBOSITY": "NONE"}
        with open(order["log"], "ab") as log, self.hosts.on("a" if host else "b"):
            process = subprocess.Popen(
                [sys.executable, "-m", "cutlayer.cli", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        self._processes[process.pid] = process
        return process.pid

    def code(self, number: int) -> int | None:
        return self._processes[number].poll()

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()


class Frame(NamedTuple):
    """One frame as its sender noted it; ``time`` in seconds of the wall clock."""

    time: float
    sender: str
    to: str
    kind: str
    cut: str
    phase: str
    step: int
    checksum: str


class FarTrial(Trial):
    """One study over the link."""

    bench: FarBench

    def __init__(self, bench: FarBench, study: Path, folder: Path) -> None:
        super().__init__(bench, study, folder)
        self.address = f"{two_hosts.ADDRESSES['a']}:{_PORT}"

    @property
    def frames(self) -> list[Frame]:
        """What the parties noted that left."""
        return frames_of(self)

    @property
    def steps(self) -> int:
        """How many steps of training were begun."""
        return max((frame.step + 1 for frame in self.frames), default=0)

    def until_step(self, step: int, limit_s: float = 90.0) -> None:
        """Let it go on until a step is begun."""
        self.wait(lambda: self.steps > step, limit_s)

    def wait_s(self, seconds: float) -> None:
        """Let it go on for so long."""
        until = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= until, seconds + 10)

    def goes_dark(self, seconds: float, sender: str = "") -> float:
        """Let the link be dark for so long; return when it came back."""
        self.bench.hosts.dark(sender)
        self.wait_s(seconds)
        return float(self.bench.hosts.back())

    def first_after(self, back: float) -> float:
        """Return how long after ``back`` the first step began that had not begun before."""
        before = max((frame.step for frame in self.frames if frame.time <= back), default=-1)
        return min(frame.time for frame in self.frames if frame.time > back and frame.step > before) - back

    def notes(self, party: str, words: str) -> int:
        """Return how often a party said this."""
        return self.log(party).read_text(errors="replace").count(words)

    def check_once(self, quiet: Bench) -> None:
        """Nothing left twice, nothing is missing, nobody restarted, and no roll was called after the first.

        Args:
            quiet: Where the study is run once more with nothing happening.
        """
        check_same_frames(self, quiet)
        assert self.notes("server", "all are there") == 1, self.output()


def check_same_frames(trial: Trial, quiet: Bench) -> None:
    """What left in this trial, each frame counted, is what leaves when nothing happens."""
    with Trial(quiet, trial.study, trial.folder / "quiet") as undisturbed:
        undisturbed.wait()
    expected = Counter(frame[1:] for frame in frames_of(undisturbed))
    found = Counter(frame[1:] for frame in frames_of(trial))
    assert found - expected == Counter(), "left twice"
    assert expected - found == Counter(), "never left"


def frames_of(trial: Trial) -> list[Frame]:
    """Return what the parties' disclosure logs say that left, in the order of time."""
    frames = []
    for party in trial.parties:
        log = trial.out(party) / "disclosure.log"
        for line in log.read_bytes().split(b"\n")[:-1] if log.exists() else ():
            said = json.loads(line)
            if said["entry"] == "frame":
                at = datetime.fromisoformat(said["time"]).timestamp()
                what = (said[name] for name in ("to", "kind", "cut", "phase", "step", "checksum"))
                frames.append(Frame(at, party, *what))
    return sorted(frames)
