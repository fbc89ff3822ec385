"""The inputs' gradient first, the weights' later: the same bits as in one go, or not at all."""

import pytest
import torch
from putting_off import weights_put_off
from torch import nn

import cutlayer as cl
from cutlayer.runtime.early import inputs_first


class Residual(nn.Module):
    """Convolutions, normalisations and a linear layer, with ways around them."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.batch, self.layer, self.linear = nn.BatchNorm2d(8), nn.LayerNorm(8), nn.Linear(8, 8)
        self.out = nn.Linear(8, 10)

    def forward(self, x):
        x = x + self.two(torch.relu(self.batch(self.one(x))))
        x = self.layer(x.flatten(2).transpose(1, 2))
        return self.out(nn.functional.dropout(x + self.linear(x), 0.3).mean(1))


class Shared(nn.Module):
    """One layer, used twice."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return self.linear(torch.relu(self.linear(x)))


class Beside(nn.Module):
    """A weight that is not on the way to the input."""

    def __init__(self):
        super().__init__()
        self.linear, self.shift = nn.Linear(8, 8), nn.Parameter(torch.randn(8))

    def forward(self, x):
        return self.linear(x) + torch.tanh(self.shift * 2)


def vgg_tail():
    net = cl.networks.vgg11(10)
    layers = list(net.features.children())[3:]
    return nn.Sequential(*layers, *[child for name, child in net.named_children() if name != "features"])


def attention():
    return nn.Sequential(
        nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), nn.Flatten(), nn.Linear(144, 10)
    )


POSSIBLE = {
    "vgg": (vgg_tail, (8, 64, 16, 16)),
    "residual": (Residual, (6, 8, 8, 8)),
    "attention": (attention, (4, 9, 16)),
    "weight normalised": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), (5, 8)),
    "a weight beside the way": (Beside, (5, 8)),
}


def gradients(module, x, early):
    torch.manual_seed(1)
    module.zero_grad()
    leaf = x.clone().requires_grad_()
    loss = (module(leaf) ** 2).mean()
    if early:
        owed = inputs_first([loss], [torch.ones_like(loss)], [leaf], module.parameters())
        assert owed is not None
        assert all(weight.grad is None for weight in module.parameters())
        owed()
    else:
        loss.backward()
    return [leaf.grad, *(weight.grad for weight in module.parameters())]


@pytest.mark.parametrize("name", POSSIBLE)
def test_the_bits_are_those_of_one_go(name):
    make, shape = POSSIBLE[name]
    torch.manual_seed(0)
    module, x = make(), torch.randn(shape)
    whole, parts = gradients(module, x, early=False), gradients(module, x, early=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_gradients_are_added_to_those_that_are_there():
    module, x = nn.Linear(8, 8), torch.randn(3, 8)
    for early in (False, True):
        module.zero_grad()
        for scale in (1, 3):
            leaf = (x * scale).requires_grad_()
            loss = module(leaf).sum()
            if early:
                inputs_first([loss], [torch.ones_like(loss)], [leaf], module.parameters())()
            else:
                loss.backward()
        found = module.weight.grad.clone()
        if early:
            assert torch.equal(found, before)  # noqa: F821
        before = found  # noqa: F841


@pytest.mark.parametrize("make", [Shared, lambda: nn.GRU(8, 8)])
def test_a_weight_that_several_layers_use_is_left_to_one_go(make):
    module, leaf = make(), torch.randn(4, 8, requires_grad=True)
    out = module(leaf)
    loss = (out[0] if isinstance(out, tuple) else out).sum()
    assert inputs_first([loss], [torch.ones_like(loss)], [leaf], module.parameters()) is None
    assert leaf.grad is None
    loss.backward()  # nothing was used up
    assert leaf.grad is not None


def test_a_study_has_the_same_bits_when_parties_put_off_what_nobody_waits_for(monkeypatch):
    people = cl.data.digits().split_rows(2)
    net = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10)
    )
    graph = cl.u_shaped(net, cuts=("1", "4"), clients=people.parties)
    study = cl.Study(graph=graph, optimizer=cl.optim.Adam(lr=0.01), batch_size=100, epochs=1)
    at_once = study.simulate(people).weights()
    put_off = weights_put_off(monkeypatch)
    later = study.simulate(people).weights()
    assert len(put_off) > 10 and None not in put_off
    for segment, tensors in at_once.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, later[segment][name]), (segment, name)
