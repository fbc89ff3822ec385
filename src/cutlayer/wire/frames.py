"""Messages as bytes and back: small, checked, aligned, nothing executable.

A frame is a fixed prelude, the meta (see `cutlayer.wire.frame_layout`), the tensors' own bytes in
little-endian order, each from a multiple of 64 on, and a checksum over all of it. A message has
exactly one frame. Whatever is not such a frame is refused before anything is allocated.
"""

from __future__ import annotations

import struct
import sys
from ctypes import memmove
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from xxhash import xxh3_64_intdigest

from cutlayer.errors import FrameError
from cutlayer.memory import room_at
from cutlayer.wire.frame_layout import (
    ALIGNMENT,
    CHECKSUM_BYTES,
    DTYPES,
    PRELUDE_BYTES,
    Layout,
    Limits,
    Place,
    Spec,
    arrange,
    parse,
)
from cutlayer.wire.messages import Kind, Message

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["MAGIC", "VERSION", "decode", "encode"]

MAGIC = b"CutL"
"""The first four bytes of every frame."""
VERSION = 1
"""The version of the layout; it changes only when older readers would misread a frame."""

_LIMITS = Limits()
_PRELUDE = struct.Struct("<4sBBHQQQI")  # magic, version, kind, flags, frame bytes, step, sequence, meta bytes
_CHECKSUM = struct.Struct("<Q")
_TRAINING = 1  # flag
_NUMPY = {
    dtype: np.dtype(str(dtype).removeprefix("torch.")) for dtype in DTYPES if dtype is not torch.bfloat16
}
_NUMPY[torch.bfloat16] = np.dtype("int16")  # NumPy has no bfloat16; it only carries the two bytes
_AS_IT_IS = {dtype: same for dtype, same in _NUMPY.items() if dtype not in (torch.bool, torch.bfloat16)}
_KINDS = {kind.value: kind for kind in Kind}
_REMEMBERED_META_BYTES = 4096  # longer ones are read anew each time, so that no sender can fill the memory

if sys.byteorder != "little":  # pragma: no cover
    raise FrameError("cutlayer needs a little-endian machine", got=sys.byteorder)

_COUNTERS = struct.Struct(
    "<QQ"
)  # step and sequence, the two fields of the prelude that change from frame to frame
_COUNTERS_AT = 16
_parsed = lru_cache(maxsize=256)(parse)


@lru_cache(maxsize=256)
def _headed(
    kind: int, training: bool, name: str, specs: tuple[Spec, ...], limits: Limits
) -> tuple[bytes, Layout]:
    """Return prelude and meta of a frame, as of step 0, and the whole layout."""
    if kind not in _KINDS:
        raise FrameError("unknown kind of message", cut=name, got=repr(kind), expected=_kinds())
    layout = arrange(name, specs, limits)
    flags = _TRAINING if training else 0
    prelude = _PRELUDE.pack(MAGIC, VERSION, kind, flags, layout.frame_bytes, 0, 0, len(layout.meta))
    return prelude.ljust(PRELUDE_BYTES, b"\0") + layout.meta, layout


