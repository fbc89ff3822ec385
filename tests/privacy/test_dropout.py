"""Dropout at the cut: which share leaves, what of its gradient comes back, and that it stays on after training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.metering.events import Defended
from cutlayer.privacy import Facts, Moment, Noise, defence_of
from cutlayer.privacy.dropout import ActivationDropout


def moment(step=0, *, training=True):
    return Moment(
        party="client", cut="head->server", step=step, training=training, fields={}, labels=None,
        noise=Noise(b"the sender's own secret", step), facts=Facts(), memory={},
    )  # fmt: skip


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_a_share_leaves_and_the_mean_stays(rate):
    now, rows = moment(), torch.full((50, 4, 30), 2.0, requires_grad=True)
    sent = ActivationDropout(rate=rate).outgoing(rows, now)
    left = sent != 0
    assert float(left.float().mean()) == pytest.approx(1 - rate, abs=0.03)
    assert now.facts.read()["share sent"] == pytest.approx(float(left.float().mean()))
    torch.testing.assert_close(sent[left], torch.full_like(sent[left], 2.0 / (1 - rate)))
    (gradient,) = torch.autograd.grad(sent.sum(), rows)
    torch.testing.assert_close(gradient, left.float() / (1 - rate))


def test_each_step_leaves_out_other_numbers_and_the_same_step_the_same():
    rows = torch.randn(8, 20)
    one, again, other = (ActivationDropout().outgoing(rows, moment(step)) for step in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_it_stays_on_when_training_is_over():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=generator)
    people = cl.data.arrays(x.numpy(), (x[:, 0] > 0).long().numpy()).hold_out(test=1 / 3, seed=0)
    people = people.split({"client": "*"}, labels="server")
    torch.manual_seed(1)
    graph = cl.vanilla(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)), "1", clients=people)
    sgd = cl.optim.SGD(lr=0.1)
    run = cl.Study(graph=graph, optimizer=sgd, batch_size=8, epochs=1, defences=["dropout:0.4"]).simulate(
        people
    )
    (noted,) = (e for e in run.events if isinstance(e, Defended) and e.defence == "dropout:rate=0.4")
    assert noted.facts["share sent"] == pytest.approx(0.6, abs=0.1)
    rows = x[:4]
    weights = {name.rpartition(".")[2]: value for name, value in run.weights()["head"].items()}
    hidden = torch.tanh(rows @ weights["weight"].T + weights["bias"])
    top = {
        name.rpartition(".")[2]: value
        for name, value in next(iter(v for k, v in run.weights().items() if k != "head")).items()
    }
    whole = hidden @ top["weight"].T + top["bias"]
    assert not torch.allclose(torch.as_tensor(run.predict(rows)), whole)


def test_settings_are_checked():
    assert defence_of("dropout:0.25") == ActivationDropout(rate=0.25)
    for rate in (0, 1, 1.5, -0.5, "half", float("nan")):
        with pytest.raises(StudyError, match="dropout: rate cannot be that"):
            ActivationDropout(rate=rate)
