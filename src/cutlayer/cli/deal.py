"""``cutlayer deal``: a folder for each party, with all that it needs to join."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .commands import STUDY

__all__ = ["deal"]


def deal(
    study: Annotated[Path, STUDY],
    out: Annotated[
        Path, typer.Option(help="A new folder; each party's is made in it.", metavar="DIR")
    ] = Path("parties"),
) -> None:
    """Deal pooled data to the parties, as files: a rehearsal of what each would bring along.

    DIR/PARTY holds the study file, with the tables \\[parties] and \\[fields] filled in, the model code and the
    party's own records. Nothing else is needed to join.

    \b
    cutlayer deal study.toml --out parties
    cutlayer join parties/client-0/study.toml --as client-0 --data parties/client-0
    """  # noqa: D301
    from ..study_file import load_study

    for party, folder in load_study(study).deal(out).items():
        files = ", ".join(sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")))
        typer.echo(f"{party}: {folder} ({files})")
