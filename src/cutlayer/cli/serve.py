"""``cutlayer serve``: the party to which all others dial."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .commands import STUDY
from .taking_part import begin, host_of, take_part

if TYPE_CHECKING:
    from ..sessions.part import Part, Watcher
    from ..study_file import PartyStudy

__all__ = ["serve"]


def serve(
    study: Annotated[Path, STUDY],
    keys: options.Keys = None,
    data: options.Data = None,
    out: options.Out = None,
    listen: Annotated[
        str | None,
        typer.Option(
            help="Where to listen; the port of \\[network] address, on all interfaces, unless given.",
            metavar="HOST:PORT",
        ),
    ] = None,
    approve: options.Approve = None,
    threads: options.Threads = None,
    device: options.Device = None,
    report: options.Report = True,
    as_json: options.AsJson = False,
) -> None:
    """Host a study that the other parties join, and perform the host's own part.

    Shows first what would leave the host, and asks for approval. Waits until all are there, then trains. Whoever
    is lost meanwhile may come back. Started again in the same folder, it goes on.

    \b
    The whole way, from keys to a trained network:
        cutlayer keys init --study "heart study"
        cutlayer keys issue server --host study.example.org
        cutlayer keys issue hospital-a
        cutlayer serve study.toml
        cutlayer join study.toml --as hospital-a --data ./records

    \b
    cutlayer serve study.toml --keys keys/server --listen 0.0.0.0:7443
    cutlayer serve study.toml --approve 5f0c1d2e3a4b5c6d7e8f90a1b2c3d4e5
    """  # noqa: D301
    from ..study_file import load_study

    file = load_study(study).on(device)
    own = begin(file, host_of(file), keys=keys, data=data, out=out, threads=threads)

    def run(part: Part, found: PartyStudy, watcher: Watcher) -> Path:
        from ..sessions.conductor import Absence
        from ..sessions.hosting import serve as host
        from ..sessions.limits import settings_for

        network = found.network
        absence = Absence(then=network.absent, after_s=network.absent_after_s, late=tuple(network.late))
        everywhere = "[::]" if socket.has_dualstack_ipv6() else "0.0.0.0"
        address = listen or f"{everywhere}:{network.address.rpartition(':')[2]}"
        settings = settings_for(found.study, network.max_frame_mb, carrier=network.carrier)
        return host(part, own.credentials, address, watcher, absence=absence, settings=settings)

    take_part(own, approve, threads, as_json=as_json, report=report, run=run)
