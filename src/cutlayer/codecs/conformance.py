"""The trial that every codec passes: ours, and yours.

Each check is a plain function of a codec. It returns if the codec behaves and raises AssertionError, saying
what it did, if not. With pytest, for a codec of your own::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_codec(check):
        check(MyCodec())
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..errors import FrameError, NumericsError
from .base import Codec, Like, Moment, Written, check_parts

__all__ = ["CHECKS", "Check"]

Check = Callable[[Codec], None]
"""One check; raises AssertionError where the codec misbehaves."""

_SHAPES = ((5, 12), (1, 3), (4, 3, 5), (2, 4, 3, 3), (3, 300))
_DTYPES = (torch.float32, torch.float64, torch.bfloat16)
_CARRIED = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint8, torch.bool,
)  # fmt: skip
_NOW, _CALM = Moment(11, 40, True), Moment(11, 40, False)


def it_has_a_word(codec: Codec) -> None:
    """It is frozen, can be a key, and its word is text that equal codecs share."""
    _demand(dataclasses.is_dataclass(codec) and hash(codec) is not None, "it is no frozen dataclass")
    _demand(bool(codec.word.strip()) and bool(codec.promise.strip()), "its word or its promise is empty")
    _demand(dataclasses.replace(codec).word == codec.word, "an equal codec has another word")


def it_writes_what_it_says(codec: Codec) -> None:
    """Parts have the names, types and shapes that were announced; the first has the rows as its first dimension."""
    for tensor, like in _samples(codec):
        parts = codec.parts(like)
        _demand(len({part.name for part in parts}) == len(parts), "two parts have one name")
        _demand(all(part.dtype in _CARRIED for part in parts), "a part is of a type that no frame carries")
        _demand(parts[0].shape[:1] == (like.rows,), "its first part does not say how many rows there are")
        for moment in (_NOW, _CALM):
            written = codec.write(tensor, moment).parts
            _demand(len(written) == len(parts), f"it wrote {len(written)} parts and said {len(parts)}")
            try:
                check_parts(codec, written, like)
            except FrameError as error:
                raise AssertionError(str(error)) from error


def it_reads_what_it_wrote(codec: Codec) -> None:
    """What is read is of the type and shape of what was written, and finite."""
    for tensor, like in _samples(codec):
        read = codec.read(codec.write(tensor, _CALM).parts, like, _CALM)
        came = read.parts[0]
        _demand(len(read.parts) == 1, "it read more than one tensor")
        _demand(came.dtype is like.dtype and came.shape == like.shape, f"{like} came back as {Like.of(came)}")
        _demand(bool(came.isfinite().all()), "NaN or infinity came out of numbers")


def nothing_else_decides(codec: Codec) -> None:
    """The same is written again, whatever PyTorch's own random numbers are; what is given stays as it is."""
    for tensor, _ in _samples(codec):
        before, state = tensor.clone(), torch.get_rng_state()
        first = codec.write(tensor, _NOW)
        _demand(torch.equal(torch.get_rng_state(), state), "it drew from PyTorch's own random numbers")
        torch.rand(3)
        again = codec.write(tensor, _NOW)
        torch.set_rng_state(state)
        _demand(_equal(first, again), "the same tensor at the same moment was written in two ways")
        _demand(torch.equal(tensor, before), "it changed what it was given")


def no_bad_number_vanishes(codec: Codec) -> None:
    """NaN and infinity are refused where they are written, or arrive."""
    for bad in (float("nan"), float("inf"), -float("inf")):
        for tensor, like in _samples(codec):
            tensor[-1].reshape(-1)[-1] = bad
            try:
                written = codec.write(tensor, _CALM).parts
            except NumericsError:
                continue
            came = codec.read(written, like, _CALM).parts[0]
            _demand(not bool(came.isfinite().all()), f"{bad} was given, and numbers arrived")


def other_bytes_are_read_or_refused(codec: Codec) -> None:
    """Parts of the right types and shapes that hold anything are read as the right shape, or are a FrameError."""
    draw = torch.Generator().manual_seed(0)
    for _, like in _samples(codec):
        for _ in range(20):
            parts = [_anything(part.shape, part.dtype, draw) for part in codec.parts(like)]
            try:
                came = codec.read(parts, like, _CALM).parts[0]
            except FrameError:
                continue
            _demand(came.shape == like.shape, f"{like} was read as {Like.of(came)}")


def its_gradient_comes_back(codec: Codec) -> None:
    """A gradient is folded to the shape that was said, and unfolded to that of what was written."""
    for tensor, like in _samples(codec):
        written = codec.write(tensor, _NOW)
        read = codec.read(written.parts, like, _NOW)
        folded = codec.fold(torch.ones_like(tensor), read.trace, _NOW)
        _demand(Like.of(folded) == codec.folded(like), "a gradient is folded to another shape or type")
        back = codec.unfold(folded, written.trace, like, _NOW)
        _demand(Like.of(back) == like, "a gradient is unfolded to another shape or type")


CHECKS: tuple[Check, ...] = (
    it_has_a_word,
    it_writes_what_it_says,
    it_reads_what_it_wrote,
    nothing_else_decides,
    no_bad_number_vanishes,
    other_bytes_are_read_or_refused,
    its_gradient_comes_back,
)
"""All checks."""


def _samples(codec: Codec) -> Iterator[tuple[Tensor, Like]]:
    """Yield tensors of several shapes and types that the codec says it can write."""
    draw = torch.Generator().manual_seed(3)
    for shape in _SHAPES:
        for dtype in _DTYPES:
            tensor = torch.randn(shape, generator=draw).to(dtype)
            like = Like(shape, dtype)
            if not codec.misfit(like):
                yield tensor, like


def _anything(shape: tuple[int, ...], dtype: torch.dtype, draw: torch.Generator) -> Tensor:
    if dtype is torch.bool:
        return torch.randint(0, 2, shape, generator=draw).to(dtype)
    size = torch.empty(shape, dtype=dtype).nbytes
    if not size:
        return torch.empty(shape, dtype=dtype)
    return torch.randint(0, 256, (size,), dtype=torch.uint8, generator=draw).view(dtype).reshape(shape)


def _equal(one: Written, other: Written) -> bool:
    pairs = zip(one.parts, other.parts, strict=True)
    traces = (one.trace is None) is (other.trace is None)
    return traces and all(torch.equal(a, b) for a, b in pairs)


def _demand(true: bool, otherwise: str) -> None:
    if not true:
        raise AssertionError(otherwise)
