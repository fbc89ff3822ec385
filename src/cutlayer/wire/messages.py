"""What one party says to another: a few named tensors, with the cut and the step they belong to."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from torch import Tensor

from cutlayer.wire.frame_layout import Layout

__all__ = ["Kind", "Message"]


class Kind(IntEnum):
    """What a message is about; the number is what stands in the frame and never changes its meaning."""

    ACTIVATION = 1
    """Outputs of a segment, forwards over a cut."""
    GRADIENT = 2
    """Gradients of the loss by those outputs, backwards over a cut."""
    LABEL = 3
    """Labels, where the graph lets them leave their owner."""
    HANDOVER = 4
    """A segment's state: weights, buffers and the optimizer's slots, for the next client."""
    STATISTICS = 5
    """Numbers about a run: a loss, counts of right answers."""
    VERDICT = 6
    """A decision that all parties must share, such as: go on, stop, go back to a snapshot."""
    SEALED = 7
    """A frame within a frame that only its addressee can open."""


class Message(NamedTuple):
    """One message. A plain tuple, because thousands are made every second.

    Attributes:
        kind: What the message is about.
        name: The cut it crosses, e.g. ``"head->server"``; for a sealed message, its addressee.
        step: The step of the program it belongs to, counted from 0.
        tensors: Pairs of name and tensor, in an order that is kept. ``None`` stands for a tensor that
            is not there: an input that got no gradient.
        training: False for messages of an evaluation.
        sequence: Number of the message on its way from sender to receiver, for those who count.
        layout: What its frame said of its tensors, the same object for frames that are alike; None for a message
            that did not come in a frame.
    """

    kind: Kind
    name: str
    step: int
    tensors: tuple[tuple[str, Tensor | None], ...]
    training: bool = True
    sequence: int = 0
    layout: Layout | None = None
