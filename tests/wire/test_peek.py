"""A glance at a frame tells what decoding it tells, and refuses what is no frame."""

import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutlayer.errors import FrameError
from cutlayer.wire import DTYPES, Contents, Kind, Limits, Message, decode, encode, peek
from cutlayer.wire.frame_layout import PRELUDE_BYTES

COUNTS = st.integers(0, 2**64 - 1)


@st.composite
def tensors(draw):
    if draw(st.integers(0, 3)) == 0:
        return None
    return torch.zeros(
        draw(st.lists(st.integers(0, 4), max_size=4)), dtype=draw(st.sampled_from(sorted(DTYPES, key=str)))
    )


MESSAGES = st.builds(
    Message,
    st.sampled_from(Kind),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zl", "Zp"]), max_size=20),
    COUNTS,
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zl", "Zp"]), max_size=9),
        tensors(),
        max_size=4,
    ).map(lambda named: tuple(named.items())),
    st.booleans(),
    COUNTS,
    st.none(),
)


@given(MESSAGES)
def test_a_glance_tells_what_decoding_tells(message):
    frame = encode(message)
    came = decode(frame)
    described = tuple(
        (name, None, ()) if tensor is None else (name, tensor.dtype, tuple(tensor.shape))
        for name, tensor in came.tensors
    )
    expected = Contents(
        came.kind, came.name, came.step, came.sequence, came.training, described,
        len(frame), bytes(frame[-8:]).hex(),
    )  # fmt: skip
    assert peek(frame) == peek(bytes(frame)) == expected


@settings(max_examples=300)
@given(MESSAGES, st.data())
def test_what_a_glance_refuses_is_no_frame(message, data):
    frame = bytearray(encode(message))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    try:
        seen = peek(frame)
    except FrameError:
        with pytest.raises(FrameError):
            decode(frame)
    else:  # damage where a glance cannot see it: counters, names, tensors, checksum
        assert seen.frame_bytes == len(frame)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_an_error(raw):
    with pytest.raises(FrameError):
        peek(raw)


def test_each_lie_in_the_prelude_is_named():
    frame = encode(Message(Kind.ACTIVATION, "head->server", 3, (("x", torch.zeros(8)),)))
    for offset, field, said in (
        (0, b"Hutl", "not a cutlayer frame"),
        (4, b"\x09", "another version"),
        (8, struct.pack("<Q", 2**40), "too large"),
        (8, struct.pack("<Q", 200), "cut short"),
        (5, b"\x63", "checksum differs"),
        (6, b"\x02\x00", "checksum differs"),
        (32, struct.pack("<I", 2**31), "checksum differs"),
    ):
        changed = bytearray(frame)
        changed[offset : offset + len(field)] = field
        with pytest.raises(FrameError, match=said):
            peek(changed)
    with pytest.raises(FrameError, match="cut short"):
        peek(frame[:-1])
    with pytest.raises(FrameError, match="cut short"):
        peek(b"CutL")
    with pytest.raises(FrameError, match="contiguous bytes"):
        peek("a text")


def test_a_shape_that_does_not_fit_the_size_is_refused():
    frame = bytearray(encode(Message(Kind.ACTIVATION, "c", 0, (("x", torch.zeros(8)),))))
    side = PRELUDE_BYTES + 2 + 2 + 2 + 2  # after the name, the count, the tensor's name, type and dimensions
    assert frame[side : side + 8] == (8).to_bytes(8, "little")
    frame[side : side + 8] = (9).to_bytes(8, "little")
    with pytest.raises(FrameError, match="size is not that of its tensors"):
        peek(frame)


def test_limits_hold():
    frame = encode(Message(Kind.ACTIVATION, "c", 0, (("x", torch.zeros(8)), ("y", torch.zeros(8)))))
    with pytest.raises(FrameError, match="too large"):
        peek(frame, limits=Limits(max_frame_bytes=64))
    with pytest.raises(FrameError, match="too many tensors"):
        peek(frame, limits=Limits(max_tensors=1))


def test_tensors_and_checksum_are_not_looked_at():
    frame = bytearray(encode(Message(Kind.ACTIVATION, "c", 0, (("x", torch.zeros(8)),))))
    sound = peek(frame)
    frame[-12] ^= 1
    assert peek(frame) == sound
    frame[-1] ^= 1
    assert peek(frame) != sound
    with pytest.raises(FrameError, match="damaged"):
        decode(frame)
