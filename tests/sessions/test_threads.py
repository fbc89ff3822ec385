"""How many threads a party computes with."""

import os

import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.sessions.threads import WORTH_FLOPS, default_threads


def study(network, cut, batch_size=64, x=None):
    x = torch.zeros(128, 784) if x is None else x
    people = cl.data.arrays(x, torch.zeros(len(x), dtype=torch.int64)).split_rows(1)
    graph = cl.vanilla(network, cut, clients=people)
    return cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), batch_size=batch_size)


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)


def test_small_segments_compute_in_one_thread(four_cores):
    small = study(cl.networks.mlp((784, 256, 10)), "activation1")
    assert [default_threads(small, party) for party in ("client-0", "server")] == [1, 1]


def test_large_segments_take_all_cores_each_party_by_its_own(four_cores):
    large = study(cl.networks.mlp((784, 2048, 10)), "activation1")  # 2 * 64 * 784 * 2048 = 205 million
    assert [default_threads(large, party) for party in ("client-0", "server")] == [4, 1]


def test_the_batch_counts(four_cores):
    few = study(cl.networks.mlp((784, 2048, 10)), "activation1", batch_size=16)
    assert default_threads(few, "client-0") == 1


def test_convolutions_count(four_cores):
    network = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Flatten(), nn.Linear(64 * 32 * 32, 10))
    made = study(network, "0", x=torch.zeros(64, 3, 32, 32))  # 2 * 64 * 1024 * 27 * 64 = 226 million
    assert WORTH_FLOPS < 226e6
    assert default_threads(made, "client-0") == 4


def test_what_cannot_be_counted_takes_one_thread(four_cores):
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(784, 4096)

        def forward(self, x):
            if len(x) == 1:
                raise ValueError("more than one row is needed")
            return self.inner(x)

    client = cl.Segment(name="client", role="client", module=Looks(), inputs=("x",))
    server = cl.Segment(name="server", role="server", module=nn.Linear(4096, 10), inputs=("client",))
    people = cl.data.arrays(torch.zeros(64, 784), torch.zeros(64, dtype=torch.int64)).split_rows(1)
    graph = cl.SplitGraph.over(
        people,
        segments=[client, server],
        losses=[cl.Loss(role="server", prediction="server", target="y", function=nn.CrossEntropyLoss())],
        shares=[cl.Share("y", "client", "server")],
    )
    made = cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1))
    assert default_threads(made, "client-0") == 1


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("2,1", 2), ("", 1), ("0", 1), ("many", 1)])
def test_the_environment_wins(four_cores, monkeypatch, given, expected):
    small = study(cl.networks.mlp((784, 16, 10)), "activation1")
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert default_threads(small, "server") == expected


def test_one_core_computes_in_one_thread(four_cores, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    large = study(cl.networks.mlp((784, 2048, 10)), "activation1")
    assert default_threads(large, "client-0") == 1


def test_counting_leaves_the_network_alone(four_cores):
    large = study(cl.networks.mlp((784, 2048, 10)), "activation1")
    module = large.graph.segments_of("client")[0].module
    before = {n: t.clone() for n, t in module.state_dict().items()}
    random = torch.random.get_rng_state()
    default_threads(large, "client-0")
    after = module.state_dict()
    assert all(torch.equal(t, after[n]) and t.device.type == "cpu" for n, t in before.items())
    assert torch.equal(random, torch.random.get_rng_state())


def test_nobody_computes_in_one_thread(four_cores):
    assert default_threads(study(cl.networks.mlp((784, 2048, 10)), "activation1"), "nobody") == 1
