"""Hand-overs that a relay carries and cannot read: a frame sealed for one party, within a frame.

The sender encodes what it hands over, seals those bytes for the next client and encloses them in a
message of kind ``SEALED`` that names the addressee. Whoever relays it passes the outer frame on as
it came. How bytes are sealed is a seam: `Seal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from cutlayer.errors import FrameError
from cutlayer.wire.messages import Kind, Message

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["PlainSeal", "Seal", "disclose", "enclose"]

_SEALED = "sealed"


class Seal(Protocol):
    """One party's keys: closes bytes for one other party, opens what was closed for this one."""

    @property
    def party(self) -> str:
        """Name of the party whose keys these are."""
        ...

    def seal(self, frame: Buffer, to: str) -> Buffer:
        """Return bytes that only the party ``to`` can open.

        Raises:
            FrameError: If that party's key is not known.
        """
        ...

    def open(self, sealed: Buffer, sender: str) -> Buffer:
        """Return the frame that ``sender`` sealed for this party.

        Raises:
            FrameError: If it was sealed by or for somebody else, or was changed since.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class PlainSeal:
    """A seal that hides nothing: for simulations, where all parties are one process.

    Attributes:
        party: Name of the party it belongs to.
    """

    party: str

    def seal(self, frame: Buffer, to: str) -> Buffer:
        """Return ``frame`` as it is."""
        return frame

    def open(self, sealed: Buffer, sender: str) -> Buffer:
        """Return ``sealed`` as it is."""
        return sealed


def enclose(frame: Buffer, seal: Seal, *, to: str, step: int) -> Message:
    """Return the message that carries ``frame`` to the party ``to``, sealed.

    Args:
        frame: The encoded hand-over.
        seal: The sender's keys.
        to: The party that shall open it.
        step: The step of the program it belongs to.
    """
    sealed = memoryview(seal.seal(frame, to)).cast("B")
    # A tensor over memory that must not be written would be a warning; such bytes are copied once.
    tensor = torch.frombuffer(bytearray(sealed) if sealed.readonly else sealed, dtype=torch.uint8)
    return Message(Kind.SEALED, to, step, ((_SEALED, tensor),))


def disclose(message: Message, seal: Seal, *, sender: str) -> Buffer:
    """Return the frame that ``sender`` enclosed in ``message`` for this party, ready to be decoded.

    Args:
        message: What was received.
        seal: This party's keys.
        sender: The party that sealed it, as the program says; not who relayed it.

    Raises:
        FrameError: If the message is not sealed, is for somebody else or cannot be opened.
    """
    if message.kind is not Kind.SEALED:
        raise FrameError(
            "the message is not sealed", party=seal.party, step=message.step, got=message.kind.name
        )
    if message.name != seal.party:
        raise FrameError(
            "the sealed message is for somebody else",
            party=seal.party,
            step=message.step,
            got=repr(message.name),
        )
    match message.tensors:
        case ((name, torch.Tensor() as tensor),) if name == _SEALED and tensor.dtype is torch.uint8:
            return seal.open(tensor.numpy().data, sender)
    raise FrameError(
        "the sealed message does not hold exactly one tensor of bytes", party=seal.party, step=message.step
    )
