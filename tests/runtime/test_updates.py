"""Updates: what changed in a tensor, exact to the last bit, and read without trust."""

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cutlayer.errors import FrameError
from cutlayer.runtime.updates import pack, unpack

KINDS = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)


def bits(tensor):
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def drawn(shape, kind, seed):
    """Any bits at all, NaNs and infinities among them; of booleans, only the two that there are."""
    tensor = torch.empty(shape, dtype=kind)
    raw = tensor.reshape(-1).view(torch.uint8)
    most = 2 if kind is torch.bool else 256
    raw.copy_(torch.from_numpy(np.random.default_rng(seed).integers(0, most, raw.numel(), np.uint8)))
    return tensor


@given(SHAPES, st.sampled_from(KINDS), st.integers(0, 2**32))
def test_whatever_it_was_and_is_comes_back_to_the_bit(shape, kind, seed):
    start, now = drawn(shape, kind, seed), drawn(shape, kind, seed + 1)
    again = unpack(pack(now, start), start)
    assert (again.shape, again.dtype, bits(again)) == (now.shape, now.dtype, bits(now))


def test_floating_point_differences_would_not_do():
    draw = torch.Generator().manual_seed(0)
    start, now = torch.randn(1000, generator=draw), torch.randn(1000, generator=draw)
    assert not torch.equal(start + (now - start), now)
    assert torch.equal(unpack(pack(now, start), start), now)


def test_what_did_not_change_takes_almost_nothing_and_what_is_close_takes_less():
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(100, 100, generator=draw)
    near = start + 1e-3 * torch.randn(100, 100, generator=draw)
    far = torch.randn(100, 100, generator=draw)
    assert pack(start, start).numel() < start.nbytes / 100
    assert pack(near, start).numel() < 0.7 * start.nbytes
    assert pack(far, start).numel() < start.nbytes + 64


START = torch.ones(8)
GOOD = pack(torch.arange(8.0), START)


def deflated(data):
    written = zlib.compressobj(9, zlib.DEFLATED, -15)
    return torch.frombuffer(bytearray(written.compress(data) + written.flush()), dtype=torch.uint8)


@pytest.mark.parametrize(
    "wrong",
    [
        GOOD[:-1],
        torch.cat([GOOD, GOOD]),
        GOOD[:0],
        torch.full((40,), 255, dtype=torch.uint8),
        torch.zeros(4),
        GOOD.reshape(1, -1),
        deflated(bytes(31)),
        deflated(bytes(33)),
        deflated(bytes(2**24)),
    ],
    ids=["cut", "twice", "empty", "noise", "floats", "two axes", "short", "long", "a bomb"],
)
def test_what_is_no_update_is_refused(wrong):
    with pytest.raises(FrameError, match=r"an update (cannot be read|is not of the tensor)"):
        unpack(wrong, START)
