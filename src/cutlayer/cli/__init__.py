"""The command ``cutlayer``: demo, simulate, describe, cuts, check, report.

Nothing here imports PyTorch until a command needs it, so ``cutlayer --help`` answers at once.
"""

from __future__ import annotations

import io
import sys

from .check import check
from .commands import app
from .cuts import cuts
from .deal import deal
from .describe import describe
from .fields import fields
from .keys import keys
from .reports import demo, report
from .simulate import simulate
from .verify_log import verify_log

__all__ = ["app", "main"]

app.command()(demo)
for _command in (simulate, describe, cuts, check, report):
    app.command(no_args_is_help=True)(_command)
app.command(no_args_is_help=True)(verify_log)
app.add_typer(keys)
for _command in (fields, deal):
    app.command(no_args_is_help=True)(_command)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a pipe may be of an encoding that lacks some characters
    app(prog_name="cutlayer")
