"""Ctrl-C for the processes that tests start."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def ctrl_c() -> Iterator[None]:
    """Let the processes that tests start know Ctrl-C, though the tests themselves may not.

    A shell has what it runs in the background ignore Ctrl-C, and a process passes that on to those it starts. What it
    handles by itself it does not pass on.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
