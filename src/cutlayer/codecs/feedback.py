"""Error feedback: what a codec left out of one gradient is added to the next.

The rows of two batches are different people, so what was left out of one row is nothing to another. What goes on is
the sum over a batch's rows: it is what moves the bias of the layer before the cut, and much of what moves its weights.
Each row of the next batch gets an equal share of it. Over any number of steps, the sums over rows of what arrived
then differ from those of what was meant by no more than what is left at the end, however coarse the codec is.

What is left is a buffer of the segment that made the gradient. So it goes wherever that segment's state goes:
into snapshots, into hand-overs, into averages; it counts as a part of the network, and means nothing to it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Codec, Like, Moment, Written

__all__ = ["buffer_name", "make_room", "write_with_feedback"]


def buffer_name(producer: str, tensor: int) -> str:
    """Return the name of the buffer for tensor number ``tensor`` of the segment ``producer``."""
    return f"left_out_{producer}_{tensor}"


def make_room(module: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    """Give ``module`` a buffer [*shape] of zeros for what is left out; it is no part of its ``state_dict``."""
    device = next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    module.register_buffer(name, torch.zeros(shape, device=device), persistent=False)


def write_with_feedback(codec: Codec, gradient: Tensor, left: Tensor, moment: Moment) -> Written:
    """Write ``gradient`` [B, ...] with a share for each row of what is ``left`` [...]; note there what is left now."""
    meant = gradient + (left / len(gradient)).to(gradient.dtype)
    written = codec.write(meant, moment)
    read = codec.read(written.parts, Like.of(meant), moment).parts[0]
    left.copy_((meant - read).sum(0))
    return written
