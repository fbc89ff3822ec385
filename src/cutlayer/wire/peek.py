"""What a frame says about itself, without a look at its tensors: for those who pass frames on or note them down."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch

from cutlayer.wire.frame_layout import CHECKSUM_BYTES, PRELUDE_BYTES, Limits, parse
from cutlayer.wire.frames import (
    _KINDS,
    _LIMITS,
    _PRELUDE,
    _REMEMBERED_META_BYTES,
    _TRAINING,
    MAGIC,
    VERSION,
    _bytes,
    _check_payload,
    _read_prelude,
)
from cutlayer.wire.messages import Kind

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Contents", "Described", "peek"]

Described = tuple[str, torch.dtype | None, tuple[int, ...]]
"""Name, type and shape of a tensor; the type None says that the tensor is not there."""


class Contents(NamedTuple):
    """What a frame says about itself.

    Attributes:
        kind: What the message is about.
        name: The cut it crosses; for a sealed message, its addressee.
        step: The step of the program it belongs to.
        sequence: Number of the message on its way from sender to receiver.
        training: False for messages of an evaluation.
        tensors: Name, type and shape of each tensor.
        frame_bytes: Size of the whole frame.
        checksum: The frame's own checksum: its last 8 bytes as they stand there, in hex.
    """

    kind: Kind
    name: str
    step: int
    sequence: int
    training: bool
    tensors: tuple[Described, ...]
    frame_bytes: int
    checksum: str


def peek(frame: Buffer, *, limits: Limits = _LIMITS) -> Contents:
    """Return what ``frame`` says about itself.

    Neither its tensors nor whether the checksum fits are looked at: that is for `decode`.

    Args:
        frame: The bytes, contiguous.
        limits: The largest frame to accept.

    Raises:
        FrameError: If these bytes are not a frame, or one beyond ``limits``.
    """
    view = _bytes(frame)
    size = len(view)
    if size < PRELUDE_BYTES + CHECKSUM_BYTES:
        _read_prelude(view, limits)  # raises
    magic, version, kind, flags, frame_bytes, step, sequence, meta_bytes = _PRELUDE.unpack_from(view)
    meta_end = PRELUDE_BYTES + meta_bytes
    if (
        magic != MAGIC
        or version != VERSION
        or frame_bytes != size
        or frame_bytes > limits.max_frame_bytes
        or kind not in _KINDS
        or flags & ~_TRAINING
        or meta_end > size - CHECKSUM_BYTES
        or meta_bytes > limits.max_meta_bytes
    ):
        _read_prelude(view, limits)  # raises, and says what is wrong
    meta = view[PRELUDE_BYTES:meta_end].tobytes()
    describe = _remembered if meta_bytes <= _REMEMBERED_META_BYTES else _describe
    name, tensors, implied_bytes = describe(meta, limits)
    if implied_bytes != size:
        _check_payload(view, parse(meta, limits), step)  # raises
    checksum = view[size - CHECKSUM_BYTES :].hex()
    return Contents(_KINDS[kind], name, step, sequence, flags == _TRAINING, tensors, size, checksum)


def _describe(meta: bytes, limits: Limits) -> tuple[str, tuple[Described, ...], int]:
    """Return the message's name, its tensors, and the size of a frame with this meta."""
    layout = parse(meta, limits)
    tensors = tuple((place.name, place.dtype, place.shape) for place in layout.places)
    return layout.name, tensors, layout.frame_bytes


_remembered = lru_cache(maxsize=256)(_describe)
