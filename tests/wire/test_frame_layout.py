"""Where tensors lie, and which descriptions are refused."""

import time

import pytest
import torch

from cutlayer.errors import FrameError, StudyError
from cutlayer.wire import DTYPES, Limits
from cutlayer.wire.frame_layout import ALIGNMENT, CHECKSUM_BYTES, PRELUDE_BYTES, arrange, parse

LIMITS = Limits()


def entry(name=b"x", code=2, shape=(3,), dimensions=None):
    sides = b"".join(side.to_bytes(8, "little") for side in shape)
    return bytes([len(name)]) + name + bytes([code, len(shape) if dimensions is None else dimensions]) + sides


def meta(*entries, name=b"cut", count=None, padding=b"\0"):
    text = bytes([len(name)]) + name + (len(entries) if count is None else count).to_bytes(2, "little")
    text += b"".join(entries)
    return text + padding * (-(PRELUDE_BYTES + len(text)) % ALIGNMENT)


def test_tensors_follow_one_another_at_multiples_of_64():
    layout = arrange("cut", [("a", torch.float32, (3,)), ("b", None, ()), ("c", torch.int8, (64,))], LIMITS)
    start = PRELUDE_BYTES + len(layout.meta)
    assert start % ALIGNMENT == 0
    assert [place.offset for place in layout.places if place.elements] == [start, start + 64]
    assert layout.gaps == ((start + 12, start + 64),)
    assert layout.frame_bytes == start + 64 + 64 + CHECKSUM_BYTES


def test_parsing_returns_what_was_arranged():
    specs = [(str(code), dtype, (code, 0, 2)) for dtype, code in DTYPES.items()]
    layout = arrange("häd->server", [*specs, ("none", None, ())], LIMITS)
    assert parse(layout.meta, LIMITS) == layout


def test_the_meta_is_as_the_page_says():
    assert arrange("cut", [("x", torch.float32, (3,))], LIMITS).meta == meta(entry())


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (meta(entry(code=11)), "unknown type"),
        (meta(entry(), entry()), "two tensors are called 'x'"),
        (meta(entry(), count=2)[:20], "ends within an entry"),
        (b"", "ends within an entry"),
        (meta(entry(shape=(2**63, 2**63))), "too large"),
        (meta(entry(shape=(2**64 - 1,))), "too large"),
        (meta(entry(shape=(0, 2**40, 2**40))), "too large"),
        (meta(entry(shape=(2**29,))), "too large"),
        (meta(entry(shape=(2**27,)), entry(b"z", shape=(2**27,))), "too large"),
        (meta(entry(shape=(1,) * 17)), "too many dimensions"),
        (meta(entry(dimensions=255)), "too many dimensions"),
        (meta(entry(code=0, shape=(1,))), "is not there and has a shape"),
        (meta(entry(), count=1025), "too many tensors"),
        (meta(entry(name=b"\xff\xfe")), "not UTF-8"),
        (meta(entry(), name=b"\xc3"), "not UTF-8"),
        (meta(entry(), padding=b"\1"), "belong to nothing"),
        (meta(entry()) + bytes(64), "belong to nothing"),
        (meta(entry(), entry(b"y"), count=1), "belong to nothing"),
    ],
)
def test_every_lie_is_refused(lie, says):
    with pytest.raises(FrameError, match=says):
        parse(lie, LIMITS)


def test_limits_hold_on_the_way_out_as_well():
    small = Limits(max_frame_bytes=1024, max_tensors=2, max_dimensions=1, max_name_bytes=3)
    assert arrange("cut", [("abc", torch.int8, (700,))], small).frame_bytes < 1024
    for name, specs, says in (
        ("cuts", [], "too long"),
        ("cut", [("abcd", None, ())], "too long"),
        ("cut", [("a", None, ()), ("b", None, ()), ("c", None, ())], "too many tensors"),
        ("cut", [("a", torch.int8, (1, 1))], "too many dimensions"),
        ("cut", [("a", torch.int8, (1000,))], "frame is too large"),
        ("cut", [("a", torch.int8, (1025,))], "tensor 'a' is too large"),
    ):
        with pytest.raises(FrameError, match=says):
            arrange(name, specs, small)


@pytest.mark.parametrize("name", ["\ud800", 3])
def test_names_are_text(name):
    with pytest.raises(FrameError, match="a name"):
        arrange("cut", [(name, None, ())], LIMITS)


@pytest.mark.parametrize(
    "wrong", [{"max_tensors": 0}, {"max_frame_bytes": -1}, {"max_name_bytes": 256}, {"max_dimensions": 2.0}]
)
def test_limits_are_checked(wrong):
    with pytest.raises(StudyError, match=next(iter(wrong))):
        Limits(**wrong)


def test_finding_the_name_that_comes_twice_takes_no_longer_with_many_names():
    """With 2 ** 16 names, to compare each with all others took most of a minute."""
    names = [str(number) for number in range(2**16 - 2)] + ["7"]
    began = time.thread_time()
    with pytest.raises(FrameError, match="two tensors are called '7'"):
        arrange("cut", [(name, None, ()) for name in names], Limits(max_tensors=2**16 - 1))
    assert time.thread_time() - began < 2
