"""Split equals uncut, bit for bit (the correctness lemma of Gupta & Raskar 2018), for every configuration.

Each study is compared twice: with the central twin, and with a loop in plain PyTorch over the model as it was
before it was cut. Here are the configurations that cut one model: vanilla, U-shaped, multi-hop. They equal
the model itself, trained on all clients' rows in the order of their turns.
"""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from small_studies import MOMENTUM, assert_same_weights, batches, moved, plain_loop, pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.data import Deal
from cutlayer.graph.networks import ResidualBlock
from cutlayer.seeds import at_step, stream


def net():
    return cl.networks.mlp((6, 8, 7, 3), seed=1)


def prove(study, holdings, uncut, x, y, *, optimizer=lambda p: torch.optim.SGD(p, **MOMENTUM), **plain):
    """Simulate, then compare with the twin and with the plain loop over ``uncut``; return the run."""
    start = copy.deepcopy(uncut.state_dict())
    run = study.simulate(holdings)
    assert run.equals(study.central(holdings))
    plain_loop(uncut, batches(study, holdings), x, y, optimizer, **plain)
    assert moved(uncut, start)
    assert_same_weights(run, uncut)
    return run


@cache
def three_clients():
    """Three clients of a vanilla graph, and the pooled rows; simulations leave a graph as it is."""
    source, x, y = pooled()
    people = source.split_rows(3)
    return people, cl.vanilla(net(), "linear2", clients=people), x, y


# Chains


@pytest.mark.parametrize("clients", [1, 3, 10])
@pytest.mark.parametrize("handover", ["peer", "server"])
@pytest.mark.parametrize("turn", [0, 2])
def test_vanilla_round_robin(clients, handover, turn):
    source, x, y = pooled(53)
    people = source.split_rows(clients, by="dirichlet", alpha=0.7, seed=2)  # uneven
    schedule = cl.RoundRobin(handover=handover, turn=turn)
    study = study_of(cl.vanilla(net(), "linear2", clients=people), schedule=schedule)
    prove(study, people, net(), x, y)


def test_labels_may_be_at_the_server_from_the_start():
    source, x, y = pooled()
    people = source.split({"client": slice(0, 6)}, Deal(n=3))
    prove(study_of(cl.vanilla(net(), "linear1", clients=people)), people, net(), x, y)


@pytest.mark.parametrize("handover", ["peer", "server"])
def test_u_shaped(handover):
    source, x, y = pooled()
    people = source.split_rows(3)
    graph = cl.u_shaped(net(), ("linear1", "activation2"), clients=people)
    prove(study_of(graph, schedule=cl.RoundRobin(handover=handover)), people, net(), x, y)


def test_multi_hop():
    source, x, y = pooled()
    people = source.split_rows(2)
    graph = cl.multi_hop(net(), ("linear1", "activation1", "linear2"), clients=people)
    prove(study_of(graph), people, net(), x, y)


def test_many_steps():
    source, x, y = pooled(64)
    people = source.split_rows(2)
    study = study_of(cl.vanilla(net(), 0.5, clients=people), batch_size=4, epochs=8)
    run = prove(study, people, net(), x, y)
    assert sum(e.steps for e in run.events if e.kind == "epoch_ended") == 128


def test_without_shuffling_and_with_the_last_batch_dropped():
    source, x, y = pooled(23)
    people = source.split_rows(2)
    study = study_of(cl.vanilla(net(), "linear2", clients=people), shuffle=False, drop_last=True)
    assert {len(rows) for _, rows in batches(study, people)} == {5}
    prove(study, people, net(), x, y)


# Optimizers


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", {"lr": 0.05}),
        ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        ("Adam", {"lr": 0.01}),
        ("Adam", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}),
        ("AdamW", {"lr": 0.01, "betas": (0.8, 0.99)}),
        ("NAdam", {"lr": 0.01}),
        ("RMSprop", {"lr": 0.01, "centered": True, "momentum": 0.5}),
        ("Adagrad", {"lr": 0.05}),
    ],
)
def test_optimizers_are_handed_over_with_all_they_keep(name, settings):
    people, graph, x, y = three_clients()
    study = study_of(graph, optimizer=cl.optim.optimizer(name, **settings), schedule=cl.RoundRobin(turn=1))
    prove(study, people, net(), x, y, optimizer=lambda p: getattr(torch.optim, name)(p, **settings))


