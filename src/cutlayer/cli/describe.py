"""``cutlayer describe``: everything about a study that is known before training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import CutlayerError, StudyError, nearest
from .commands import STUDY

if TYPE_CHECKING:
    from ..data import Holdings
    from ..study import Study

__all__ = ["describe"]


def describe(
    study: Annotated[Path, STUDY],
    party: Annotated[
        str | None, typer.Option(help="Only what this party does and discloses.", metavar="NAME")
    ] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="The graph as a Mermaid diagram.")] = False,
    svg: Annotated[
        Path | None, typer.Option(help="Draw the graph into this file.", metavar="FILE.SVG")
    ] = None,
    program: Annotated[bool, typer.Option("--program", help="Who does what, in which order.")] = False,
    steps: Annotated[int, typer.Option(min=0, help="Steps of the program; 0: the first epoch.")] = 1,
    disclosure: Annotated[
        bool, typer.Option("--disclosure", help="What leaves each party, and what never does.")
    ] = False,
) -> None:
    """Tell who does what, who holds what and what would leave whom, before anything is trained.

    Without options: the graph, the holdings, the first training step and the disclosure statements.

    \b
    cutlayer describe study.toml
    cutlayer describe study.toml --party client-0 --disclosure
    cutlayer describe study.toml --program --steps 0 > program.txt
    cutlayer describe study.toml --svg graph.svg
    """  # noqa: D301
    from ..study_file import load_study

    built, holdings = load_study(study).build()
    names = _parties(built, party)
    if svg is not None:
        _write(svg, built.graph.svg())
        typer.echo(f"Drawn: {svg}")
    if mermaid:
        typer.echo(built.graph.mermaid())
    if program:
        typer.echo(_program(built, holdings, party, steps), nl=False)
    if disclosure:
        typer.echo(_disclosures(built, names))
    if not (svg or mermaid or program or disclosure):
        typer.echo(_everything(built, holdings, party, names, steps))


def _everything(study: Study, holdings: Holdings, party: str | None, names: list[str], steps: int) -> str:
    title = (
        "The whole first epoch"
        if not steps
        else "The first step"
        if steps == 1
        else f"The first {steps} steps"
    )
    blocks = [
        study.describe().rstrip(),
        f"Who holds what\n\n{holdings.table()}",
        f"{title}\n\n{_program(study, holdings, party, steps).rstrip()}",
        _disclosures(study, names).rstrip(),
    ]
    return "\n\n".join(blocks)


def _parties(study: Study, party: str | None) -> list[str]:
    """Return ``party``, or the first party of each role: the others of a role disclose the same."""
    known = [p.name for p in study.graph.parties]
    if party is None:
        return [role.parties[0] for role in study.graph.roles.values()]
    if party not in known:
        raise StudyError(f"there is no party {party!r}", todo=nearest(party, known))
    return [party]


def _program(study: Study, holdings: Holdings, party: str | None, steps: int) -> str:
    from ..schedules import Program

    whole = study.program(holdings)
    shown = Program(action for action in whole if not steps or action.step < steps)
    return str(shown if party is None else shown.of(party))


def _disclosures(study: Study, names: list[str]) -> str:
    return "\n\n".join(study.disclosure(name).rstrip() for name in names)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CutlayerError(f"cannot write {path}: {error.strerror}", todo="choose another file") from error
