"""Several clients that train with a server over a link, each party with keys, frames and TLS of its own.

The server is a process on one host, and the clients are threads of up to eight processes on another (two_hosts.py). All
that clients send and get goes over the one link between the two hosts, which loses nothing: what does not fit waits.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import network_pair
import torch
from network_pair import HOST, Told, listen, started, tell
from two_hosts import ADDRESSES, TwoHosts, Wire

import cutlayer as cl
from cutlayer.metering.events import Computed, Event, Traffic
from cutlayer.planner import SCHEDULES

__all__ = ["Crowd", "Ends", "add_arguments", "be_parties", "link", "measured", "study_of"]

BATCH, BATCHES, PROCESSES = 64, 4, 8
SIZES = (784, 64, 10)


def study_of(clients: int, schedule: str, epochs: int) -> tuple[cl.Study, cl.data.Holdings]:
    """Return the study and who holds what; the same in every process.

    Args:
        clients: How many.
        schedule: Its word in `cutlayer.planner.SCHEDULES`.
        epochs: How many.
    """
    draw = torch.Generator().manual_seed(0)
    rows = clients * BATCHES * BATCH
    people = cl.data.arrays(
        torch.rand(rows, SIZES[0], generator=draw), torch.randint(10, (rows,), generator=draw)
    ).split_rows(clients)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        graph = cl.vanilla(cl.networks.mlp(SIZES), "activation1", clients=people)
    study = cl.Study(
        graph=graph, optimizer=cl.optim.SGD(lr=0.01), schedule=SCHEDULES[schedule](), batch_size=BATCH,
        epochs=epochs, evaluate=(),
    )  # fmt: skip
    return study, people


# --- one process -------------------------------------------------------------------------------------


class _Teller(network_pair.Teller):
    """Tells what a party counted."""

    def __init__(self, party: str) -> None:
        super().__init__()
        self._party = party

    def event(self, event: Any) -> None:
        """Tell what is in the log, and of epochs' ends the server's."""
        ended = event.kind == "epoch_ended" and self._party == HOST
        if ended or event.kind in ("traffic", "computed"):
            tell(event=event.kind, fields=asdict(event))


def be_parties(asked: argparse.Namespace) -> None:
    """Be the parties ``asked.names`` to the end, each in a thread of its own."""
    from cutlayer.keys.credentials import Credentials
    from cutlayer.sessions.conductor import Absence
    from cutlayer.sessions.hosting import serve
    from cutlayer.sessions.joining import join
    from cutlayer.sessions.participant import Part
    from cutlayer.sessions.process import keep_memory, patient_threads
    from cutlayer.transports.network import NetworkSettings

    patient_threads()
    keep_memory()
    torch.set_num_threads(1)
    study, people = study_of(asked.clients, asked.schedule, asked.epochs)

    def work(name: str) -> None:
        data = None if name == HOST else people.party(name)
        part = Part(study=study, party=name, host=HOST, data=data, folder=asked.folder / name, every=1000)
        credentials, watcher = Credentials.load(asked.keys / name), _Teller(name)
        settings = NetworkSettings()
        if name == HOST:
            serve(part, credentials, asked.address, watcher, absence=Absence(), settings=settings)
        else:
            join(part, credentials, asked.address, watcher, settings=settings)

    threads = [threading.Thread(target=work, args=(name,)) for name in asked.names.split(",")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- who starts them ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ends:
    """The ends of a link: what to put before commands that run there, and the server's address.

    Attributes:
        server: Before the server's command; nothing on this host.
        clients: Before the clients'.
        address: Where the server listens.
    """

    server: str = ""
    clients: str = ""
    address: str = "127.0.0.1"


@dataclass(frozen=True)
class Crowd:
    """What was measured of a training.

    Attributes:
        epoch_s: Seconds of an epoch: the median of all but the first, in which TCP finds out how much the link carries.
        events: Traffic and compute by the logs of all parties.
    """

    epoch_s: float
    events: list[Event]

    @classmethod
    def of(cls, told: Sequence[Told]) -> Crowd:
        """Return what processes told."""
        lines = [line for one in told for line in one.all("event")]
        ended = [line["at"] for line in lines if line["event"] == "epoch_ended"]
        kinds: dict[str, type[Event]] = {kind.kind: kind for kind in (Traffic, Computed)}
        events = [kinds[line["event"]](**line["fields"]) for line in lines if line["event"] in kinds]
        return cls(statistics.median(b - a for a, b in itertools.pairwise(ended)), events)


@contextlib.contextmanager
def link(rtt_ms: float, mbit: float, control: str) -> Iterator[Ends]:
    """Be two hosts with a link of so many milliseconds there and back, and Mbit/s each way; yield its ends.

    TCP goes on after a pause as it was before, as docs/network-tuning.md advises, with the congestion control that is
    named.
    """
    with TwoHosts(Wire(delay_ms=rtt_ms / 2, mbit=mbit, queue_ms=60_000.0)) as hosts:
        prefixes = tuple(f"ip netns exec {hosts.names[host]}" for host in "ab")
        for prefix in prefixes:
            settings = ("net.ipv4.tcp_slow_start_after_idle=0", f"net.ipv4.tcp_congestion_control={control}")
            subprocess.run([*prefix.split(), "sysctl", "-qw", *settings], check=True)
        yield Ends(prefixes[0], prefixes[1], ADDRESSES["a"])


def measured(script: str, clients: int, schedule: str, epochs: int, ends: Ends) -> Crowd:
    """Train in processes, the server's at one end of a link and the clients' at the other.

    Args:
        script: Which calls `be_parties` when it is given ``--names``.
        clients: How many.
        schedule: In a word.
        epochs: How many.
        ends: Of the link.
    """
    names = [f"client-{index}" for index in range(clients)]
    shares = [share for start in range(PROCESSES) if (share := names[start::PROCESSES])]
    told = [Told() for _ in range(1 + len(shares))]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cutlayer-"))
        keys = stack.enter_context(network_pair.keys(HOST, *names))

        def start(prefix: str, port: int, who: list[str]) -> Any:
            words = ["--names", ",".join(who), "--keys", keys, "--folder", folder, "--clients", clients,
                     "--schedule", schedule, "--epochs", epochs, "--address", f"{ends.address}:{port}"]  # fmt: skip
            return stack.enter_context(
                started(script, words, prefix=prefix, environment={"OMP_NUM_THREADS": "1"})
            )

        host = start(ends.server, 0, [HOST])
        port = listen(host, told[0], "port")["port"]
        guests = [start(ends.clients, port, share) for share in shares]
        listen(host, told[0])  # guests tell little, so that their pipes do not fill up before
        for guest, one in zip(guests, told[1:], strict=True):
            listen(guest, one)
    return Crowd.of(told)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a process of `measured` is told."""
    for name, kind in (("names", str), ("keys", Path), ("folder", Path), ("clients", int), ("schedule", str),
                       ("epochs", int), ("address", str)):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
