"""How long a program takes: by FLOPs, with clients that differ."""

from __future__ import annotations

import pytest
import torch

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.planner import Forecast, Line, World
from cutlayer.planner.events import Timeline
from cutlayer.planner.pace import ByFlops, clients_of, moves

FAR = Line(mbit=8.0, latency_ms=50.0, overhead=1.0)


def study(schedule=None, clients=3, **settings):
    example = {"x": torch.zeros(2, 16), "y": torch.zeros(2, dtype=torch.long)}
    graph = cl.vanilla(cl.networks.mlp((16, 8, 4)), "linear1", clients=clients, example=example)
    given = {"optimizer": cl.optim.SGD(lr=0.1), "batch_size": 10, **settings}
    return cl.Study(graph=graph, schedule=schedule or cl.RoundRobin(), **given)


def length(made, world, rows=20):
    forecast = Forecast(made, [{"train": rows}] * len(made.graph.turns))
    timeline = Timeline(world.lines(made.graph))
    for items in forecast.epochs():
        timeline.perform(moves(items, ByFlops(world, made.graph)))
    return timeline


def test_one_step_takes_what_its_parts_take():
    made = study(clients=1)
    world = World(client_flops=1e3, server_flops=1e4, line=FAR, server_line=Line(mbit=1e6, latency_ms=0.0))
    forecast = Forecast(made, [{"train": 10}])
    priced = [one for items in forecast.epochs() for item in items for one in item]
    client = sum(p.cost.flops for p in priced if p.action.party == "client-0") / 1e3
    server = sum(p.cost.flops for p in priced if p.action.party == "server") / 1e4
    sent = sum(p.cost.sent_bytes for p in priced) / 1e6
    assert length(made, world, rows=10).end == pytest.approx(client + server + sent + 2 * 0.05, rel=1e-3)


def test_side_by_side_is_quicker_than_in_turns_and_the_slowest_decides():
    world = World(client_flops=1e4, server_flops=1e9, line=FAR)
    turns, lanes = length(study(), world).end, length(study(cl.SplitFed(version=3)), world).end
    assert 2.5 < turns / lanes < 3.5  # three clients
    slow = World(client_flops=1e4, server_flops=1e9, line=FAR, spread=1.0, seed=3)
    factors = slow.factors(clients_of(study().graph))
    slowest = min(factors.values(), key=lambda pair: pair[0])
    found = length(study(cl.SplitFed(version=3)), slow)
    assert found.end > lanes if slowest[0] < 1 else found.end <= lanes
    assert length(study(cl.SplitFed(version=3)), slow).clock == found.clock  # the same draw every time


def test_thousands_of_clients_are_gone_through_in_seconds():
    made = study(cl.SplitFed(version=3, at_once=2000), clients=2000)
    found = length(made, World(client_flops=1e9, server_flops=1e12, line=FAR, spread=0.5), rows=10)
    assert len(found.clock) == 2001 and found.end > 0.1


@pytest.mark.parametrize("wrong", [{"client_flops": 0.0}, {"server_flops": float("nan")}, {"spread": -0.1}])
def test_worlds_that_cannot_be_are_refused(wrong):
    with pytest.raises(StudyError):
        World(**{"client_flops": 1.0, "server_flops": 1.0, **wrong})
