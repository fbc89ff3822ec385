"""Small numbers side by side in bytes come apart again."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from cutlayer.codecs.packing import pack, packed_width, unpack


@given(
    bits=st.sampled_from([1, 2, 4, 8]),
    rows=st.integers(1, 4),
    count=st.integers(1, 19),
    seed=st.integers(0, 99),
)
def test_numbers_come_apart_again(bits, rows, count, seed):
    draw = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, 2**bits, (rows, count), dtype=torch.uint8, generator=draw)
    packed = pack(numbers, bits)
    assert packed.dtype is torch.uint8 and packed.shape == (rows, packed_width(count, bits))
    assert torch.equal(unpack(packed, bits, count), numbers)


def test_the_first_number_lies_lowest():
    assert pack(torch.tensor([[1, 2, 3]], dtype=torch.uint8), 4).tolist() == [[0x21, 0x03]]
