"""Many clients, drawn on from fewer: sums exactly, times nearly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import cutlayer as cl
from cutlayer.planner import Line, World, scale
from cutlayer.planner.federated import rival
from cutlayer.planner.offers import offer
from cutlayer.planner.places import Network, Place
from cutlayer.planner.setting import Setting, schedule_of


@pytest.mark.parametrize("word", ["round_robin", "splitfed1", "parallel"])
def test_a_larger_crowd_costs_what_smaller_ones_say(word, monkeypatch):
    network = Network(cl.networks.mlp((16, 8, 6, 4)), torch.zeros(2, 16))
    world = World(client_flops=1e6, server_flops=1e7, line=Line(mbit=1.0, latency_ms=5.0))
    setting = Setting(world=world, clients=90, rows=90 * 20, test_rows=90 * 3, batch_size=10, epochs=3)

    def work_out(given):
        return offer(network, Place("vanilla", ("linear1",)), word, schedule_of(word), given)

    whole = scale.at_scale(work_out, setting)
    monkeypatch.setattr(scale, "MOST_CLIENTS", 40)
    drawn = scale.at_scale(work_out, setting)
    assert drawn.server_flops == whole.server_flops and drawn.client_flops == whole.client_flops
    assert drawn.total_bytes == pytest.approx(whole.total_bytes, rel=2e-3)  # longer names in some frames
    assert drawn.seconds == pytest.approx(whole.seconds, rel=0.05)
    assert sum(drawn.phases.values()) == pytest.approx(drawn.total_bytes, rel=1e-6)


@pytest.mark.parametrize(("word", "spread", "most"), [
    ("round_robin", 0.5, 0.1), ("splitfed3", 0.5, 0.15), ("parallel", 0.0, 0.02), ("parallel", 0.5, 0.2),
])  # fmt: skip
def test_times_of_clients_that_differ_and_of_servers_that_grow_busy(word, spread, most, monkeypatch):
    network = Network(cl.networks.mlp((16, 8, 6, 4)), torch.zeros(2, 16))
    line, servers = Line(mbit=0.1, latency_ms=5.0), Line(mbit=60.0, latency_ms=1.0)
    world = World(client_flops=1e6, server_flops=1e10, line=line, server_line=servers, spread=spread)
    setting = Setting(world=world, clients=1600, rows=1600 * 20, batch_size=10)

    def work_out(given):
        return offer(network, Place("vanilla", ("linear1",)), word, schedule_of(word), given)

    whole = scale.at_scale(work_out, setting)
    monkeypatch.setattr(scale, "MOST_CLIENTS", 400)
    assert scale.at_scale(work_out, setting).seconds == pytest.approx(whole.seconds, rel=most)


def test_a_crowd_that_stands_for_more_has_the_slowest_of_all_in_it():
    alone = World(client_flops=1.0, server_flops=1.0, spread=0.5)
    everybody = alone.factors(map(str, range(5000))).values()
    for count in (200, 400):
        few = list(replace(alone, of=5000).factors(map(str, range(count))).values())
        assert set(few) <= set(everybody)
        for kind in (0, 1):
            assert min(one[kind] for one in few) == min(one[kind] for one in everybody)
    assert set(replace(alone, of=5000).factors(map(str, range(200))).values()) <= set(few)
    assert set(replace(alone, of=5).factors("ab")) == {"a", "b"}
    assert alone.factors("ab") == replace(alone, of=2).factors("ab")


def test_slower_clients_never_make_a_million_of_them_faster():
    network = Network(cl.networks.mlp((16, 8, 6, 4)), torch.zeros(2, 16))
    line = Line(mbit=1.0, latency_ms=5.0)
    times = []
    for spread in (0.0, 0.5):
        world = World(client_flops=1e6, server_flops=1e9, line=line, spread=spread)
        setting = Setting(world=world, clients=1_000_000, rows=20_000_000, batch_size=10)
        times.append(scale.at_scale(lambda given: rival(network, "fedavg", given), setting).seconds)
    assert times[1] >= 0.99 * times[0]
