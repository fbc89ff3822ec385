"""What the benchmarks of the network share: two parties in two processes over mutual TLS.

Started as a script, this is one process of a measurement (see `main`); it tells what happens by lines of JSON:

    python benchmarks/network_pair.py server w --keys KEYS --out OUT --address 127.0.0.1:0 --epochs 3
    python benchmarks/network_pair.py client-0 w --keys KEYS --out OUT --address 127.0.0.1:PORT --epochs 3

The parties are made as a study's parties are: study, credentials, `cutlayer.sessions.hosting.serve` and
`cutlayer.sessions.joining.join`, with snapshots, logs and disclosure logs. Threads are those that cutlayer chooses.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HOST, GUEST = "server", "client-0"
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Work:
    """A network to be split between two parties, and on what it is trained.

    Attributes:
        widths: Layers of a perceptron; none for VGG-11.
        cut: Where it is cut.
        rows: Rows of an epoch.
        rate: Learning rate of SGD.
        momentum: Its momentum.
        accumulate: Batches to an optimizer step.
        in_flight: How many of them may be under way.
        codec: How what crosses the cut is written, both ways or as the codec says.
        defences: At the cut, in words.
    """

    widths: tuple[int, ...] = ()
    cut: str = "activation1"
    rows: int = 12_800
    rate: float = 0.05
    momentum: float = 0.0
    accumulate: int = 1
    in_flight: int = 1
    codec: str = "exact"
    defences: tuple[str, ...] = ()


_FAR = Work(cut="features.2", rows=512, rate=0.01, momentum=0.9)
_IN_FLIGHT = replace(_FAR, accumulate=8, in_flight=4)
WORKS = {
    "w": Work(widths=(784, 256, 10)),
    "w_nopeek": Work(widths=(784, 256, 10), defences=("nopeek:0.1",)),
    "wide": Work(widths=(784, 4096, 10), rows=1_920),
    "thin": Work(widths=(784, 8, 10)),
    "vgg": Work(cut="features.2", rows=3_200, rate=0.01, momentum=0.9),
    "vgg_middle": Work(cut="features.10", rows=1_280, rate=0.01, momentum=0.9, accumulate=8, in_flight=4),
    "far": _FAR,
    "far_int8": replace(_FAR, codec="int8"),
    "far_in_flight": _IN_FLIGHT,
    "far_in_flight_int8": replace(_IN_FLIGHT, codec="int8"),
    "far_in_flight_topk": replace(_IN_FLIGHT, codec="topk:0.1,bfloat16"),
}
"""Workload W; with NoPeek; with 1 MB a cut, with 2 KB a cut; VGG-11 cut after its first block; and cut in its middle,
with micro-batches in flight; cut after its first block, with micro-batches in flight, a codec, or both."""


def network(work: Work) -> Any:
    """Return the whole network with its initial weights, the same at every call."""
    import torch

    import cutlayer as cl

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cl.networks.mlp(work.widths) if work.widths else cl.networks.vgg11(10)


def rows_of(work: Work) -> tuple[Any, Any]:
    """Return random rows of the shape of MNIST or CIFAR-10, and their labels."""
    import torch

    draw = torch.Generator().manual_seed(0)
    shape = (784,) if work.widths else (3, 32, 32)
    return torch.rand(work.rows, *shape, generator=draw), torch.randint(0, 10, (work.rows,), generator=draw)


def study_of(work: Work, epochs: int) -> tuple[Any, Any]:
    """Return the study and who holds what."""
    import cutlayer as cl

    people = cl.data.arrays(*rows_of(work)).split_rows(1)
    graph = cl.vanilla(network(work), work.cut, clients=people, codecs=work.codec)
    sgd = cl.optim.SGD(lr=work.rate, momentum=work.momentum)
    schedule = cl.RoundRobin(accumulate=work.accumulate, in_flight=work.in_flight)
    study = cl.Study(
        graph=graph, schedule=schedule, optimizer=sgd, batch_size=BATCH, epochs=epochs, evaluate=(),
        defences=work.defences,
    )  # fmt: skip
    return study, people


# --- one process -------------------------------------------------------------------------------------


def tell(**what: Any) -> None:
    """Write one line for whoever started this process; ``at`` is the same clock in all processes."""
    line = json.dumps({"at": time.monotonic(), "worked_s": time.process_time(), **what})
    sys.stdout.write(f"{line}\n")  # in one piece: several threads tell
    sys.stdout.flush()


class Teller:
    """Watches a party and tells what it sees."""

    def __init__(self) -> None:
        self._first = True

    def progress(self, now: Any, sent_bytes: int) -> None:
        """Tell when training begins."""
        if self._first and now.step >= 1:
            self._first = False
            tell(first_steps=now.step)

    def status(self, now: Any) -> None:
        """Nothing to tell."""

    def event(self, event: Any) -> None:
        """Tell what is in the log."""
        if event.kind in ("epoch_ended", "worked", "traffic"):
            tell(event=event.kind, **{n: getattr(event, n) for n in event.__dataclass_fields__})

    def note(self, what: str) -> None:
        """Tell the port, and what may have gone wrong."""
        if " listens on " in what:
            tell(port=int(what.rpartition(":")[2]))
        else:
            tell(note=what)


def be_party(asked: argparse.Namespace) -> None:
    """Take part in a study, as `cutlayer serve` and `cutlayer join` do."""
    from cutlayer.sessions.process import keep_memory, patient_threads

    patient_threads()
    keep_memory()
    import torch

    from cutlayer.keys.credentials import Credentials
    from cutlayer.sessions.conductor import Absence
    from cutlayer.sessions.hosting import serve
    from cutlayer.sessions.joining import join
    from cutlayer.sessions.participant import Part
    from cutlayer.sessions.threads import default_threads
    from cutlayer.transports.network import NetworkSettings

    study, people = study_of(WORKS[asked.work], asked.epochs)
    torch.set_num_threads(default_threads(study, asked.party))
    data = None if asked.party == HOST else people.party(asked.party)
    part = Part(study=study, party=asked.party, host=HOST, data=data, folder=asked.out / asked.party)
    credentials = Credentials.load(asked.keys / asked.party)
    tell(threads=torch.get_num_threads())
    watcher, settings = Teller(), NetworkSettings()
    if asked.party == HOST:
        serve(part, credentials, asked.address, watcher, absence=Absence(), settings=settings)
    else:
        join(part, credentials, asked.address, watcher, settings=settings)


def main() -> int:
    """Be one process of a measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("party", choices=[HOST, GUEST])
    parser.add_argument("work", choices=list(WORKS))
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--epochs", type=int, default=2)
    be_party(parser.parse_args())
    return 0


