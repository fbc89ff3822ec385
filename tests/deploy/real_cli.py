"""What the tests of deploy/ share: the real command line, and parties as processes on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import typer

from cutlayer.cli import app

DEPLOY = Path(__file__).parents[2] / "deploy"
UsageError = typer.BadParameter.__base__
"""Of click, or of what typer brings along in its place."""
CUTLAYER = [sys.executable, "-m", "cutlayer.cli"]


def understood(words: Sequence[str]) -> dict[str, object]:
    """Return what ``cutlayer WORDS…`` would be called with.

    Raises:
        UsageError: There is no such command or option, a value has the wrong type, or something is missing.
    """
    command, name, rest = typer.main.get_command(app), "cutlayer", list(words)
    context = None
    while True:
        context = command.make_context(name, rest, parent=context)
        rest = [*context._protected_args, *context.args]
        if not hasattr(command, "resolve_command"):
            if rest:
                raise UsageError(f"too many words: {rest}")
            return context.params
        name, command, rest = command.resolve_command(context, rest)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run_all(
    commands: Mapping[str, Sequence[str]], logs: Path, environment: Mapping[str, str], timeout_s: float
) -> dict[str, str]:
    """Run one process for each party until all have ended, all of them well; return what each printed."""
    running = {}
    for party, command in commands.items():
        with (logs / f"{party}.txt").open("w") as printed:
            running[party] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env=_here(environment),
            )
    try:
        until = time.monotonic() + timeout_s
        while _all_is_well(running.values()) and time.monotonic() < until:
            time.sleep(0.1)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    said = {party: (logs / f"{party}.txt").read_text() for party in commands}
    codes = {party: process.returncode for party, process in running.items()}
    assert codes == dict.fromkeys(commands, 0), said
    return said


def _all_is_well(processes: Iterable[subprocess.Popen[bytes]]) -> bool:
    """Return whether some are still running and none has failed."""
    codes = [process.poll() for process in processes]
    return None in codes and not any(codes)


def _here(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that has only what a service would have, and what finding the package needs."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"} | dict(environment)
