"""What a plan says of federated averaging and large-batch SGD is what the meters of these baselines count."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.baselines import FedAvg, LargeBatch, train
from cutlayer.metering.events import Computed, Traffic
from cutlayer.planner import World
from cutlayer.planner.federated import rival
from cutlayer.planner.places import Network, Place
from cutlayer.planner.setting import Setting

WORLD = World(client_flops=1e9, server_flops=1e10)


def with_norm():
    norm = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    norm[0].bias.requires_grad_(False)  # goes down, and no gradient of it comes back
    return norm


NETWORKS = {
    "mlp": (lambda: cl.networks.mlp((12, 9, 7, 10)), "activation1", torch.rand(73, 12)),
    "lenet": (cl.networks.lenet, "pool1", torch.rand(37, 1, 28, 28)),
    "with a normalisation": (with_norm, "2", torch.rand(37, 1, 8, 8)),
    "transformer": (
        lambda: cl.networks.transformer(20, classes=10, width=8, depth=1, heads=2, length=6), "embed",
        torch.randint(20, (37, 6)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("method", ["fedavg", "large_batch"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_rival_is_what_a_run_of_it_counts(name, method):
    make, cut, x = NETWORKS[name]
    y = torch.arange(len(x)) % 10
    people = cl.data.arrays(x[:-8], y[:-8], x[-8:], y[-8:]).split_rows(
        3
    )  # not evenly, so that batches differ
    graph = cl.vanilla(make(), cut, clients=people)
    sgd = cl.optim.SGD(lr=0.01, momentum=0.9)
    study = cl.Study(graph=graph, optimizer=sgd, batch_size=5, epochs=4, metrics=["loss"])
    baseline = LargeBatch(rounds=4) if method == "large_batch" else FedAvg(rounds=2, local_epochs=2)
    events = train(study, people, baseline).events
    setting = Setting(
        world=WORLD, clients=3, rows=len(x) - 8, test_rows=8, batch_size=5, epochs=4, local_epochs=2, optimizer=sgd
    )  # fmt: skip
    told = rival(Network(make(), x[:4]), method, setting, Place("vanilla", (cut,)))
    sent, client = [e for e in events if isinstance(e, Traffic)], "client-0"
    worked = [e for e in events if isinstance(e, Computed) and e.party == client and e.phase == "training"]
    assert told.client_sent_bytes == sum(e.frame_bytes for e in sent if e.sender == client)
    assert told.client_received_bytes == sum(e.frame_bytes for e in sent if e.receiver == client)
    assert told.total_bytes == sum(e.frame_bytes for e in sent)
    assert told.phases["evaluation"] == sum(e.frame_bytes for e in sent if e.phase == "evaluation")
    assert told.client_flops == sum(e.flops for e in worked) > 0
    assert told.client_forward_flops == sum(e.flops for e in worked if e.direction == "forward")


def test_time_is_that_of_lines_and_machines():
    network = Network(cl.networks.mlp((12, 9, 7, 10)), torch.rand(4, 12))
    setting = Setting(world=WORLD, clients=2, rows=20, batch_size=5, epochs=3)
    usual, measured = (
        rival(network, "fedavg", one).seconds
        for one in (setting, Setting(world=WORLD, clients=2, rows=20, test_rows=4, batch_size=5, epochs=3))
    )
    line = WORLD.line
    assert usual == pytest.approx(3 * 2 * line.latency_s, rel=0.05) and measured == pytest.approx(
        1.5 * usual, rel=0.05
    )
