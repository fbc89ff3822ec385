"""Where things lie in a frame: names, types and shapes go in, offsets come out.

The *meta* of a frame says its name and each tensor's name, type and shape. It holds no offsets: a
tensor starts at the first multiple of 64 after the one before it, so there is no offset that could
lie. Every layout has exactly one meta, and a meta that differs from the one its own contents would
give is refused. See ``docs/frames.md`` for the format byte by byte.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import torch

from cutlayer.errors import FrameError, StudyError

__all__ = [
    "ALIGNMENT",
    "CHECKSUM_BYTES",
    "DTYPES",
    "PRELUDE_BYTES",
    "Layout",
    "Limits",
    "Place",
    "arrange",
    "parse",
]

ALIGNMENT = 64
"""Bytes; every tensor in a frame starts at a multiple of it."""
PRELUDE_BYTES = 36
"""Size of what stands before the meta."""
CHECKSUM_BYTES = 8
"""Size of the checksum that ends a frame."""

DTYPES: dict[torch.dtype, int] = {
    torch.float64: 1,
    torch.float32: 2,
    torch.float16: 3,
    torch.bfloat16: 4,
    torch.int8: 5,
    torch.int16: 6,
    torch.int32: 7,
    torch.int64: 8,
    torch.uint8: 9,
    torch.bool: 10,
}
"""The types that can cross, and the number each has in a frame."""
_ABSENT = 0
_BY_CODE: dict[int, torch.dtype | None] = {_ABSENT: None} | {code: dtype for dtype, code in DTYPES.items()}
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Line ends, terminal codes and what turns text around: a name stands in logs and on screens."""
_HARD_LIMITS = {
    "max_frame_bytes": 2**62,
    "max_tensors": 2**16 - 1,
    "max_dimensions": 64,
    "max_name_bytes": 255,
}

Spec = tuple[str, torch.dtype | None, Sequence[int]]
"""Name, type and shape of a tensor; the type None says that the tensor is not there."""


@dataclass(frozen=True, kw_only=True, eq=False)  # compared by identity: it is a key in the hot path
class Limits:
    """The largest frame a party makes or accepts.

    Attributes:
        max_frame_bytes: Size of the whole frame, in bytes.
        max_tensors: Number of tensors in a frame.
        max_dimensions: Number of dimensions of a tensor.
        max_name_bytes: Length of a name, in bytes of UTF-8.

    Raises:
        StudyError: If a limit is not a positive number or is beyond what the format can say.
    """

    max_frame_bytes: int = 2**30
    max_tensors: int = 1024
    max_dimensions: int = 16
    max_name_bytes: int = 255

    def __post_init__(self) -> None:
        for field in fields(self):
            value, most = getattr(self, field.name), _HARD_LIMITS[field.name]
            if type(value) is not int or not 1 <= value <= most:
                raise StudyError(
                    f"the limit {field.name} is out of range",
                    got=repr(value),
                    expected=f"a number from 1 to {most}",
                )

    @cached_property
    def max_meta_bytes(self) -> int:
        """Size of the largest meta within these limits."""
        tensor = 1 + self.max_name_bytes + 2 + 8 * self.max_dimensions
        return 1 + self.max_name_bytes + 2 + self.max_tensors * tensor + ALIGNMENT


class Place(NamedTuple):
    """One tensor's place in a frame: ``elements`` values of ``dtype`` from byte ``offset`` on."""

    name: str
    dtype: torch.dtype | None
    shape: tuple[int, ...]
    elements: int
    offset: int


class Layout(NamedTuple):
    """The whole of a frame.

    Attributes:
        name: The message's name.
        places: Where each tensor lies.
        gaps: Start and end of the bytes between tensors that hold nothing and are zero.
        meta: The packed description, up to where the first tensor may start.
        frame_bytes: Size of the frame, prelude and checksum included.
    """

    name: str
    places: tuple[Place, ...]
    gaps: tuple[tuple[int, int], ...]
    meta: bytes
    frame_bytes: int


def arrange(name: str, specs: Sequence[Spec], limits: Limits) -> Layout:
    """Return the layout of a frame called ``name`` with these tensors, in this order.

    Raises:
        FrameError: If a name, a type, a shape or a number of things cannot stand in a frame within
            ``limits``; nothing has been allocated by then.
    """
    if len(specs) > limits.max_tensors:
        raise FrameError(
            "too many tensors for one frame",
            cut=name,
            got=str(len(specs)),
            expected=f"at most {limits.max_tensors}",
        )
    _check_distinct(name, [spec[0] for spec in specs])
    meta = _meta(name, specs, limits)
    at, places, gaps = PRELUDE_BYTES + len(meta), list[Place](), list[tuple[int, int]]()
    for tensor, dtype, shape in specs:
        count, size = _extent(name, tensor, dtype, shape, limits)
        offset = _aligned(at)
        if size and offset != at:
            gaps.append((at, offset))
        places.append(Place(tensor, dtype, tuple(shape), count, offset if size else at))
        at = offset + size if size else at
    if at + CHECKSUM_BYTES > limits.max_frame_bytes:
        raise FrameError(
            "the frame is too large",
            cut=name,
            got=f"{at + CHECKSUM_BYTES} bytes",
            expected=f"at most {limits.max_frame_bytes}",
            todo="send fewer rows at a time or raise Limits.max_frame_bytes at both parties",
        )
    return Layout(name, tuple(places), tuple(gaps), meta, at + CHECKSUM_BYTES)


