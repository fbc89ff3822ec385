"""``cutlayer join``: a party that dials the host and performs its own part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .commands import STUDY
from .taking_part import begin, host_of, take_part

if TYPE_CHECKING:
    from ..sessions.part import Part, Watcher
    from ..study_file import PartyStudy

__all__ = ["join"]


def join(
    study: Annotated[Path, STUDY],
    party: Annotated[
        str, typer.Option("--as", help="Your party's name, as in its certificate.", metavar="PARTY")
    ],
    data: options.Data = None,
    keys: options.Keys = None,
    out: options.Out = None,
    address: Annotated[
        str | None,
        typer.Option(help="Where the host listens, if not where \\[network] says.", metavar="HOST:PORT"),
    ] = None,
    approve: options.Approve = None,
    threads: options.Threads = None,
    device: options.Device = None,
    report: options.Report = True,
    as_json: options.AsJson = False,
) -> None:
    """Take part in a study with your own data, which stay here.

    Shows first what would leave this party, and asks for approval. Only dials out, to one port. Waits for the host
    as long as need be, and comes back to it when the connection is lost. Started again in the same folder, it goes on.

    \b
    The whole way, from keys to a trained network:
        study-lead$  cutlayer keys init --study "heart study"
        study-lead$  cutlayer keys issue server --host study.example.org
        study-lead$  cutlayer keys issue hospital-a
        server$      cutlayer serve study.toml
        hospital-a$  cutlayer join study.toml --as hospital-a --data ./records

    \b
    cutlayer join study.toml --as hospital-a --data ./records
    cutlayer join study.toml --as hospital-a --data ./records --approve 5f0c1d2e3a4b5c6d7e8f90a1b2c3d4e5
    cutlayer join parties/client-0/study.toml --as client-0 --address localhost:7443
    """  # noqa: D301
    from ..errors import StudyError
    from ..study_file import load_study

    file = load_study(study).on(device)
    if party == host_of(file):
        raise StudyError(
            f"{party!r} is the host of this study", todo=f"start it with: cutlayer serve {study}"
        )
    own = begin(file, party, keys=keys, data=data, out=out, threads=threads)

    def run(part: Part, found: PartyStudy, watcher: Watcher) -> Path:
        from ..sessions.joining import join as dial
        from ..sessions.limits import settings_for

        settings = settings_for(found.study, found.network.max_frame_mb, carrier=found.network.carrier)
        return dial(part, own.credentials, address or found.network.address, watcher, settings=settings)

    take_part(own, approve, threads, as_json=as_json, report=report, run=run)
