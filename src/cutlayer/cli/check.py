"""``cutlayer check``: is a program right for a study, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ProgramError
from .commands import STUDY

__all__ = ["check"]


def check(
    program: Annotated[Path, typer.Argument(help="One action a line.", metavar="PROGRAM.TXT")],
    study: Annotated[Path, STUDY],
) -> None:
    """Check the order of work in a text file against a study: no deadlock, no training on test rows.

    \b
    cutlayer describe study.toml --program --steps 0 > program.txt
    cutlayer check program.txt study.toml
    """  # noqa: D301
    try:
        text = program.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProgramError(f"cannot read {program}: {error}") from error
    from ..schedules import Program
    from ..study_file import load_study

    try:
        actions = Program.parse(text)
    except ProgramError as error:
        raise ProgramError(f"{program}: {error.what}", expected=error.expected, todo=error.todo) from error
    built, holdings = load_study(study).build()
    ticks = built.check(actions, holdings)
    count = f"{len(actions):,} actions of {len(actions.parties)} parties"
    typer.echo(f"{program.name}: {count} are in order; they take {ticks:,} ticks.")
