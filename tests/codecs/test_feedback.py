"""What is left out of one gradient arrives with the next ones: the sums over rows add up."""

import pytest
import torch
from torch import nn

from cutlayer.codecs import Like, Moment, buffer_name, codec_of, make_room, write_with_feedback


@pytest.mark.parametrize("word", ["topk:0.1", "int4", "float8:e5m2", "pq:4,4"])
def test_what_arrived_and_what_is_left_is_what_was_meant(word):
    codec, draw = codec_of(word), torch.Generator().manual_seed(0)
    left, meant, came = torch.zeros(20), torch.zeros(20), torch.zeros(20)
    for step in range(30):
        rows = 3 + step % 4
        gradient = torch.randn(rows, 20, generator=draw) + 0.3
        moment = Moment(1, step, True)
        written = write_with_feedback(codec, gradient, left, moment)
        meant += gradient.sum(0)
        came += codec.read(written.parts, Like((rows, 20), torch.float32), moment).parts[0].sum(0)
        assert torch.allclose(came + left, meant, atol=1e-3)
    assert left.abs().max() > 0
    without = torch.zeros(20)
    draw.manual_seed(0)
    for step in range(30):
        gradient = torch.randn(3 + step % 4, 20, generator=draw) + 0.3
        parts, like = (
            codec.write(gradient, Moment(1, step, True)).parts,
            Like(tuple(gradient.shape), gradient.dtype),
        )
        without += codec.read(parts, like, Moment(1, step, True)).parts[0].sum(0)
    if word == "topk:0.1":
        assert (meant - without).norm() > 2 * left.norm()


def test_what_is_left_goes_with_the_module_and_is_no_part_of_its_weights():
    module = nn.Linear(3, 2)
    make_room(module, buffer_name("head", 0), (5,))
    assert "left_out_head_0" in dict(module.named_buffers())
    assert set(module.state_dict()) == {"weight", "bias"}
