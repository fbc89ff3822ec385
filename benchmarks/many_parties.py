"""What a hundred connected parties cost their host: memory, threads and time, and whether memory grows with time.

A study in round robin is hosted by one process, and a hundred parties join it over mutual TLS, ten in each of ten
processes. All train five rounds: in each, every party has its turn (ten rows in batches of five) and hands its
half of the network to the next one, through the host. The host's resident memory (VmRSS, as Linux tells it) is
read when all are connected and at the end of every round.

Ends with 1 if the host's memory grew by more than 5 % from the end of the first round to the end of the last one, if
it takes more than 5 MB a party, or if the weights differ from those of the simulation in one process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import measuring
import torch
from safetensors.torch import load_file
from torch import nn

import cutlayer as cl
from cutlayer.keys import Authority, Credentials
from cutlayer.sessions.conductor import Absence
from cutlayer.sessions.hosting import serve
from cutlayer.sessions.joining import join
from cutlayer.sessions.participant import Part
from cutlayer.transports.network import NetworkSettings

MAX_GROWTH, MAX_MB_PER_PARTY = 1.05, 5.0
ROWS = 10


def study_of(parties: int, rounds: int) -> tuple[cl.Study, cl.data.Holdings]:
    """Return the study and who holds what; the same in every process."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(parties * ROWS, 32, generator=draw)
    y = torch.randint(0, 4, (len(x),), generator=draw)
    people = cl.data.arrays(x, y).split_rows(parties)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 4))
    study = cl.Study(
        graph=cl.vanilla(network, cut="1", clients=people), optimizer=cl.optim.SGD(lr=0.05), batch_size=5,
        epochs=rounds, evaluate=(),
    )  # fmt: skip
    return study, people


class Watcher:
    """Notes the host's memory at the end of each round, and where it listens."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.megabytes: list[float] = []
        self.began = 0.0
        self.seconds: list[float] = []

    def progress(self, *now: Any) -> None:
        """Nothing to note."""

    def status(self, now: Any) -> None:
        """Nothing to note."""

    def event(self, event: Any) -> None:
        """An epoch's end is a round's end."""
        if event.kind == "epoch_ended":
            self.megabytes.append(resident_mb())
            self.seconds.append(event.seconds)

    def note(self, what: str) -> None:
        """Keep it."""
        self.notes.append(what)
        if "all are there" in what and not self.megabytes:
            self.megabytes.append(resident_mb())
            self.began = time.perf_counter()


def resident_mb() -> float:
    """Return this process's resident memory, as Linux tells it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this needs Linux's /proc")


def part_of(folder: Path, study: cl.Study, people: cl.data.Holdings, name: str) -> Part:
    """Return the part of one party."""
    data = next((party for party in people.parties if party.name == name), None)
    return Part(study=study, party=name, host="server", data=data, folder=folder / name, every=1000)


def take_part(folder: Path, address: str, parties: int, rounds: int, names: list[str]) -> None:
    """Be some of the parties, each in a thread of its own, to the end."""
    study, people = study_of(parties, rounds)

    def work(name: str) -> None:
        credentials = Credentials.load(folder / "keys" / name)
        join(
            part_of(folder, study, people, name), credentials, address, Watcher(), settings=NetworkSettings()
        )

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def host(folder: Path, parties: int, rounds: int, processes: int) -> measuring.Figures:
    """Host the study in this process; return figures."""
    study, people = study_of(parties, rounds)
    names = [party.name for party in people.parties]
    authority = Authority.create(folder / "keys" / "authority", "many")
    for name in (*names, "server"):
        authority.issue(name, folder / "keys" / name)
    before = resident_mb()
    watcher, ended = Watcher(), []

    def work() -> None:
        credentials = Credentials.load(folder / "keys" / "server")
        part = part_of(folder, study, people, "server")
        ended.append(
            serve(part, credentials, "127.0.0.1:0", watcher, absence=Absence(), settings=NetworkSettings())
        )

    hosting = threading.Thread(target=work)
    hosting.start()
    while not any("listens on" in note for note in watcher.notes):
        time.sleep(0.01)
    address = next(note for note in watcher.notes if "listens on" in note).split()[-1]
    asked = time.perf_counter()
    others = [
        subprocess.Popen(
            [sys.executable, __file__, "--folder", str(folder), "--address", address, "--parties", str(parties),
             "--rounds", str(rounds), "--names", ",".join(names[start::processes])],
            env=os.environ | {"OMP_NUM_THREADS": "1", "GRPC_VERBOSITY": "NONE"},
        )
        for start in range(processes)
    ]  # fmt: skip
    most_threads = 0
    while hosting.is_alive():
        most_threads = max(most_threads, threading.active_count())
        hosting.join(0.2)
    codes = [one.wait(60) for one in others]
    expected = study.simulate(people).weights()
    found = {path.stem: load_file(path) for path in folder.glob("*/model/*.safetensors")}
    different = [
        f"{segment}.{name}"
        for segment, tensors in expected.items()
        for name, tensor in tensors.items()
        if not torch.equal(tensor, found.get(segment, {}).get(name, torch.empty(0)))
    ]
    connected, *after_rounds = watcher.megabytes
    return {
        "parties": parties,
        "rounds": rounds,
        "ended_well": bool(ended) and not any(codes),
        "different": different,
        "seconds_until_all_are_there": watcher.began - asked,
        "seconds_a_round": watcher.seconds,
        "threads": most_threads,
        "mb": {"before": before, "all connected": connected, "after rounds": after_rounds},
        "mb_per_party": (after_rounds[-1] - before) / parties,
        "growth": after_rounds[-1] / after_rounds[0],
    }


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond the bar."""
    found = []
    if figures["different"] or not figures["ended_well"]:
        found.append(f"weights differ from the simulation: {figures['different'] or 'the study did not end'}")
    if figures["growth"] > MAX_GROWTH:
        found.append(f"the host's memory grew to {figures['growth']:.3f} times, more than {MAX_GROWTH}")
    if figures["mb_per_party"] > MAX_MB_PER_PARTY:
        found.append(f"a party costs {figures['mb_per_party']:.2f} MB, more than {MAX_MB_PER_PARTY}")
    return found


def main() -> int:
    """Measure, show and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parties", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="eight parties, two rounds")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--names", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.names:
        take_part(asked.folder, asked.address, asked.parties, asked.rounds, asked.names.split(","))
        return 0
    parties, rounds = (8, 2) if asked.quick else (asked.parties, asked.rounds)
    with tempfile.TemporaryDirectory() as folder:
        figures = host(Path(folder), parties, rounds, processes=2 if asked.quick else 10)
    memory = figures["mb"]
    print(f"{parties} parties, {rounds} rounds; {figures['threads']} threads at the host")
    print(f"memory: {memory['before']:.0f} MB before, {memory['all connected']:.0f} MB when all are connected, "
          f"after each round {', '.join(f'{mb:.1f}' for mb in memory['after rounds'])} MB")  # fmt: skip
    figures["quick"] = asked.quick
    return measuring.finish("many_parties", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
