"""The command ``cutlayer``: studies, keys, checks.

Nothing here imports PyTorch until a command needs it, so ``cutlayer --help`` answers at once.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

from .audit import audit
from .check import check
from .commands import app, flowing
from .compare import compare
from .cuts import cuts
from .deal import deal
from .describe import describe
from .fields import fields
from .join import join
from .keys import keys
from .local import local
from .plan import plan
from .reports import demo, report
from .serve import serve
from .simulate import simulate
from .verify_log import verify_log

__all__ = ["app", "main"]

_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "A study in one process": (simulate, describe, cuts, plan, report, audit, compare),
    "A study between organisations": (local, serve, join, fields, deal),
    "Checks": (check, verify_log),
}

app.command(rich_help_panel="A study in one process")(demo)
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        _help = flowing(_command.__doc__ or "")
        app.command(no_args_is_help=True, rich_help_panel=_panel, help=_help)(_command)
app.add_typer(keys, rich_help_panel="A study between organisations")


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a pipe may be of an encoding that lacks some characters
    app(prog_name="cutlayer")