# --- who starts them ---------------------------------------------------------------------------------


@dataclass
class Told:
    """What a process told.

    Attributes:
        lines: All of it, in order.
    """

    lines: list[dict[str, Any]] = field(default_factory=list)

    def all(self, word: str) -> list[dict[str, Any]]:
        """Return the lines that have ``word``."""
        return [line for line in self.lines if word in line]

    def epochs(self) -> list[dict[str, Any]]:
        """Return the lines about epochs that ended."""
        return [line for line in self.all("event") if line["event"] == "epoch_ended"]

    def step_seconds(self) -> float:
        """Return the seconds of a step from the end of the first epoch to that of the last, everything included."""
        ended = self.epochs()
        return float((ended[-1]["at"] - ended[0]["at"]) / sum(e["steps"] for e in ended[1:]))


@contextlib.contextmanager
def keys(*names: str) -> Iterator[Path]:
    """Make an authority and each party's credentials in a folder that goes away."""
    from cutlayer.keys.authority import Authority

    with tempfile.TemporaryDirectory(prefix="cutlayer-") as name:
        folder = Path(name)
        authority = Authority.create(folder / "authority", "benchmark")
        for party in names or (HOST, GUEST):
            authority.issue(party, folder / party)
        yield folder


@contextlib.contextmanager
def started(
    script: str,
    arguments: Sequence[object],
    *,
    prefix: str = "",
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Start a script beside this one; it is ended at the end.

    Args:
        script: Its name.
        arguments: Its arguments.
        prefix: What to put before the command, such as ``ip netns exec a``.
        environment: What to add to the environment.
    """
    command = [*prefix.split(), sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)]
    # Threads are what cutlayer chooses, unless a measurement says otherwise.
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    made = {"GRPC_VERBOSITY": "ERROR", "PYTHONUNBUFFERED": "1", **inherited, **(environment or {})}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=made) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def listen(process: subprocess.Popen[str], told: Told, until: str = "") -> dict[str, Any]:
    """Read what a process tells until a line has ``until``, or to its end; return that line.

    Raises:
        SystemExit: If it ended without, or failed.
    """
    for line in process.stdout or ():
        told.lines.append(json.loads(line))
        if until and until in told.lines[-1]:
            return told.lines[-1]
    if process.wait() or until:
        sys.exit(f"{process.args!r} ended with {process.returncode}; it told {told.lines[-3:]}")
    return {}


def two_parties(
    work: str,
    credentials: Path,
    epochs: int,
    *,
    prefixes: tuple[str, str] = ("", ""),
    listen_at: str = "127.0.0.1",
    environment: Mapping[str, str] | None = None,
) -> dict[str, Told]:
    """Train in two processes over mutual TLS; return what each of them told.

    Args:
        work: Name of the work.
        credentials: Folder with both parties' keys.
        epochs: How many.
        prefixes: What to put before the commands of host and guest.
        listen_at: Address of the host.
        environment: What to add to the environment of both.
    """
    told = {HOST: Told(), GUEST: Told()}
    with tempfile.TemporaryDirectory(prefix="cutlayer-") as out:

        def common(port: int) -> list[object]:
            return [
                work, "--keys", credentials, "--out", out, "--address", f"{listen_at}:{port}", "--epochs", epochs
            ]  # fmt: skip

        with started(
            "network_pair.py", [HOST, *common(0)], prefix=prefixes[0], environment=environment
        ) as host:
            port = listen(host, told[HOST], "port")["port"]
            with started(
                "network_pair.py", [GUEST, *common(port)], prefix=prefixes[1], environment=environment
            ) as guest:
                listen(guest, told[GUEST])
                listen(host, told[HOST])
    return told


if __name__ == "__main__":
    sys.exit(main())
