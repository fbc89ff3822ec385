"""Learnt noise: its size stays, its directions follow the gradients, and so the loss suffers less."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.metering.events import Defended
from cutlayer.privacy import Facts, Moment, Noise, defence_of
from cutlayer.privacy.shredder import LearntNoise


def moment(memory, step=0, *, training=True):
    return Moment(
        party="client", cut="head->server", step=step, training=training, fields={}, labels=None,
        noise=Noise(b"the sender's own secret", step), facts=Facts(), memory=memory,
    )  # fmt: skip


def kinds(rows):
    """Return how many different rows there are, but for rounding."""
    flat = rows.flatten(1)
    apart = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist") > 1e-2
    return len(torch.unique(apart, dim=0))


def test_noise_has_the_stated_norm_and_is_one_of_a_few_tensors():
    torch.manual_seed(0)
    x, memory = torch.randn(64, 5, 4), {}
    now = moment(memory)
    noise = LearntNoise(scale=2.0, tensors=3).outgoing(x, now) - x
    norm = 2.0 * float(x.flatten(1).square().sum(1).mean().sqrt())
    torch.testing.assert_close(noise.flatten(1).norm(dim=1), torch.full((64,), norm))
    assert kinds(noise) == 3
    assert now.facts.read()["noise to activation, squared"] == pytest.approx(4.0, rel=1e-4)
    again = LearntNoise(scale=2.0, tensors=3).outgoing(x, moment(memory, 1)) - x
    assert not torch.allclose(noise, again)
    assert kinds(torch.cat([noise, again])) == 3


def test_training_turns_noise_to_where_the_loss_is_lower_and_keeps_its_norm():
    torch.manual_seed(0)
    x, memory, losses = torch.randn(32, 10), {}, []
    top, y = nn.Linear(10, 2), (x[:, 0] > 0).long()
    with torch.no_grad():
        top.weight.zero_()[:, 0] = torch.tensor([-4.0, 4.0])
    defence = LearntNoise(scale=3.0, tensors=2, rate=0.01)
    for step in range(150):
        leaf = x.clone().requires_grad_()
        sent = defence.outgoing(leaf, moment(memory, step))
        received = sent.detach().requires_grad_()
        loss = nn.functional.cross_entropy(top(received), y)
        (gradient,) = torch.autograd.grad(loss, received)
        (back,) = torch.autograd.grad(sent, leaf, gradient)
        assert torch.equal(back, gradient)
        losses.append(float(loss.detach()))
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    (kept,) = memory.values()
    norm = 3.0 * float(x.square().sum(1).mean().sqrt())
    torch.testing.assert_close(kept.norm(dim=1), torch.full((2,), norm), rtol=1e-4, atol=0)


def test_what_is_not_training_learns_nothing():
    x, memory = torch.randn(8, 10), {}
    LearntNoise().outgoing(x, moment(memory, training=False))
    (before,) = (value.clone() for value in memory.values())
    LearntNoise().outgoing(x, moment(memory, 1, training=False))
    (after,) = memory.values()
    assert torch.equal(before, after)


def test_in_a_run_noise_learns_from_the_gradients_that_come_back():
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    people = cl.data.arrays(x.numpy(), (x[:, 0] > 0).long().numpy()).split({"client": "*"}, labels="server")
    heads, told = [], []
    for rate in (1e-9, 0.05):
        torch.manual_seed(1)
        graph = cl.vanilla(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)), "1", clients=people)
        study = cl.Study(
            graph=graph, optimizer=cl.optim.SGD(lr=0.1), batch_size=8, epochs=2, evaluate=(),
            defences=[LearntNoise(rate=rate), "dropout:0.1"],
        )  # fmt: skip
        run = study.simulate(people)
        heads.append(run.weights()["head"])
        told += [e for e in run.events if isinstance(e, Defended) and e.defence.startswith("shredder")]
    assert any(not torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    assert told[0].facts["noise to activation, squared"] == pytest.approx(1.0, abs=0.3)


def test_settings_are_checked():
    assert defence_of("shredder:scale=2,tensors=4") == LearntNoise(scale=2, tensors=4)
    for settings in (
        {"scale": 0},
        {"rate": -1},
        {"tensors": 0},
        {"tensors": 1.5},
        {"scale": "much"},
        {"rate": True},
    ):
        with pytest.raises(StudyError, match=r"shredder: .* cannot be that"):
            LearntNoise(**settings)
