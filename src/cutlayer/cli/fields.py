"""``cutlayer fields``: what a party tells the study lead about its data, and nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import StudyError, nearest
from .commands import STUDY

if TYPE_CHECKING:
    from ..study_file import StudyFile

__all__ = ["fields"]


def fields(
    study: Annotated[Path, STUDY],
    data: Annotated[Path, typer.Option(help="The folder of your own data.", metavar="DIR")],
    party: Annotated[
        str, typer.Option("--as", help="Your party's name in \\[parties], or its role.", metavar="PARTY")
    ],
) -> None:
    """Print names, types and shapes of your own data and how many rows there are, to send to the study lead.

    The lines go into the study file. Nothing is sent anywhere by this command.

    \b
    cutlayer fields study.toml --data ./records --as hospital-a
    """  # noqa: D301
    from ..data import SPLITS
    from ..study_file import load_study
    from ..study_file.own_data import own_records
    from ..study_file.rehearsal import field_lines

    file = load_study(study)
    own = own_records(file, party, _role(file, party), data)
    rows = ", ".join(f"{split} {len(own.splits[split])}" for split in SPLITS if split in own.splits)
    typer.echo(f"{field_lines(own)}\n# rows of {party}: {rows}")


def _role(file: StudyFile, party: str) -> str:
    """Return the role of a party that has data."""
    roles, parties = file.tables.roles, file.tables.parties
    role = parties.get(party, party)
    if not parties and role not in roles.all and len(roles.inputs) == 1:
        return roles.inputs[0]  # who else should have data of their own
    if role not in roles.all:
        raise StudyError(
            f"{file.path.name} has no party {party!r}", todo=nearest(party, [*parties, *roles.all])
        )
    if role not in roles.data:
        raise StudyError(f"the role {role!r} holds no data", party=party, expected=", ".join(roles.data))
    return role
