"""A line: one connection between two processes, as the link above it sees every carrier's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cutlayer.errors import TransportError
from cutlayer.keys.credentials import Credentials
from cutlayer.transports.network.envelopes import Envelope
from cutlayer.transports.network.settings import NetworkSettings

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Carrier", "Line", "LineBroken", "Listener", "Listening", "Parcel", "Room", "next_of"]

Parcel = Callable[[], "tuple[bytes, Buffer]"]
"""What makes an envelope, in two parts, when it is its turn to leave."""
Room = Callable[[Envelope, int], memoryview]
"""Where the payload of an envelope goes that has so many bytes; raises if it may not come."""


class LineBroken(TransportError):
    """A connection could not be made, or ended without a word."""


class Line(Protocol):
    """One connection, whose other end has shown a certificate of the study.

    One thread at a time takes what comes; any may put what shall leave.
    """

    peer: str
    """The other side's address."""
    certificate: bytes
    """The certificate that the other side has shown, PEM; empty if there is none."""
    heard: float
    """When something came last, in seconds of `time.monotonic`."""
    over: bool
    """Whether nothing more will come."""
    blocks: bool
    """Whether `take` itself waits until an envelope is there."""

    def put(self, parcel: Parcel | None) -> None:
        """Let an envelope leave at the next `flush`, after those before it; None says that it was the last."""
        ...

    def flush(self) -> None:
        """Let what was put leave, as far as that goes without waiting; the line sees to the rest."""
        ...

    def keep_alive(self, beat: Parcel, every_s: float) -> None:
        """Send ``beat`` whenever nothing else has left for ``every_s`` seconds."""
        ...

    @property
    def stuck(self) -> bool:
        """Whether what was sent has to be sent again and again: the way is dark, or was until a moment ago."""
        ...

    def take(self, room: Room) -> Envelope | None:
        """Return the next envelope, its payload where ``room`` said; None if none has come whole.

        Args:
            room: Asked for memory as soon as an envelope's header is there.

        Raises:
            Violation: If what came is no envelope.
            LineBroken: If the connection ended without a word.
        """
        ...

    def wait(self, until: float) -> None:
        """Wait until something may have come, somebody rings, or ``until`` (of `time.monotonic`) has passed."""
        ...

    def ring(self) -> None:
        """Let whoever waits look again."""
        ...

    def cancel(self) -> None:
        """End the connection at once, from any thread; no memory is written to after that."""
        ...

    def finish(self) -> None:
        """Let what was put leave, give the other side a moment to take it, then end the connection."""
        ...


class Listener(Protocol):
    """Where a host listens."""

    port: int

    def stop(self) -> None:
        """Listen no more and end every line."""
        ...


@dataclass(frozen=True, kw_only=True)
class Listening:
    """What a host listens with.

    Attributes:
        credentials: The host's.
        address: ``name:port``; port 0 takes any that is free.
        settings: Limits and times.
        most: How many lines may be open.
        serve: Called with each line, in a thread of its own; returns when the line is over.
        on_incident: Told the address of whoever showed a certificate that does not hold, and why. gRPC does not
            tell of those that it refused.
    """

    credentials: Credentials
    address: str
    settings: NetworkSettings
    most: int
    serve: Callable[[Line], None]
    on_incident: Callable[[str, str], None]

    def refused(self, error: Exception) -> TransportError:
        """Return the error of an address that cannot be listened at."""
        why = getattr(error, "strerror", None) or str(error)
        return TransportError(
            f"cannot listen at {self.address}: {why}",
            party=self.credentials.party,
            todo="choose a port that is free and an address of this machine",
        )


class Carrier(NamedTuple):
    """How connections are made: `cutlayer.transports.network.carriers`.

    Attributes:
        listen: Begins to listen; raises `TransportError` if the address cannot be listened at.
        dial: Returns a line from the party with these credentials to an address (``name:port``), where only the
            party of that name is accepted as host; raises `LineBroken` if there is none, in words.
    """

    listen: Callable[[Listening], Listener]
    dial: Callable[[Credentials, str, str, NetworkSettings], Line]


def next_of(line: Line, room: Room) -> Envelope | None:
    """Wait for the next envelope of ``line``; None once there are no more."""
    while True:
        envelope = line.take(room)
        if envelope is not None or line.over:
            return envelope
        line.wait(math.inf)
