"""Many clients, drawn on from fewer: sums exactly, times nearly."""

from __future__ import annotations

import pytest
import torch

import cutlayer as cl
from cutlayer.planner import Line, World, scale
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
