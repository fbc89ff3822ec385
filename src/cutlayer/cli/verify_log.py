"""``cutlayer verify-log``: is a disclosure log as it was written, and what left in all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .screen import console

if TYPE_CHECKING:
    from rich.table import Table

    from ..metering.disclosures import Disclosed, Flow

__all__ = ["verify_log"]


def verify_log(
    path: Annotated[
        Path, typer.Argument(help="The party's disclosure.log, or the folder it lies in.", metavar="PATH")
    ],
    head: Annotated[
        str | None,
        typer.Option(
            help="The head that was printed or sent earlier; it must be in the log.", metavar="HASH"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the sum as JSON.")] = False,
) -> None:
    """Check that nobody changed a party's disclosure log, and sum up what left the party.

    Each line holds the hash of the one before. A line that was changed, removed,
    put in or moved is named, and the exit code is 1.

    The hash of the last line, the head, is printed: keep it where the log's
    owner cannot change it, and give it with --head later. Without it, lines cut
    off at the end, or a log written anew from its first line, are not noticed.

    \b
    cutlayer verify-log records/
    cutlayer verify-log records/disclosure.log --head 5f0c…
    """  # noqa: D301
    from ..metering.disclosures import read_disclosures

    found = read_disclosures(path, head=head)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
        return
    screen = console()
    for line in _summary(found):
        screen.print(line, markup=False, soft_wrap=True)
    screen.print(_table(found))
    for line in _remarks(found):
        screen.print(line, markup=False, soft_wrap=True)
    screen.print(f"Head: {found.head}", markup=False, soft_wrap=True)


def _summary(found: Disclosed) -> list[str]:
    runs = "one run" if found.runs == 1 else f"{found.runs} runs"
    return [
        f"Disclosure log of {_shown(found.party)}: {found.entries:,} lines of {runs}, each as it was written.",
        *(f"Study: {_shown(study)}" for study in found.studies),
    ]


def _table(found: Disclosed) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"What left {escape(_shown(found.party))}", title_justify="left")
    for name in ("to", "what", "over"):
        table.add_column(name, overflow="fold")
    for name in ("frames", "in training", "bytes", "steps"):
        table.add_column(name, justify="right")
    for name in ("first (UTC)", "last (UTC)"):
        table.add_column(name)
    for flow in found.flows:
        table.add_row(*(escape(_shown(cell)) for cell in _row(flow)))
    return table


def _row(flow: Flow) -> tuple[str, ...]:
    way = f" via {flow.via}" if flow.via else ""
    return (
        flow.to + way + (", sealed" if flow.sealed else ""), flow.kind, flow.cut, f"{flow.frames:,}",
        f"{flow.training_frames:,}", f"{flow.frame_bytes:,}", f"{flow.first_step:,} to {flow.last_step:,}",
        flow.first[:19].replace("T", " "), flow.last[:19].replace("T", " "),
    )  # fmt: skip


def _shown(text: str) -> str:
    """Return ``text`` without what could play tricks on a terminal: the log may be somebody else's."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def _remarks(found: Disclosed) -> list[str]:
    """Return what somebody who reads the log should know besides."""
    said = []
    if not found.closed:
        said.append(
            "The log does not end with an entry that closes it: the run goes on, or it was ended hard, or lines were "
            "removed at the end. Compare the head with one that was noted elsewhere (--head)."
        )
    if found.torn_bytes:
        said.append(
            f"A last line of {found.torn_bytes} bytes was not written to its end; its frame did not leave."
        )
    if found.crashes:
        said.append(f"Runs that were ended hard and gone on with later: {found.crashes}.")
    if found.clock_jumps:
        said.append(f"The clock was set back while the log was written: {found.clock_jumps} times.")
    if found.head_line is not None and found.head_line < found.entries:
        said.append(f"The head given is that of line {found.head_line:,}; lines were added after it.")
    elif found.head_line is not None:
        said.append("The head is the one given: no line is missing at the end.")
    return said