def encode(message: Message, *, limits: Limits = _LIMITS) -> memoryview:
    """Return the frame that says ``message``: a writable view of memory that nobody else holds.

    Tensors may be anywhere and of any strides; they arrive contiguous and without their history.

    Args:
        message: What to say.
        limits: The largest frame to make.

    Raises:
        FrameError: If the message holds something that cannot cross, or is beyond ``limits``.
    """
    kind, name, step, tensors, training, sequence, _ = message
    specs = [
        (label, tensor.dtype, tensor.shape) if isinstance(tensor, Tensor) else _absent(name, label, tensor)
        for label, tensor in tensors
    ]
    head, layout = _headed(int(kind), bool(training), name, tuple(specs), limits)
    frame, address = room_at(layout.frame_bytes)
    frame[: len(head)] = head
    try:
        _COUNTERS.pack_into(frame, _COUNTERS_AT, step, sequence)
    except struct.error as error:
        raise FrameError(
            "step and sequence are counted from 0", cut=name, got=f"step {step!r}, sequence {sequence!r}"
        ) from error
    for place, (_, tensor) in zip(layout.places, tensors, strict=True):
        if tensor is not None and place.elements:
            if (
                tensor.is_cpu
                and tensor.layout is torch.strided
                and tensor.is_contiguous()
                and not tensor.is_neg()
            ):
                memmove(address + place.offset, tensor.data_ptr(), tensor.nbytes)
            else:
                _write_tensor(frame, place, tensor, name)
    for start, end in layout.gaps:
        frame[start:end] = bytes(end - start)
    end = layout.frame_bytes - CHECKSUM_BYTES
    _CHECKSUM.pack_into(frame, end, xxh3_64_intdigest(frame[:end]))
    return frame


def decode(frame: Buffer, *, limits: Limits = _LIMITS) -> Message:
    """Return the message that ``frame`` says.

    Its tensors are views of the frame where that lies in writable memory on a 64-byte boundary; the
    frame then belongs to them. Otherwise the frame is copied once. Either way every tensor starts
    on a 64-byte boundary, so that results do not depend on where it was received.

    Args:
        frame: The bytes, contiguous.
        limits: The largest frame to accept.

    Raises:
        FrameError: If these bytes are not a frame, or one beyond ``limits``.
    """
    view = _bytes(frame)
    kind, flags, step, sequence, meta_end = _read_prelude(view, limits)
    meta = view[PRELUDE_BYTES:meta_end].tobytes()
    layout = (_parsed if len(meta) <= _REMEMBERED_META_BYTES else parse)(meta, limits)
    _check_payload(view, layout, step)
    tensors = None if view.readonly else _read_tensors(view, layout, step)
    if tensors is None:  # not writable, or not on a 64-byte boundary
        copy = torch.empty(len(view), dtype=torch.uint8).numpy().data
        copy[:] = view
        tensors = _read_tensors(copy, layout, step) or ()
    return Message(kind, layout.name, step, tensors, flags == _TRAINING, sequence, layout)


def _absent(cut: str, name: str, tensor: object) -> Spec:
    if tensor is None:
        return name, None, ()
    raise FrameError(
        f"{name!r} is not a tensor", cut=cut, got=type(tensor).__name__, expected="a torch.Tensor"
    )


def _write_tensor(frame: memoryview, place: Place, tensor: Tensor, cut: str) -> None:
    try:
        _view(frame, place, tensor.dtype).copy_(tensor.detach())
    except RuntimeError as error:
        raise FrameError(
            f"tensor {place.name!r} cannot be copied into a frame",
            cut=cut,
            got=f"a {tensor.layout} tensor on {tensor.device}",
            expected="a dense tensor with data",
        ) from error


def _bytes(frame: Buffer) -> memoryview:
    """Return a view of our own: it keeps the memory in place even if the caller's view is released."""
    try:
        view = memoryview(frame)
        return view if view.format == "B" and view.ndim == 1 and view.contiguous else view.cast("B")
    except (TypeError, ValueError) as error:
        raise FrameError(
            "a frame is contiguous bytes", got=type(frame).__name__, expected="bytes, bytearray or memoryview"
        ) from error


