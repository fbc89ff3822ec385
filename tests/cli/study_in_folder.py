"""A study file on digits in the folder where commands are run, and how they are run."""

from __future__ import annotations

from typer.testing import CliRunner

from cutlayer.cli import app

_TEXT = """
[study]
name = "digits"
{study}
[graph]
{graph}
[data]
source = "digits"
{data}
[data.rows]
parties = {parties}
[optimizer]
{optimizer}
"""
_HELD_OUT = "[data.hold_out]\ntest = 0.3"
_VANILLA = """topology = "vanilla"
model = { function = "mlp", arguments = { sizes = [64, 24, 10] } }
cut = "activation1\""""


def study_text(
    *, study: str, parties: int, optimizer: str, graph: str = _VANILLA, data: str = _HELD_OUT
) -> str:
    """Return a study file; each argument but the number of clients is the lines of its table."""
    return _TEXT.format(study=study, graph=graph, data=data, parties=parties, optimizer=optimizer)


def run(*words: str) -> tuple[int, str]:
    """Run ``cutlayer`` with ``words``; return its exit code and what it printed."""
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
    return result.exit_code, result.output
