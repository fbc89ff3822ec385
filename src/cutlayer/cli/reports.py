"""``cutlayer report`` and ``cutlayer demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .screen import console

__all__ = ["demo", "report"]


def report(
    run: Annotated[Path, typer.Argument(help="The run's folder, with log.jsonl in it.", metavar="RUN")],
) -> None:
    """Write report.html and the plots of a run, from its log; a run that was cut off has one too.

    \b
    cutlayer report runs/digits-20250101-120000
    """  # noqa: D301
    from ..errors import LogError

    if not (run / "log.jsonl").is_file():
        raise LogError(f"there is no log.jsonl in {run}", todo="name the folder that simulate --out wrote")
    from ..report.html import write_report

    console().print(f"Report: {write_report(run)}", markup=False, soft_wrap=True)


def demo(
    out: Annotated[Path, typer.Option(help="Where the demo writes its reports.", metavar="DIR")] = Path(
        "demo"
    ),
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="One fifth of the people held out instead of each in turn: half a minute."
        ),
    ] = False,
) -> None:
    """Show what split learning does, on real data that come with the package.

    \b
    cutlayer demo --out demo
    cutlayer demo --quick
    """  # noqa: D301
    from ..demo import run_demo

    screen = console()
    screen.print(f"Report: {run_demo(out, quick=quick, console=screen)}", markup=False, soft_wrap=True)