@pytest.mark.parametrize(
    ("name", "settings", "every"),
    [
        ("StepLR", {"step_size": 1, "gamma": 0.3}, "epoch"),
        ("CosineAnnealingLR", {"T_max": 3}, "epoch"),
        ("ExponentialLR", {"gamma": 0.9}, "step"),
        ("OneCycleLR", {"max_lr": 0.2, "total_steps": 40}, "step"),
        ("CosineAnnealingWarmRestarts", {"T_0": 4}, "step"),
    ],
)
def test_learning_rate_schedules_go_on_where_the_state_goes(name, settings, every):
    people, graph, x, y = three_clients()
    spec = cl.optim.SGD(**MOMENTUM, schedule=cl.optim.lr_schedule(name, **settings), every=every)
    study = study_of(graph, optimizer=spec, epochs=4)
    schedule = getattr(torch.optim.lr_scheduler, name)
    prove(study, people, net(), x, y, make_schedule=lambda o: schedule(o, **settings), every=every)


def test_each_segment_may_have_an_optimizer_of_its_own():
    source, x, y = pooled()
    people = source.split_rows(3)
    graph = cl.u_shaped(net(), ("linear1", "linear2"), clients=people)
    specs = {"head": cl.optim.SGD(lr=0.2), "body": cl.optim.Adam(lr=0.02), "tail": cl.optim.SGD(**MOMENTUM)}
    study = study_of(graph, optimizer=specs)

    class Three:
        def __init__(self, parameters):
            one, two, three = (parameters[i : i + 2] for i in (0, 2, 4))
            self.parts = [
                torch.optim.SGD(one, lr=0.2),
                torch.optim.Adam(two, lr=0.02),
                torch.optim.SGD(three, **MOMENTUM),
            ]

        def zero_grad(self):
            for part in self.parts:
                part.zero_grad()

        def step(self):
            for part in self.parts:
                part.step()

    prove(study, people, net(), x, y, optimizer=Three)


# Networks


def test_frozen_layers_stay_and_pass_gradients_on():
    source, x, y = pooled()
    people = source.split_rows(2)
    model = net()
    model.linear2.requires_grad_(False)
    frozen = model.linear2.weight.clone()
    study = study_of(cl.u_shaped(model, ("linear1", "linear2"), clients=people))
    run = prove(study, people, copy.deepcopy(model), x, y)
    assert torch.equal(run.weights()["body"]["linear2.weight"], frozen)


def test_a_frozen_head_gets_no_gradient_at_all():
    source, x, y = pooled()
    people = source.split_rows(2)
    model = net()
    model.linear1.requires_grad_(False)
    study = study_of(cl.vanilla(model, "linear1", clients=people))
    run = prove(study, people, copy.deepcopy(model), x, y)
    assert not any(e.content == "gradient" for e in run.events if e.kind == "traffic")


def normalised():
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 7), nn.BatchNorm1d(7), nn.Linear(7, 3)
    )


