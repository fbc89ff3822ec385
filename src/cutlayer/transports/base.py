"""What a transport is: it carries opaque frames between named parties, in order, and knows no tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..errors import TransportError
from ..memory import ALIGNMENT, aligned_buffer

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["ALIGNMENT", "DEFAULT_TIMEOUT_S", "Transport", "aligned_buffer", "bytes_of"]

DEFAULT_TIMEOUT_S = 60.0
"""How long a party waits for another one, in seconds, unless it is told otherwise."""


class Transport(Protocol):
    """One party's end. `cutlayer.transports.conformance` is the trial that every transport passes.

    Frames from one party to another arrive complete, once and in the order in which they were sent;
    nothing is promised about the order of frames from different parties. An end may be used by
    several threads, one for each party it sends to and one for each it receives from.
    """

    @property
    def party(self) -> str:
        """Name of the party whose end this is."""
        ...

    def send(self, party: str, frame: Buffer) -> None:
        """Send ``frame``, at least one byte, to ``party``; return without waiting until it was received.

        The frame belongs to the transport from then on and must not be written to any more.

        Args:
            party: Whom it is for.
            frame: The bytes, contiguous.

        Raises:
            TransportError: If there is no such party, it has closed its end, or this end is closed.
        """
        ...

    def receive(self, party: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> memoryview:
        """Return the next frame from ``party``, waiting for it if need be.

        The frame belongs to the receiver: nobody else writes to it, and it stays as it is when later
        ones arrive. It is writable and starts at a multiple of 64, or is the memory that was sent.

        Args:
            party: Who sent it.
            timeout_s: How long to wait, in seconds: 0 only looks, infinity waits for ever.

        Raises:
            PeerTimeout: If nothing came in time. Nothing is lost by that; ask again.
            TransportError: If there is no such party, this end is closed, or the party has closed its
                end and everything that it sent has been received.
        """
        ...

    def close(self) -> None:
        """End this party's part: wake whoever waits at it or for it. Closing twice does nothing."""
        ...


def bytes_of(frame: Buffer, party: str) -> memoryview:
    """Return the bytes of a frame that ``party`` sends, without copying them.

    Raises:
        TransportError: It is none, or its bytes are not in a row.
    """
    try:
        view = memoryview(frame)
        return view if view.format == "B" and view.ndim == 1 and view.contiguous else view.cast("B")
    except (TypeError, ValueError) as error:
        raise TransportError(
            "a frame is contiguous bytes",
            party=party,
            got=type(frame).__name__,
            expected="bytes, bytearray or memoryview",
        ) from error
