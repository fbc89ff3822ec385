"""A study run by real processes over mutual TLS, with faults; in the end it must have the simulator's bits."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from party_studies import BY_COLUMNS, shuffle_records, write_study
from safetensors.torch import load_file

from cutlayer.keys.authority import Authority
from cutlayer.metering.run_log import RunLog
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.runtime.positions import Position
from cutlayer.runtime.simulate import Simulation
from cutlayer.runtime.snapshots import Snapshot, Snapshots
from cutlayer.schedules.calendar import Leave
from cutlayer.study_file import load_study

__all__ = ["Bench", "Trial", "differing"]

_HERE = Path(__file__).parent


class Bench:
    """What trials share: the process that forks, the study's authority, and simulations that were done already.

    Args:
        folder: Where everything is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = Authority.create(folder / "authority", "trials")
        self._expected: dict[Path, tuple[dict[str, Any], Snapshot]] = {}
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "GRPC_VERBOSITY": "NONE",
            "PYTHONPATH": os.pathsep.join([str(_HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        self._nursery = subprocess.Popen(
            [sys.executable, str(_HERE / "party_process.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._ended: dict[int, int] = {}
        threads = self._order({"warm": str(write_study(folder / "warm", "u-shape", epochs=1))})
        assert threads == 1, "a process with threads cannot be forked"

    def credentials(self, party: str) -> Path:
        """Return the folder of a party's credentials, made when first asked for."""
        folder = self.folder / "keys" / party
        if not folder.exists():
            self.authority.issue(party, folder)
        return folder

    def start(self, **order: Any) -> int:
        """Start a party's process and return its number, which may have been that of one long ended."""
        number = int(self._order(order))
        self._ended.pop(number, None)
        return number

    def code(self, number: int) -> int | None:
        """Return how a process ended, None while it runs."""
        self._ended.update((n, code) for n, code in self._order({"poll": True}))
        return self._ended.get(number)

    def close(self) -> None:
        """End the process that forks."""
        self._nursery.stdin.close()
        self._nursery.wait(60)
        self._nursery.stdout.close()

    def _order(self, order: Mapping[str, Any]) -> Any:
        self._nursery.stdin.write(json.dumps(order) + "\n")
        self._nursery.stdin.flush()
        return json.loads(self._nursery.stdout.readline())

    def dealt(self, name: str, **changes: object) -> Path:
        """Return a folder with a study file, the parties' folders and the simulation's results; made once."""
        words = "-".join(f"{key}={value}" for key, value in sorted(changes.items()))
        folder = (
            self.folder
            / "studies"
            / "".join(c if c.isalnum() or c in "=-." else "_" for c in f"{name}-{words}")
        )
        if not folder.exists():
            file = load_study(write_study(folder, name, **changes))
            for number, place in enumerate(file.deal(folder / "dealt").values()):
                if name in BY_COLUMNS:  # where each role has one party of the same name
                    shuffle_records(place, place.name, number)
        return folder

    def expected(self, study: Path) -> tuple[dict[str, Any], Snapshot]:
        """Return the simulator's final weights by segment, and its last snapshot."""
        if study not in self._expected:
            built, holdings = load_study(study / "study.toml").build()
            run = built.simulate(holdings, out=study / "simulated")
            last = Snapshots(study / "simulated").load(Position(built.epochs, 0))
            self._expected[study] = run.weights(), last
        return self._expected[study]

    def with_leaves(self, study: Path, leaves: Sequence[Leave]) -> dict[str, Any]:
        """Return the simulator's final weights by segment, if these turns do not take place."""
        built, holdings = load_study(study / "study.toml").build()
        cohorts = Cohorts(built.graph, holdings)
        calendar = built.course(cohorts.rows, leaves).calendar
        simulation = Simulation(
            built.graph, holdings, built.schedule, calendar, cohorts, built.settings, RunLog()
        )
        simulation.train()
        return simulation.weights()


class Trial:
    """One study, its parties as processes.

    Args:
        bench: What it is done on.
        study: The study's folder, as :meth:`Bench.dealt` made it.
        folder: Where the parties' folders are.
        plan: For each party the faults of its processes, one after another: each a list of what
            :func:`faults.install` understands. Once they are used up there are none.
        only: Who is there at the beginning; everybody unless given.
        patient: Start a party again that ended with an error, as somebody would who read it.
    """

    def __init__(
        self,
        bench: Bench,
        study: Path,
        folder: Path,
        plan: Mapping[str, Sequence[Sequence[str]]] | None = None,
        only: Sequence[str] | None = None,
        patient: bool = False,
    ) -> None:
        self.bench, self.study, self.folder = bench, study, folder
        self.parties = sorted(place.name for place in (study / "dealt").iterdir())
        self.plan = {party: list((plan or {}).get(party, [])) for party in self.parties}
        self.present = list(only or self.parties)
        self.numbers: dict[str, int] = {}
        self.codes: dict[str, int] = {}
        self.kills: dict[str, int] = dict.fromkeys(self.parties, 0)
        self.away: set[str] = set()
        self.patient, self.errors = patient, dict.fromkeys(self.parties, 0)
        self.address = f"localhost:{_free_port()}"
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Trial:
        for party in self.present:
            self.start(party)
        return self

    def __exit__(self, *error: object) -> None:
        for party in self.numbers:
            self.kill(party)

    def start(self, party: str) -> None:
        """Start a party's process, with the next of its faults."""
        faults = self.plan[party].pop(0) if self.plan[party] else []
        self.gate(party).unlink(missing_ok=True)
        self.codes.pop(party, None)
        self.away.discard(party)
        self.numbers[party] = self.bench.start(
            party=party,
            folder=str(self.study / "dealt" / party),
            out=str(self.out(party)),
            keys=str(self.bench.credentials(party)),
            address=self.address,
            log=str(self.log(party)),
            faults=faults,
        )

    def out(self, party: str) -> Path:
        """Return the folder in which a party keeps everything."""
        return self.folder / party

    def log(self, party: str) -> Path:
        """Return the file with a party's output."""
        return self.folder / f"{party}.log"

    def kill(self, party: str, *, stay_away: bool = False) -> None:
        """Kill a party's process if it runs; it is started again at once unless it is to stay away."""
        if stay_away:
            self.away.add(party)
        self.signal(party, signal.SIGKILL)

    def signal(self, party: str, number: int) -> None:
        """Send a signal to a party's process if it runs."""
        if self.bench.code(self.numbers[party]) is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.numbers[party], number)

    def look(self) -> None:
        """See who has ended: who was killed is started again, who failed fails the trial."""
        for party, number in list(self.numbers.items()):
            code = self.bench.code(number)
            if code is None or party in self.codes:
                continue
            self.codes[party] = code
            if code == 1 and self.patient:
                self.errors[party] += 1
                self.start(party)
            if code == -signal.SIGKILL:
                self.kills[party] += 1
                if party not in self.away:
                    self.start(party)

    def wait(
        self, until: Callable[[], bool] | None = None, limit_s: float = 90.0, failing: Sequence[str] = ()
    ) -> None:
        """Keep everything going until all are done, or ``until`` says so.

        Args:
            until: Asked some fifty times a second.
            limit_s: How long at most.
            failing: Parties that may end with an error.
        """
        deadline = time.monotonic() + limit_s
        until = until or (
            lambda: all(self.codes.get(party) == 0 for party in self.numbers if party not in self.away)
        )
        while not until():
            self.look()
            wrong = {
                p: c for p, c in self.codes.items() if c not in (0, -signal.SIGKILL) and p not in failing
            }
            assert not wrong, f"ended with {wrong}\n{self.output()}"
            assert time.monotonic() < deadline, f"not done within {limit_s:g} s\n{self.output()}"
            time.sleep(0.02)

    def gate(self, party: str) -> Path:
        """Return the file that is there while a party stands at a gate; see :func:`faults._gate`."""
        return self.folder / f"{party}.gate"

    def wait_at_gate(self, party: str) -> None:
        """Keep everything going until a party stands at a gate, where it stays until :meth:`open_gate`."""
        self.wait(lambda: self.gate(party).exists())

    def open_gate(self, party: str) -> None:
        """Let a party go on."""
        self.gate(party).unlink()

    def said(self, party: str, words: str) -> bool:
        """Whether a party's output, if there is any yet, has these words."""
        return self.log(party).exists() and words in self.log(party).read_text(errors="replace")

    def snapshots(self, party: str) -> list[tuple[int, int]]:
        """Return the positions of a party's snapshots, oldest first."""
        folder = self.out(party) / "snapshot"
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        found = [tuple(map(int, name.split("-"))) for name in names if name.replace("-", "").isdigit()]
        return sorted(found)

    def output(self, lines: int = 40) -> str:
        """Return the end of every party's output."""
        texts = []
        for party in self.parties:
            text = self.log(party).read_text(errors="replace") if self.log(party).exists() else ""
            texts.append(
                f"===== {party} (kills {self.kills[party]})\n" + "\n".join(text.splitlines()[-lines:])
            )
        return "\n".join(texts)

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the weights of all segments that the parties wrote."""
        files = [path for party in self.parties for path in self.out(party).glob("model/*.safetensors")]
        found: dict[str, dict[str, torch.Tensor]] = {}
        for path in files:
            assert path.stem not in found, f"two parties wrote {path.stem}"
            found[path.stem] = load_file(path)
        return found

    def check(self) -> None:
        """Compare weights and the whole state after the last step with the simulator's, bit for bit."""
        weights, last = self.bench.expected(self.study)
        assert differing(weights, self.weights()) == [], self.output()
        for party in self.parties:
            mine = Snapshots(self.out(party)).load(last.position).states.get(party, {})
            theirs = last.states.get(party, {})
            assert differing(theirs, mine) == [], f"{party}'s state\n{self.output()}"
        spare = {party: plan for party, plan in self.plan.items() if plan}
        assert not spare, f"faults that never came: {spare}\n{self.output()}"


def differing(
    expected: Mapping[str, Mapping[str, torch.Tensor]], found: Mapping[str, Mapping[str, torch.Tensor]]
) -> list[str]:
    """Return the names of the tensors that are not the same bits."""
    wrong = sorted(expected.keys() ^ found.keys())
    for name in expected.keys() & found.keys():
        mine, theirs = expected[name], found[name]
        wrong += [f"{name}/{key}" for key in mine.keys() ^ theirs.keys()]
        wrong += [f"{name}/{key}" for key in mine.keys() & theirs.keys() if not _same(mine[key], theirs[key])]
    return wrong


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    same_kind = (one.shape, one.dtype) == (other.shape, other.dtype)
    return same_kind and one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """Give a bench, and take it down again."""
    made = Bench(folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)