def test_batch_norm_and_its_running_statistics():
    source, x, y = pooled(24)
    people = source.split_rows(3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = normalised()
    study = study_of(cl.vanilla(model, "2", clients=people), batch_size=3, schedule=cl.RoundRobin(turn=1))
    run = prove(study, people, copy.deepcopy(model), x, y)
    assert run.weights()["head"]["1.num_batches_tracked"] == len(batches(study, people))


def test_dropout_draws_from_the_stream_of_its_segment_and_step():
    source, x, y = pooled()
    people = source.split_rows(2)
    model = cl.networks.mlp((6, 8, 7, 3), dropout=0.4, seed=1)
    study = study_of(cl.vanilla(model, "linear2", clients=people))
    uncut, now = copy.deepcopy(model), [0]
    for segment, first in (("head", uncut.flatten), ("top", uncut.activation2)):
        seed = stream(study.seed, "segment", segment)
        first.register_forward_pre_hook(
            lambda *_, seed=seed: torch.manual_seed(at_step(seed, now[0])) and None
        )
    with torch.random.fork_rng():
        prove(study, people, uncut, x, y, before=lambda number: now.__setitem__(0, number))


class Residual(nn.Module):
    """A connection around ``wide``, ``act`` and ``back``: their input is still needed after them."""

    def __init__(self):
        super().__init__()
        self.start, self.wide, self.back, self.end = (
            nn.Linear(6, 8),
            nn.Linear(8, 12),
            nn.Linear(12, 8),
            nn.Linear(8, 3),
        )
        self.relu, self.act = nn.ReLU(), nn.Tanh()

    def forward(self, x):
        h = self.relu(self.start(x))
        return self.end(h + self.back(self.act(self.wide(h))))


@pytest.mark.parametrize("cut", ["wide", "act", "back"])
def test_a_connection_around_the_cut_crosses_it_too(cut):
    source, x, y = pooled()
    people = source.split_rows(2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Residual()
    graph = cl.vanilla(model, cut, clients=people)
    crossing = next(c for c in graph.cuts if c.kind == "activation")
    assert len(crossing.tensors) == 2 and all(crossing.returns_gradient)
    prove(study_of(graph), people, copy.deepcopy(model), x, y)


def residual_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = [ResidualBlock(4, 4, 1, deep=False), ResidualBlock(4, 6, 2, deep=False)]
        return nn.Sequential(
            nn.Conv2d(2, 4, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
        )


def test_a_residual_network_of_convolutions():
    source, x, y = pooled(12, (2, 8, 8), test=0)
    people = source.split_rows(2)
    model = residual_network()
    study = study_of(cl.vanilla(model, "2.bn1", clients=people), batch_size=3)
    prove(study, people, copy.deepcopy(model), x, y)


@pytest.mark.long
@pytest.mark.parametrize("make", [cl.networks.resnet18, cl.networks.vgg11], ids=["resnet18", "vgg11"])
def test_networks_of_full_size(make):
    source, x, y = pooled(12, (3, 32, 32), test=0)
    people = source.split_rows(3)
    model = make(3)
    study = study_of(cl.vanilla(model, 0.3, clients=people), batch_size=4)
    prove(study, people, copy.deepcopy(model), x, y)


def test_a_u_net_with_connections_over_both_cuts():
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    people = cl.data.arrays(x, y).split_rows(2)
    model = cl.networks.unet(width=4, depth=1)
    study = study_of(cl.u_shaped(model, ("down1", "grow1"), clients=people), batch_size=4)
    prove(study, people, copy.deepcopy(model), x, y)


# What must make no difference


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    people, graph, *_ = three_clients()
    one, again, other = (study_of(graph, seed=seed).simulate(people) for seed in (1, 1, 2))
    assert one.equals(again) and not one.equals(other)


@pytest.mark.parametrize("change", ["handover", "evaluate", "check_finite", "folder"])
def test_what_does_not_train_makes_no_difference(change, tmp_path):
    source, *_ = pooled()
    people = source.split_rows(3)
    graph = cl.vanilla(cl.networks.mlp((6, 8, 7, 3), dropout=0.3), "linear2", clients=people)
    settings = {
        "handover": {"schedule": cl.RoundRobin(handover="server")}, "evaluate": {"evaluate": ()},
        "check_finite": {"check_finite": False}, "folder": {},
    }[change]  # fmt: skip
    run = study_of(graph).simulate(people)
    assert (
        study_of(graph, **settings).simulate(people, out=tmp_path if change == "folder" else None).equals(run)
    )


def test_training_leaves_the_global_random_state_alone():
    source, *_ = pooled()
    people = source.split_rows(2)
    study = study_of(cl.vanilla(cl.networks.mlp((6, 8, 7, 3), dropout=0.3), "linear2", clients=people))
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state()
    study.simulate(people).equals(study.central(people))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_study_can_be_simulated_twice():
    people, graph, *_ = three_clients()
    study = study_of(graph)
    assert study.simulate(people).equals(study.simulate(people))
