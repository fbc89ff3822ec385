"""Pruning of channels: which ones do not leave, row by row, and that their gradients do not come back."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutlayer.errors import StudyError
from cutlayer.privacy import Facts, Moment, Noise, Place, defence_of
from cutlayer.privacy.pruning import PrunedChannels


def moment(step=0):
    return Moment(
        party="client", cut="head->server", step=step, training=True, fields={}, labels=None,
        noise=Noise(b"the sender's own secret", step), facts=Facts(), memory={},
    )  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 5),
    channels=st.integers(2, 9),
    size=st.sampled_from([(), (3,), (2, 4)]),
    share=st.floats(0.01, 0.99),
    by=st.sampled_from(["strongest", "random"]),
    seed=st.integers(0, 100),
)
def test_the_stated_share_of_each_rows_channels_is_0_and_the_others_are_as_they_were(
    rows, channels, size, share, by, seed
):
    x = torch.randn(rows, channels, *size, generator=torch.Generator().manual_seed(seed)) + 0.01
    sent = PrunedChannels(share=share, by=by).outgoing(x, moment(seed))
    gone = (sent == 0).reshape(rows, channels, -1).all(2)
    count = min(max(round(share * channels), 1), channels - 1)
    assert gone.sum(1).tolist() == [count] * rows
    torch.testing.assert_close(sent[~gone], x[~gone])
    if by == "strongest":
        squares = x.reshape(rows, channels, -1).square().mean(2)
        for row in range(rows):
            assert squares[row][gone[row]].min() >= squares[row][~gone[row]].max()


def test_a_rows_channels_do_not_depend_on_other_rows():
    x = torch.randn(6, 8, 3)
    together = PrunedChannels().outgoing(x, moment())
    assert torch.equal(together, torch.cat([PrunedChannels().outgoing(row[None], moment()) for row in x]))


def test_gradients_come_back_for_what_left_alone_and_it_is_told_how_much_that_was():
    x, now = torch.tensor([[3.0, 1.0, 2.0, 0.5]], requires_grad=True), moment()
    sent = PrunedChannels(share=0.5).outgoing(x, now)
    (gradient,) = torch.autograd.grad(sent.sum(), x)
    assert gradient.tolist() == [[0.0, 1.0, 0.0, 1.0]]
    assert now.facts.read()["share of squares sent"] == pytest.approx(1.25 / 14.25)


def test_random_channels_are_others_in_each_step():
    x = torch.ones(20, 10)
    one, again, other = (PrunedChannels(by="random").outgoing(x, moment(step)) for step in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_settings_are_checked_and_a_single_channel_is_refused():
    assert defence_of("prune:0.25,random") == PrunedChannels(share=0.25, by="random")
    for share in (0, 1, "half", -1):
        with pytest.raises(StudyError, match="prune: share cannot be that"):
            PrunedChannels(share=share)
    with pytest.raises(StudyError, match=r"prune: by cannot be that.*'strongest' or 'random'"):
        PrunedChannels(by="weakest")
    place = Place(cut="a->b", shape=(4, 2), raw=("x",), labels="", sent_labels=False, gradient=True)
    assert PrunedChannels().misfit(place) is None
    assert PrunedChannels().misfit(dataclasses.replace(place, shape=None)) is None
    assert "no two channels" in PrunedChannels().misfit(dataclasses.replace(place, shape=(1, 28, 28)))
