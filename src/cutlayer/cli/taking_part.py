"""What ``serve`` and ``join`` have in common: whose part it is, with which keys and data, and how it ends."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import CutlayerError, IdentityError, StudyError, nearest
from ..sessions.process import keep_memory, patient_threads
from .ending import asked_to_end, exit_status
from .screen import console

if TYPE_CHECKING:
    from ..keys import Credentials
    from ..sessions.part import Part, Watcher
    from ..study_file import PartyStudy, StudyFile

__all__ = ["Own", "begin", "check_extra", "host_of", "name_in_a_path", "take_part"]

RECORDS = "records.safetensors"


@dataclass(frozen=True, kw_only=True)
class Own:
    """Whose part, with what.

    Attributes:
        file: The study's file.
        party: Who this is.
        folder: Where its part is kept.
        credentials: Its key and certificate.
        data: The folder of its own data, if it has one.
        command: The command that goes on with it.
    """

    file: StudyFile
    party: str
    folder: Path
    credentials: Credentials
    data: Path | None
    command: Sequence[str]


def begin(
    file: StudyFile,
    party: str,
    *,
    keys: Path | None,
    data: Path | None,
    out: Path | None,
    threads: int | None,
) -> Own:
    """Find what a party needs, before PyTorch is imported."""
    _set_threads(threads)
    os.umask(0o077)  # logs, snapshots and one's part of the network are nobody else's
    patient_threads()
    keep_memory()
    check_extra()
    _check_party(file, party)
    credentials = _credentials(file, party, keys)
    folder = out or Path("runs") / name_in_a_path(file.name) / party
    # Where compiled segments are kept: nobody else may write there, and a restart finds them.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder.absolute() / "compiled"))
    if data is None:
        data = _beside(file, party)
    return Own(file=file, party=party, folder=folder, credentials=credentials, data=data, command=_command())


def take_part(
    own: Own,
    approve: Sequence[str] | None,
    threads: int | None,
    *,
    as_json: bool,
    report: bool,
    run: Callable[[Part, PartyStudy, Watcher], Path],
) -> None:
    """Have the study approved, perform the party's part, and tell how it ended."""
    from ..sessions.approval import Approvals
    from .consent import agreed
    from .live import shown

    def build() -> PartyStudy:
        from ..sessions.quick_start import quick_start

        quick_start()
        return own.file.at(own.party, own.data)

    approvals = Approvals(own.folder)
    with asked_to_end():
        try:
            found, consent = agreed(own.file, approve or (), approvals, build, own.command)
            _use_threads(found, threads)
            part = _part(own, found)
            with shown(found.study, own.party, as_json=as_json) as watcher:
                for line in (consent, *_notices(own, found)):
                    watcher.note(line)
                run(part, found, watcher)
        except KeyboardInterrupt as ended:
            said = f"\nStopped. What was done up to the last snapshot is kept. Go on with:\n  {shlex.join(own.command)}"
            console(stderr=True).print(said, markup=False, soft_wrap=True)
            raise typer.Exit(exit_status(ended)) from None
    if not as_json:
        _finish(own.folder, report)


def host_of(file: StudyFile) -> str:
    """Return who hosts the study, as far as the file alone says it."""
    tables = file.tables
    serving = [party for party, role in tables.parties.items() if role == tables.roles.host]
    return tables.network.host or (serving[0] if serving else tables.roles.host)


def name_in_a_path(name: str) -> str:
    """Return a study's name as part of a path."""
    return name.replace(" ", "-")


# What is needed


def check_extra() -> None:
    """Refuse to go on without what parties on different machines need.

    Raises:
        StudyError: Says what to install.
    """
    if importlib.util.find_spec("cryptography") is None:
        raise StudyError(
            "parties on different machines need the package 'cryptography', which is not installed",
            todo='pip install "cutlayer[network]"',
        )


