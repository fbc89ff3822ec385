"""The FLOP counter knows attention on a CPU, forwards and backwards."""

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from cutlayer.graph.flops import flop_counter


def test_attention_is_counted_as_its_two_products_and_their_gradients():
    query, key, value = (torch.randn(2, 4, 16, 8, requires_grad=True) for _ in range(3))
    product = 2 * (2 * 4) * 16 * 16 * 8  # a multiply-add is two
    with flop_counter() as counter:
        out = scaled_dot_product_attention(query, key, value)
    assert counter.get_total_flops() == 2 * product
    with flop_counter() as counter:
        out.sum().backward()
    assert counter.get_total_flops() == 5 * product  # the scores again, and four gradients


def test_everything_else_is_counted_as_pytorch_does():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 5))
    x = torch.randn(4, 3, 8, 8)
    with FlopCounterMode(display=False) as known:
        model(x).sum().backward()
    with flop_counter() as counter:
        model(x).sum().backward()
    assert counter.get_total_flops() == known.get_total_flops() > 0
