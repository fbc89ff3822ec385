"""Parts that no codec wrote are refused where they are read."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutlayer.codecs import Like, Moment, check_parts, codec_of
from cutlayer.errors import FrameError

MOMENT = Moment(7, 120, True)
LIKE = Like((4, 6), torch.float32)
NAN, INFINITY = float("nan"), float("inf")


def written(word):
    tensor = torch.linspace(-2, 3, 24).reshape(4, 6)
    return list(codec_of(word).write(tensor, MOMENT).parts)


@pytest.mark.parametrize("word", ["float16", "float8", "int8", "int4:row", "topk:0.5", "pq:2,3", "c3:2"])
def test_other_types_and_shapes_are_refused(word):
    codec, parts = codec_of(word), written(word)
    check_parts(codec, parts, LIKE)
    for place, part in enumerate(parts):
        for other in (part.to(torch.int64), torch.cat([part.reshape(-1)] * 2), part[None]):
            with pytest.raises(FrameError, match=r"is not what .* writes; got .* expected"):
                check_parts(codec, [*parts[:place], other, *parts[place + 1 :]], LIKE)
        with pytest.raises(FrameError, match="is not what"):
            check_parts(codec, parts, Like((5, 7), torch.float32))


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY, 0.0, -1.0, 3e38])
@pytest.mark.parametrize(
    ("word", "place"), [("int8", 1), ("int8:row", 1), ("int4:channel", 1), ("float8", 1)]
)
def test_scales_that_are_none_are_refused(word, place, value):
    parts = written(word)
    parts[place] = parts[place].clone()
    parts[place].reshape(-1)[-1] = value
    with pytest.raises(FrameError, match="is no positive number in range"):
        codec_of(word).read(parts, LIKE, MOMENT)


@pytest.mark.parametrize(
    ("word", "byte"), [("float8:e4m3", 0x7F), ("float8:e4m3", 0xFF), ("float8:e5m2", 0xFC)]
)
def test_bytes_that_stand_for_no_number_are_refused(word, byte):
    parts = written(word)
    parts[0][1, 2] = byte
    with pytest.raises(FrameError, match="a value is NaN or infinity"):
        codec_of(word).read(parts, LIKE, MOMENT)


@pytest.mark.parametrize(
    "places",
    [[0, 1, 6], [0, 1, 255], [2, 1, 3], [1, 1, 2], [5, 4, 3]],
    ids=["beyond", "far", "back", "twice", "turned"],
)
def test_places_out_of_range_or_order_are_refused(places):
    parts = written("topk:0.5")
    parts[1][2] = torch.tensor(places, dtype=torch.uint8)
    with pytest.raises(FrameError, match="the places do not ascend within a row; expected from 0 to 5"):
        codec_of("topk:0.5").read(parts, LIKE, MOMENT)


@pytest.mark.parametrize("width", [300, 40000, 70000])
def test_negative_and_wide_places_are_refused(width):
    codec, like = codec_of("topk:0.001"), Like((2, width), torch.float32)
    parts = list(codec.write(torch.randn(2, width), MOMENT).parts)
    parts[1][0, 0] = -1  # with 16 bits this is place 65,535
    with pytest.raises(FrameError, match="the places do not ascend"):
        codec.read(parts, like, MOMENT)


def test_numbers_of_no_centroid_and_centroids_that_are_no_numbers_are_refused():
    codec, parts = codec_of("pq:2,3"), written("pq:2,3")
    with pytest.raises(FrameError, match="a number of no centroid; expected below 3"):
        codec.read([parts[0] | 3, parts[1]], LIKE, MOMENT)
    parts[1][0, 1] = NAN
    with pytest.raises(FrameError, match="a centroid holds NaN"):
        codec.read(parts, LIKE, MOMENT)


@pytest.mark.parametrize("value", [NAN, INFINITY])
def test_sums_that_are_no_numbers_are_refused(value):
    parts = written("c3:2")
    parts[1][0, 0] = value
    with pytest.raises(FrameError, match="a sum holds NaN"):
        codec_of("c3:2").read(parts, LIKE, MOMENT)


WORDS = ("float16", "float8", "int8", "int8:channel", "int4", "topk:0.3", "random-topk:0.5", "pq:2,5", "c3:4")


@settings(max_examples=150, deadline=None)
@given(word=st.sampled_from(WORDS), seed=st.integers(0, 2**31))
def test_any_bytes_in_the_right_shapes_are_read_or_refused(word, seed):
    codec, draw = codec_of(word), torch.Generator().manual_seed(seed)
    parts = []
    for part in codec.parts(LIKE):
        size = torch.empty(part.shape, dtype=part.dtype).nbytes
        raw = torch.randint(0, 256, (max(size, 1),), dtype=torch.uint8, generator=draw)[:size]
        parts.append(
            raw.view(part.dtype).reshape(part.shape) if size else torch.empty(part.shape, dtype=part.dtype)
        )
    check_parts(codec, parts, LIKE)
    try:
        (read,) = codec.read(parts, LIKE, MOMENT).parts
    except FrameError:
        return
    assert read.shape == LIKE.shape and read.dtype is LIKE.dtype
