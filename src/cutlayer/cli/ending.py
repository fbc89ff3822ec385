"""Commands that are asked to end: in order, with words, and with the status that a shell expects."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

__all__ = ["asked_to_end", "exit_status"]


@contextlib.contextmanager
def asked_to_end() -> Iterator[None]:
    """End in order when a supervisor asks for it, as with Ctrl-C."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt("asked to end")

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread: somebody calls this in a program of their own
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_status(ended: KeyboardInterrupt) -> int:
    """Return a command's exit status: 130 after Ctrl-C, 143 if a supervisor asked for it."""
    return 143 if ended.args else 130
