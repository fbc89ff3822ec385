"""What the commands print: to a terminal in colour, to a pipe as plain text."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["complain", "console"]

_PIPE_WIDTH = 160


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output (or error) as it is now; a pipe gets wide lines."""
    from rich.console import Console

    screen = Console(stderr=stderr, highlight=False)
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        return Console(stderr=stderr, highlight=False, width=_PIPE_WIDTH)
    return screen


def complain(message: str) -> None:
    """Print an error's message in red on standard error."""
    from rich.text import Text

    console(stderr=True).print(Text(f"Error: {message}", style="red"), soft_wrap=True)
