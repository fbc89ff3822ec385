"""A party's end: every frame is noted before it leaves, and sealed if it goes by way of the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..metering.disclosure_log import DisclosureLog
from ..transports import Transport
from ..transports.base import DEFAULT_TIMEOUT_S
from ..wire import Seal

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["GuardedTransport"]


class GuardedTransport:
    """A `cutlayer.transports.Transport` around another.

    Args:
        inner: What carries the frames.
        host: The party that relays; frames to it and from it are protected by TLS and need no seal.
        seal: This party's seals.
        log: Where each frame is noted before it leaves.

    Attributes:
        heard: The party that the last frame came from.
    """

    def __init__(self, inner: Transport, host: str, seal: Seal, log: DisclosureLog) -> None:
        self.party = inner.party
        self.heard = ""
        self._inner, self._host, self._seal, self._log = inner, host, seal, log

    def send(self, party: str, frame: Buffer) -> None:
        """Note ``frame``, then send it; sealed if it is relayed.

        Raises:
            LogError: It cannot be noted, so it does not leave.
        """
        if self._host in (party, self.party):
            self._log.note(frame, party)
            self._inner.send(party, frame)
        else:
            self._log.note(frame, party, via=self._host, sealed=True)
            self._inner.send(party, self._seal.seal(frame, party))

    def receive(self, party: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> memoryview:
        """Return the next frame from ``party``, opened if it was relayed."""
        frame = self._inner.receive(party, timeout_s)
        self.heard = party
        if self._host in (party, self.party):
            return frame
        return memoryview(self._seal.open(frame, party))

    def close(self) -> None:
        """End this party's part."""
        self._inner.close()