def _read_prelude(view: memoryview, limits: Limits) -> tuple[Kind, int, int, int, int]:
    """Return kind, flags, step, sequence and the end of the meta of a frame found to be intact."""
    size = len(view)
    if size < PRELUDE_BYTES + CHECKSUM_BYTES:
        raise FrameError(
            "the frame is cut short",
            got=f"{size} bytes",
            expected=f"at least {PRELUDE_BYTES + CHECKSUM_BYTES}",
        )
    magic, version, kind, flags, frame_bytes, step, sequence, meta_bytes = _PRELUDE.unpack_from(view)
    if magic != MAGIC:
        raise FrameError("these bytes are not a cutlayer frame", got=repr(magic), expected=repr(MAGIC))
    if version != VERSION:
        raise FrameError(
            "the frame is of another version",
            got=str(version),
            expected=str(VERSION),
            todo="install the same version of cutlayer at both parties",
        )
    if frame_bytes > limits.max_frame_bytes:
        raise FrameError(
            "the frame is too large", got=f"{frame_bytes}", expected=f"at most {limits.max_frame_bytes}"
        )
    if frame_bytes != size:
        what = "is cut short" if size < frame_bytes else "is longer than it says"
        raise FrameError(f"the frame {what}", got=f"{size} bytes", expected=f"{frame_bytes}")
    if _CHECKSUM.unpack_from(view, size - CHECKSUM_BYTES)[0] != xxh3_64_intdigest(view[:-CHECKSUM_BYTES]):
        raise FrameError("the frame was damaged on its way: its checksum differs", todo="send it again")
    if kind not in _KINDS:
        raise FrameError("unknown kind of message", step=step, got=str(kind), expected=_kinds())
    if flags & ~_TRAINING:
        raise FrameError("unknown flags", step=step, got=f"{flags:#06x}", expected="0 or 1 (training)")
    meta_end = PRELUDE_BYTES + meta_bytes
    if meta_end > size - CHECKSUM_BYTES or meta_bytes > limits.max_meta_bytes:
        most = min(limits.max_meta_bytes, size - PRELUDE_BYTES - CHECKSUM_BYTES)
        raise FrameError(
            "the frame's meta is too long", step=step, got=f"{meta_bytes} bytes", expected=f"at most {most}"
        )
    return _KINDS[kind], flags, step, sequence, meta_end


def _check_payload(view: memoryview, layout: Layout, step: int) -> None:
    if layout.frame_bytes != len(view):
        raise FrameError(
            "the frame's size is not that of its tensors",
            cut=layout.name,
            step=step,
            got=f"{len(view)} bytes",
            expected=str(layout.frame_bytes),
        )
    for start, end in layout.gaps:
        if view[start:end] != bytes(end - start):
            raise FrameError("the frame hides bytes between its tensors", cut=layout.name, step=step)


def _read_tensors(
    view: memoryview, layout: Layout, step: int
) -> tuple[tuple[str, Tensor | None], ...] | None:
    """Return the tensors as views of the frame, or None if the frame does not lie on a 64-byte boundary."""
    found = []
    aligned = False
    for place in layout.places:
        name, dtype, shape, elements, offset = place
        as_it_is = _AS_IT_IS.get(dtype) if elements and dtype else None
        if as_it_is is None:
            tensor = _read_tensor(view, place, layout.name, step)
        else:
            tensor = torch.from_numpy(np.ndarray(shape, as_it_is, view, offset))
        if elements and not aligned:
            aligned = tensor is not None and tensor.data_ptr() % ALIGNMENT == 0  # then all of them are
            if not aligned:
                return None
        found.append((name, tensor))
    return tuple(found)


def _read_tensor(view: memoryview, place: Place, cut: str, step: int) -> Tensor | None:
    if place.dtype is None:
        return None
    if not place.elements:
        return torch.empty(place.shape, dtype=place.dtype)
    if place.dtype is torch.bool and _view(view, place, torch.uint8).max() > 1:
        raise FrameError(f"tensor {place.name!r} holds truth values other than 0 and 1", cut=cut, step=step)
    return _view(view, place, place.dtype)


def _view(view: memoryview, place: Place, dtype: torch.dtype) -> Tensor:
    """Return the tensor that lies at ``place``; by way of NumPy, which is the fastest."""
    tensor = torch.from_numpy(np.ndarray(place.shape, _NUMPY[dtype], view, place.offset))
    return tensor if dtype is not torch.bfloat16 else tensor.view(dtype)


def _kinds() -> str:
    return ", ".join(f"{kind.value} ({kind.name})" for kind in Kind)
