"""``cutlayer local``: all parties as processes on this machine, over real TLS: the rehearsal."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import LogError, StudyError
from ..sessions.process import patient_threads
from ..sessions.quick_start import quick_start
from .commands import STUDY
from .ending import asked_to_end, exit_status
from .screen import console
from .taking_part import check_extra, host_of, name_in_a_path

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import Holdings
    from ..graph.split_graph import SplitGraph
    from ..study import Study
    from ..study_file import StudyFile
    from .company import Member

__all__ = ["local"]

_MARK = "rehearsal.json"
_DEALT, _KEYS, _OUTPUT = "dealt", "keys", "output"


def local(
    study: Annotated[Path, STUDY],
    out: Annotated[
        Path | None, typer.Option(help="Where it is kept; runs/STUDY-local unless given.", metavar="DIR")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Compute threads of each party.")] = 1,
    keep_keys: Annotated[
        bool, typer.Option("--keep-keys", help="Keep the throw-away keys when it is over.")
    ] = False,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Simulate the study as well, and compare all weights bit by bit."),
    ] = False,
) -> None:
    """Rehearse a study: all parties as processes on this machine, over real TLS.

    Makes a throw-away authority and keys, deals the data as `cutlayer deal` does, and starts every party with
    `cutlayer serve` or `cutlayer join`. A party that is killed is started again, and training goes on. Started
    again in the same folder, an interrupted rehearsal goes on.

    \b
    cutlayer local study.toml
    cutlayer local study.toml --out rehearsal --compare
    """  # noqa: D301
    from ..study_file import load_study

    patient_threads()
    check_extra()
    file = load_study(study)
    folder = out or Path("runs") / f"{name_in_a_path(file.name)}-local"
    import torch

    quick_start()
    torch.set_num_threads(threads)
    built = _prepared(file, folder)
    members = _members(file, built, folder, threads)
    folders = {member.party: folder / member.party for member in members}
    try:
        with asked_to_end():
            _run(members, folders, threads, f"{built.name}: {len(members)} parties -> {folder}")
    except KeyboardInterrupt as ended:
        words = ["cutlayer", "local", str(study), "--out", str(folder), "--threads", str(threads)]
        said = (
            f"\nStopped. What was done up to the last snapshots is kept. Go on with:\n  {shlex.join(words)}"
        )
        console(stderr=True).print(said, markup=False, soft_wrap=True)
        raise typer.Exit(exit_status(ended)) from None
    finally:
        if not keep_keys:
            shutil.rmtree(folder / _KEYS, ignore_errors=True)
    _say(f"Each party's log, disclosure log and half of the network lie in {folder}/PARTY.")
    if compare:
        _compare(built, file.holdings(), folders)
    else:
        same = f"cutlayer simulate {study} --threads {threads}"
        _say(f"`{same}` gives the same weights, bit for bit; --compare checks it.")


def _run(members: list[Member], folders: Mapping[str, Path], threads: int, title: str) -> None:
    from .company import Company
    from .company_view import ending, watched

    screen = console()
    _say(title)
    with watched(members, screen) as view:
        Company(members, view, threads).run()
    ending(members, dict(folders), view)


def _prepared(file: StudyFile, folder: Path) -> Study:
    """Return the study; deal the data, or find those of the rehearsal that goes on, and make new keys."""
    from ..keys import Authority

    study, holdings = file.build()
    mark = folder / _MARK
    if folder.exists() and not mark.exists() and any(folder.iterdir()):
        raise StudyError(
            f"{folder} holds something else than a rehearsal",
            todo="choose a new folder, or an empty one, with --out",
        )
    try:
        if mark.exists():
            before = json.loads(mark.read_text(encoding="utf-8"))
            if before != study.parts:
                differ = sorted(name for name, part in study.parts.items() if before.get(name) != part)
                raise StudyError(
                    f"the rehearsal in {folder} is of another study: {', '.join(differ)} differ",
                    todo="choose another folder with --out, or remove that one",
                )
        else:
            shutil.rmtree(folder / _DEALT, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            mark.write_text(json.dumps(study.parts, indent=1) + "\n", encoding="utf-8")
            file.deal(folder / _DEALT, (study, holdings))
        shutil.rmtree(folder / _KEYS, ignore_errors=True)
        shutil.rmtree(folder / _OUTPUT, ignore_errors=True)
    except (OSError, ValueError) as error:
        raise LogError(
            f"{folder} cannot be used: {error}", todo="choose another folder with --out"
        ) from error
    authority = Authority.create(folder / _KEYS / "authority", f"rehearsal of {study.name}", days=30)
    for party in study.graph.parties:
        authority.issue(party.name, folder / _KEYS / party.name, hosts=["localhost", "127.0.0.1"], days=30)
    return study


def _members(file: StudyFile, study: Study, folder: Path, threads: int) -> list[Member]:
    """Return the parties with their commands, the host first."""
    from .company import Member

    host, port = host_of(file), _free_port()
    members = []
    for party in sorted(study.graph.parties, key=lambda party: party.name != host):
        name = party.name
        words = ["serve" if name == host else "join", str(folder / _DEALT / name / file.path.name)]
        words += [] if name == host else ["--as", name]
        words += ["--keys", str(folder / _KEYS / name), "--out", str(folder / name)]
        words += ["--listen", f"127.0.0.1:{port}"] if name == host else ["--address", f"127.0.0.1:{port}"]
        words += ["--approve", study.digest, "--threads", str(threads), "--no-report", "--json"]
        members.append(
            Member(party=name, role=party.role, words=words, errors=folder / _OUTPUT / f"{name}.txt")
        )
    return members


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _compare(study: Study, holdings: Holdings, folders: Mapping[str, Path]) -> None:
    """Simulate the study, and compare every parameter and buffer."""
    _say("Simulating the same study in this process …")
    weights = study.simulate(holdings).weights()
    differing = []
    numbers = 0
    for segment, expected in weights.items():
        found = _half(study.graph, segment, folders)
        for name, tensor in expected.items():
            numbers += tensor.numel()
            if not _same(found.get(name), tensor.cpu()):
                differing.append(f"{segment}.{name}")
    if differing:
        raise StudyError(
            f"the weights differ from the simulation's: {', '.join(differing[:5])}",
            todo="were the threads or the software others? Please report this otherwise",
        )
    _say(f"All {numbers:,} weights of {', '.join(weights)} equal the simulation's, bit for bit.")


def _half(graph: SplitGraph, segment: str, folders: Mapping[str, Path]) -> dict[str, Tensor]:
    """Return the weights of a segment, from the party that has it in the end."""
    from ..runtime.halves import load_half

    for party, folder in folders.items():
        if (folder / "model" / f"{segment}.safetensors").exists():
            return load_half(folder / "model", graph, party, segment)
    raise StudyError(f"no party has the segment {segment!r} in the end")


def _same(found: Tensor | None, expected: Tensor) -> bool:
    import torch

    if found is None or (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return False
    flat = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (found, expected))
    return torch.equal(*flat)


def _say(text: str) -> None:
    console().print(text, markup=False, soft_wrap=True)
