"""What the host's clock does with what goes wrong in it."""

from __future__ import annotations

import threading

import pytest

from cutlayer.errors import CutlayerError, LogError, TransportError
from cutlayer.sessions.hosting import _tick


class Clocked:
    """A conductor that cannot tick, and a participant that takes note of how it ends."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.failed: list[CutlayerError] = []

    def tick(self) -> None:
        raise self.error

    def fail(self, error: CutlayerError) -> None:
        self.failed.append(error)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (LogError("the disk is full"), LogError, "the disk is full"),
        (BrokenPipeError(32, "Broken pipe"), TransportError, "no longer looks after its parties: .*Broken pipe.*start"),
        (RuntimeError(), TransportError, "no longer looks after its parties: RuntimeError"),
    ],
)  # fmt: skip
def test_a_clock_that_stops_ends_the_host_with_an_error(error: Exception, kind: type, words: str) -> None:
    host = Clocked(error)
    _tick(host, host, threading.Event())  # type: ignore[arg-type]
    (told,) = host.failed
    assert isinstance(told, kind)
    with pytest.raises(kind, match=words):
        raise told