def _check_party(file: StudyFile, party: str) -> None:
    """Refuse a name that the study file does not have, where it names its parties."""
    named, roles = file.tables.parties, file.tables.roles
    if named and party not in named and party not in roles.all:
        raise StudyError(f"{file.path.name} has no party {party!r}", todo=nearest(party, list(named)))


def _credentials(file: StudyFile, party: str, keys: Path | None) -> Credentials:
    from ..keys import Credentials

    places = [keys] if keys is not None else [file.path.parent / "keys" / party, Path("keys") / party]
    places = list(dict.fromkeys(places))
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise IdentityError(
            f"there are no keys of {party!r}", got=f"nothing at {' or '.join(map(str, places))}",
            todo=f"name their folder with --keys, or ask the study lead for them (cutlayer keys issue {party})",
        )  # fmt: skip
    found = Credentials.load(folder)
    if found.party != party:
        raise IdentityError(
            f"the keys in {folder} are somebody else's", got=found.party, expected=party,
            todo=nearest(party, [found.party]),
        )  # fmt: skip
    return found


def _beside(file: StudyFile, party: str) -> Path | None:
    """Return the study's folder, if it is one that ``cutlayer deal`` made for a party that holds data."""
    roles, parties = file.tables.roles, file.tables.parties
    if parties.get(party, party) in roles.data and (file.path.parent / RECORDS).is_file():
        return file.path.parent
    return None


def _part(own: Own, found: PartyStudy) -> Part:
    from ..sessions.part import Part

    return Part(
        study=found.study, party=own.party, host=found.network.host, data=found.own, folder=own.folder,
        every=found.network.snapshot_every,
    )  # fmt: skip


def _notices(own: Own, found: PartyStudy) -> Iterator[str]:
    """Yield what the user should know before it begins."""
    again = (own.folder / "log.jsonl").exists()
    yield f"{'going on in' if again else 'this party is kept in'} {own.folder}"
    if found.own is not None:
        rows = ", ".join(f"{split} {len(records)}" for split, records in found.own.splits.items())
        where = f"data of {own.data}" if own.data else "its part of the pooled data, which are at hand here"
        yield f"{own.party} takes part with {where}: rows {rows}"
    left = own.credentials.days_left
    if left < 3:
        yield f"!! the certificate of {own.party} ends in {left * 24:.0f} hours; renew it: cutlayer keys renew"


# Threads


def _set_threads(threads: int | None) -> None:
    """Say how many threads there are, before PyTorch is imported."""
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)


def _use_threads(found: PartyStudy, threads: int | None) -> None:
    import torch

    from ..sessions.threads import default_threads

    if threads is not None:
        torch.set_num_threads(threads)
    else:
        torch.set_num_threads(default_threads(found.study, found.party))


# How it ends


def _command() -> list[str]:
    """Return the command as it was given, without what is asked once only."""
    words, kept = iter(sys.argv[1:]), ["cutlayer"]
    for word in words:
        if word == "--approve":
            next(words, None)
        elif not word.startswith("--approve="):
            kept.append(word)
    return kept


def _finish(folder: Path, report: bool) -> None:
    """Print where everything lies."""
    from ..metering.disclosures import LOG_NAME

    lines = [f"Log:             {folder / 'log.jsonl'}"]
    lines.append(f"Disclosure log:  {folder / LOG_NAME}  (cutlayer verify-log {folder})")
    model = folder / "model"
    if model.is_dir():
        halves = ", ".join(sorted(path.stem for path in model.glob("*.safetensors")))
        lines.append(f"This party's half of the network: {model}  ({halves})")
    if report:
        lines += _report(folder)
    screen = console()
    for line in lines:
        screen.print(line, markup=False, soft_wrap=True)


def _report(folder: Path) -> list[str]:
    from ..report.html import write_report

    try:
        return [f"Report:          {write_report(folder)}"]
    except CutlayerError as error:
        return [f"No report: {error}"]
