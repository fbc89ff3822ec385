"""Places that are drawn are free, different, and all equally likely."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cutlayer.codecs.drawing import draw_others


@given(width=st.integers(1, 400), share=st.floats(0, 0.9), part=st.floats(0.01, 1), seed=st.integers(0, 999))
def test_places_are_free_and_different(width, share, part, seed):
    draw = torch.Generator().manual_seed(seed)
    taken = torch.rand((3, width), generator=draw).argsort(1)[:, : int(share * width)].sort(1).values
    count = max(1, int(part * (width - taken.shape[1])))
    places, counts = draw_others(taken, count, width, draw)
    assert places.shape == counts.shape == (3, count)
    for row in range(3):
        valid = places[row][counts[row]].tolist()
        assert len(set(valid)) == len(valid) and not set(valid) & set(taken[row].tolist())
        assert all(0 <= place < width for place in valid)
    assert counts.float().mean() > 0.9


@pytest.mark.parametrize(("width", "count"), [(30, 5), (300, 5)])  # either way of drawing
def test_all_free_places_are_equally_likely(width, count):
    rows, draw = 20000, torch.Generator().manual_seed(0)
    taken = torch.tensor([0, 3, 4, width - 1]).expand(rows, -1)
    places, counts = draw_others(taken, count, width, draw)
    assert counts.all()
    often = places.reshape(-1).bincount(minlength=width) / (rows * count)
    free = torch.ones(width)
    free[taken[0]] = 0
    expected = free / (width - 4)
    assert (often - expected).abs().max() < 5 * (1 / (width * rows * count)) ** 0.5
