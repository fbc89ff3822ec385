"""Whatever bytes come: a message, or a FrameError, soon and with little memory."""

import sys

import pytest
import torch
from forging import bounded, checksummed, lying_frames
from hypothesis import given, settings
from hypothesis import strategies as st

from cutlayer.errors import FrameError
from cutlayer.wire import DTYPES, Kind, Limits, Message, decode, encode
from cutlayer.wire.peek import peek

pytestmark = pytest.mark.skipif(
    sys.platform != "linux",
    reason="memory is bounded by Linux' means: run these tests on Linux, a container will do",
)
HANDOVER = Limits(max_frame_bytes=2**36, max_tensors=2**16 - 1)
LITTLE, SOON = 10 * 2**20, 0.5


def read(frame, limits=Limits()):  # noqa: B008
    """Return the message or the error that says why there is none; anything else is raised."""
    with bounded(LITTLE, SOON):
        try:
            return decode(frame, limits=limits)
        except FrameError as error:
            return error


def test_the_bounds_of_these_tests_hold():
    with pytest.raises(RuntimeError, match="memory"), bounded(LITTLE, SOON):
        torch.empty(2**36, dtype=torch.uint8)
    with pytest.raises(AssertionError, match="processor time"), bounded(LITTLE, 1e-9):
        sum(range(100_000))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_noise_is_refused(noise):
    for limits in (Limits(), HANDOVER):
        assert isinstance(read(noise, limits), FrameError)


def test_every_lie_is_refused_and_what_is_no_lie_is_the_one_frame_of_its_message():
    said = set()

    @settings(max_examples=600, deadline=None, database=None)
    @given(lying_frames(), st.sampled_from([Limits(), HANDOVER]))
    def look(frame, limits):
        found = read(frame, limits)
        if isinstance(found, FrameError):
            said.add(found.what.partition("'")[0])
            assert len(str(found)) < 4000
            with pytest.raises(FrameError) if "checksum" not in found.what else bounded(LITTLE, SOON):
                if not found.what.startswith(("the frame hides", "tensor ")):  # what only decoding looks at
                    peek(frame, limits=limits)
                else:
                    raise found
            return
        said.add("a message")
        assert encode(found, limits=limits) == frame

    look()
    assert "a message" in said and len(said) >= 12, said


@pytest.mark.parametrize("announced", [2**30 + 1, 2**32, 2**63, 2**64 - 1])
def test_what_is_announced_is_not_made_room_for(announced):
    whole = bytearray(encode(Message(Kind.ACTIVATION, "cut", 0, (("x", torch.ones(2, 3)),))))
    frame = bytearray(whole)
    frame[8:16] = announced.to_bytes(8, "little")
    assert "too large" in str(read(frame))
    for at in range(36, 64 - 8):  # the shape, and every other place in the meta
        frame = bytearray(whole)
        frame[at : at + 8] = announced.to_bytes(8, "little")
        assert isinstance(read(checksummed(frame)), FrameError)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_bits_that_were_turned_under_a_checksum_that_fits(data):
    tensors = (
        ("a", torch.ones(2, 3)),
        ("b", None),
        ("c", torch.tensor([True, False])),
        ("d", torch.ones(0, 2)),
    )
    frame = bytearray(encode(Message(Kind.GRADIENT, "head<-server", 5, tensors)))
    for _ in range(data.draw(st.integers(1, 4))):
        bit = data.draw(st.integers(0, 8 * (len(frame) - 8) - 1))
        frame[bit // 8] ^= 1 << bit % 8
    found = read(checksummed(frame))
    assert isinstance(found, FrameError) or encode(found) == frame


DEEP = st.builds(
    lambda shape, dtype: torch.ones(shape).to(dtype),
    st.lists(st.sampled_from([0, 1, 1, 1, 2]), max_size=12),
    st.sampled_from(sorted(DTYPES, key=str)),
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.text("äß→x/", max_size=80), st.one_of(st.none(), DEEP), max_size=30),
    st.sampled_from(Kind),
    st.integers(0, 2**64 - 1),
)
def test_messages_of_any_shape_come_back(tensors, kind, number):
    sent = Message(kind, "häd->server", number, tuple(tensors.items()), bool(number % 2), number)
    came = decode(encode(sent))
    assert came._replace(tensors=(), layout=None) == sent._replace(tensors=())
    for (name, tensor), (title, expected) in zip(came.tensors, sent.tensors, strict=True):
        assert name == title and (tensor is None) == (expected is None)
        assert expected is None or (tensor.dtype is expected.dtype and torch.equal(tensor, expected))


def test_the_most_tensors_that_a_frame_can_name_are_read_soon():
    names = [str(number) for number in range(2**16 - 1)]
    frame = encode(Message(Kind.HANDOVER, "client", 0, tuple((n, None) for n in names)), limits=HANDOVER)
    with bounded(200 * 2**20, 5):
        assert len(decode(frame, limits=HANDOVER).tensors) == len(names)
    assert "too long" in str(read(frame))
