"""Patch shuffling: the same tokens, in an order of each row's own; a transformer behind the cut learns all the same."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.privacy import Facts, Moment, Noise, Place, defence_of
from cutlayer.privacy.patches import ShuffledPatches


def moment(step=0):
    return Moment(
        party="client", cut="head->server", step=step, training=True, fields={}, labels=None,
        noise=Noise(b"the sender's own secret", step), facts=Facts(), memory={},
    )  # fmt: skip


def tokens(rows=40, count=6, width=3):
    return torch.arange(rows * count * width, dtype=torch.float32).reshape(rows, count, width)


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_the_same_tokens_leave_in_an_order_of_each_rows_own(keep):
    x, now = tokens(), moment()
    sent = ShuffledPatches(keep=keep).outgoing(x, now)
    assert torch.equal(sent[:, :keep], x[:, :keep])
    assert torch.equal(sent.sort(dim=1).values, x)
    moved = ((sent[:, :, 0] - x[:, :1, 0]) / 3).long()
    assert len({tuple(order) for order in moved.tolist()}) > (4 if keep == 3 else 10)
    assert now.facts.read()["rows"] == 40


def test_all_orders_are_as_frequent():
    x = tokens(rows=3000, count=3, width=1) % 3
    sent = ShuffledPatches().outgoing(x, moment())[:, :, 0]
    orders, counts = torch.unique(sent, dim=0, return_counts=True)
    assert len(orders) == 6
    assert counts.min() > 400 and counts.max() < 600


def test_gradients_go_back_to_where_the_tokens_were():
    x = tokens(rows=5).requires_grad_()
    sent = ShuffledPatches().outgoing(x, moment())
    (gradient,) = torch.autograd.grad((sent * sent.detach()).sum(), x)
    torch.testing.assert_close(gradient, x.detach())


def test_settings_and_shapes_are_checked():
    assert defence_of("patch-shuffle:1") == ShuffledPatches(keep=1)
    for keep in (-1, 0.5, True, "one"):
        with pytest.raises(StudyError, match="patch-shuffle: keep cannot be that"):
            ShuffledPatches(keep=keep)
    place = Place(cut="a->b", shape=(6, 3), raw=("x",), labels="", sent_labels=False, gradient=True)
    assert ShuffledPatches(keep=4).misfit(place) is None
    assert ShuffledPatches().misfit(dataclasses.replace(place, shape=None)) is None
    assert "beside the 5 that stay" in ShuffledPatches(keep=5).misfit(place)
    assert "shape [7] is not tokens" in ShuffledPatches().misfit(dataclasses.replace(place, shape=(7,)))
    with pytest.raises(StudyError, match=r"client, cut head->server, step 0: a row of shape \[7\]"):
        ShuffledPatches().outgoing(torch.randn(2, 7), moment())


def test_attention_behind_the_cut_does_not_ask_for_the_order():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
            self.top = nn.Linear(8, 2)

        def forward(self, tokens):
            return self.top(self.attention(tokens).mean(1))

    x = torch.randn(32, 5, 4, generator=torch.Generator().manual_seed(0))
    people = cl.data.arrays(x.numpy(), (x.mean((1, 2)) > 0).long().numpy()).split(
        {"client": "*"}, labels="server"
    )
    heads = []
    for defences in ((), ("patch-shuffle",)):
        torch.manual_seed(1)
        graph = cl.vanilla(nn.Sequential(nn.Linear(4, 8), Pooled()), "0", clients=people)
        sgd = cl.optim.SGD(lr=0.1)
        study = cl.Study(graph=graph, optimizer=sgd, batch_size=8, epochs=2, defences=defences, evaluate=())
        heads.append(study.simulate(people).weights()["head"])
    for name, value in heads[0].items():
        torch.testing.assert_close(heads[1][name], value, rtol=1e-4, atol=1e-5)