def parse(meta: bytes, limits: Limits) -> Layout:
    """Return the layout that ``meta`` describes.

    Raises:
        FrameError: If the bytes describe no layout, one beyond ``limits``, or not in the one way
            in which it is written.
    """
    reader = _Reader(meta)
    name, count = reader.text(), reader.number(2)
    if count > limits.max_tensors:
        raise FrameError(
            "too many tensors for one frame",
            cut=name,
            got=str(count),
            expected=f"at most {limits.max_tensors}",
        )
    layout = arrange(name, [reader.spec(name, limits) for _ in range(count)], limits)
    if layout.meta != meta:
        raise FrameError(
            "the frame's meta holds bytes that belong to nothing",
            cut=name,
            got=f"{len(meta)} bytes",
            expected=f"{len(layout.meta)} bytes, padded with zeros",
        )
    return layout


class _Reader:
    """Reads a meta from its start, never beyond its end."""

    def __init__(self, meta: bytes) -> None:
        self._meta, self._at = meta, 0

    def spec(self, cut: str, limits: Limits) -> Spec:
        name, code, dimensions = self.text(), self.number(1), self.number(1)
        if code not in _BY_CODE:
            raise FrameError(
                f"tensor {name!r} has an unknown type", cut=cut, got=f"code {code}", expected=_codes()
            )
        _check_dimensions(cut, name, dimensions, limits)
        return name, _BY_CODE[code], [self.number(8) for _ in range(dimensions)]

    def number(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def text(self) -> str:
        raw = self._take(self.number(1))
        try:
            return _legible(raw.decode())
        except UnicodeDecodeError as error:
            raise FrameError("a name in the frame is not UTF-8", got=repr(raw)) from error

    def _take(self, count: int) -> bytes:
        start, self._at = self._at, self._at + count
        if self._at > len(self._meta):
            raise FrameError("the frame's meta ends within an entry", got=f"{len(self._meta)} bytes")
        return self._meta[start : self._at]


def _meta(name: str, specs: Sequence[Spec], limits: Limits) -> bytes:
    parts = [_text(name, name, limits), len(specs).to_bytes(2, "little")]
    for tensor, dtype, shape in specs:
        if dtype is not None and dtype not in DTYPES:
            raise FrameError(
                f"tensor {tensor!r} has a type that no frame carries",
                cut=name,
                got=str(dtype),
                expected=", ".join(str(known).removeprefix("torch.") for known in DTYPES),
                todo="convert it before it crosses the cut",
            )
        _check_dimensions(name, tensor, len(shape), limits)
        code = _ABSENT if dtype is None else DTYPES[dtype]
        parts += [_text(name, tensor, limits), bytes((code, len(shape)))]
        parts += [side.to_bytes(8, "little") for side in shape]
    meta = b"".join(parts)
    return meta.ljust(_aligned(PRELUDE_BYTES + len(meta)) - PRELUDE_BYTES, b"\0")


def _text(cut: str, name: str, limits: Limits) -> bytes:
    if not isinstance(name, str):
        raise FrameError("a name is not text", got=repr(name), expected="a str")
    try:
        raw = _legible(name).encode()
    except UnicodeEncodeError as error:
        raise FrameError("a name cannot be written as UTF-8", got=repr(name)) from error
    if len(raw) > limits.max_name_bytes:
        raise FrameError(
            f"the name {name[:40]!r}... is too long",
            cut=None if name == cut else cut,
            got=f"{len(raw)} bytes",
            expected=f"at most {limits.max_name_bytes}",
        )
    return bytes((len(raw),)) + raw


def _legible(name: str) -> str:
    """Return ``name``, which holds nothing that would forge a line of a log or command a terminal."""
    if _CONTROL.search(name):
        raise FrameError("a name holds control characters", got=ascii(name))
    return name


def _extent(
    cut: str, name: str, dtype: torch.dtype | None, shape: Sequence[int], limits: Limits
) -> tuple[int, int]:
    """Return a tensor's elements and bytes, after checking that neither these nor its strides overflow."""
    if dtype is None:
        if shape:
            raise FrameError(f"tensor {name!r} is not there and has a shape", cut=cut, got=str(list(shape)))
        return 0, 0
    count, span = 1, dtype.itemsize
    for side in shape:
        count, span = count * side, span * max(side, 1)
        if span > limits.max_frame_bytes:
            raise FrameError(
                f"tensor {name!r} is too large",
                cut=cut,
                got=f"{dtype}{list(shape)}",
                expected=f"at most {limits.max_frame_bytes} bytes",
                todo="send fewer rows at a time or raise Limits.max_frame_bytes at both parties",
            )
    return count, count * dtype.itemsize


def _check_dimensions(cut: str, name: str, dimensions: int, limits: Limits) -> None:
    if dimensions > limits.max_dimensions:
        raise FrameError(
            f"tensor {name!r} has too many dimensions",
            cut=cut,
            got=str(dimensions),
            expected=f"at most {limits.max_dimensions}",
        )


def _check_distinct(cut: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        (twice, _), *_ = Counter(names).most_common(1)
        raise FrameError(f"two tensors are called {twice!r}", cut=cut, expected="distinct names")


def _aligned(at: int) -> int:
    return -(-at // ALIGNMENT) * ALIGNMENT


def _codes() -> str:
    return ", ".join(f"{code} ({dtype})" for dtype, code in DTYPES.items())
