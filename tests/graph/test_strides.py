"""Strides: a copy lies in memory as the original did, and the bits of kernels follow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cutlayer.graph.strides import Strides, placed

VIEWS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x.transpose(0, 1),
    lambda x: x.transpose(1, 2),
    lambda x: x.permute(2, 0, 1),
    lambda x: x[:, 1:3],
    lambda x: x[..., 1:],
    lambda x: x[..., ::2],
    lambda x: x[1:],
    lambda x: x[:, 1],
    lambda x: x[:1].expand(x.shape[0], -1, -1),
    lambda x: x[:, :1].expand(-1, 4, -1).transpose(0, 2),
    lambda x: x.sum().expand(x.shape),
]


def test_row_by_row_needs_nothing() -> None:
    x = torch.randn(4, 4, 4)
    assert Strides.of(x) is None and Strides.of(x[:0]) is None and Strides.of(x[0]) is None
    assert Strides.of(torch.arange(10).as_strided((3, 4), (2, 1))) is None  # windows that overlap


@given(views=st.lists(st.sampled_from(VIEWS), min_size=1, max_size=2), rows=st.integers(4, 6))
def test_a_copy_lies_like_the_original(views: list[Callable[[Tensor], Tensor]], rows: int) -> None:
    def view(rows: int) -> Tensor:
        x = torch.arange(rows * 25.0).view(rows, 5, 5)
        for one in views:
            if x.dim() == 3 and min(x.shape) > 2:
                x = one(x)
        return x

    strides = Strides.of(view(4))
    original = view(rows)
    if strides is None:
        return
    copy = strides.lay_out(original.contiguous())
    assert torch.equal(copy, original)
    real = [d for d in range(copy.dim()) if copy.shape[d] > 1]
    if rows == 4:
        assert [copy.stride(d) for d in real] == [original.stride(d) for d in real]
        assert copy.data_ptr() % 64 == original.data_ptr() % 64


def test_gradients_are_laid_out_on_their_way_back() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    seen: list[Tensor] = []
    middle = x * 1
    middle.register_hook(seen.append)
    wide = torch.zeros(3, 9)[:, 5:]
    out = placed(middle, Strides.of(torch.zeros(4, 3).t()), Strides.of(wide))
    assert out.stride() == (1, 3) and torch.equal(out, x)
    gradient = torch.randn(3, 4)
    out.backward(gradient)
    assert seen[0].stride() == (9, 1) and seen[0].data_ptr() % 64 == wide.data_ptr() % 64
    assert torch.equal(seen[0], gradient)
