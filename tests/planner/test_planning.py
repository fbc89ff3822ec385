"""Plans: every cut, the best within limits, what is said of it, and what stands beside it."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from metered import counted
from torch import nn

import cutlayer as cl
from cutlayer.errors import CutError, StudyError
from cutlayer.metering.events import Computed, Traffic
from cutlayer.planner import Forecast, Limits, Line
from cutlayer.planner.choosing import GOALS
from cutlayer.planner.offers import Offer
from cutlayer.planner.places import Network, Place
from cutlayer.planner.setting import LOCAL, schedule_of

GIVEN = {"clients": 3, "rows": 90, "test_rows": 30, "batch_size": 16, "epochs": 3, "client_flops": 1e9,
         "server_flops": 1e10}  # fmt: skip

PEOPLE = cl.data.arrays(
    torch.rand(90, 1, 28, 28), torch.zeros(90, dtype=torch.long),
    torch.rand(30, 1, 28, 28), torch.zeros(30, dtype=torch.long),
).split_rows(3)  # fmt: skip


def lenet(seed=0):
    return cl.networks.lenet(seed=seed)


@pytest.fixture(scope="module")
def plan():
    rows = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return cl.plan(lenet(), rows, **GIVEN)


def test_every_cut_is_there_with_all_ways_at_the_best(plan):
    first = [o.cut for o in plan.offers if o.schedule == "round_robin" and o.method == "vanilla"]
    assert first[:4] == ["conv1", "relu1", "pool1", "conv2"] and len(first) == len(set(first))
    at = {
        (o.method, o.schedule) for o in plan.offers if o.cut.split(" + ")[0] == plan.best.cut.split(" + ")[0]
    }
    words = {"round_robin", "splitfed1", "splitfed2", "splitfed3", "parallel"}
    assert at >= {(m, w) for m in ("vanilla", "multi_hop") for w in (*words, "local_loss")}
    assert {o.method for o in plan.rivals} == {"fedavg", "large_batch"}


def test_an_offer_is_what_a_run_of_it_counts(plan):
    one = next(o for o in plan.offers if o.cut == "pool1" and o.method == "vanilla")
    graph = cl.vanilla(lenet(), "pool1", clients=PEOPLE)
    study = cl.Study(
        graph=graph, optimizer=cl.optim.SGD(lr=0.1, momentum=0.9), batch_size=16, epochs=3, metrics=["loss"]
    )
    events = study.simulate(PEOPLE).events
    traffic = [e for e in events if isinstance(e, Traffic)]
    flops = [e for e in events if isinstance(e, Computed) and e.phase == "training"]
    names = [f"client-{i}" for i in range(3)]
    assert one.total_bytes == sum(e.frame_bytes for e in traffic)
    assert one.client_sent_bytes == max(sum(e.frame_bytes for e in traffic if e.sender == n) for n in names)
    assert one.client_flops == max(sum(e.flops for e in flops if e.party == n) for n in names)
    assert one.server_flops == sum(e.flops for e in flops if e.party == "server")
    assert one.client_parameters == sum(p.numel() for p in graph.segments["head"].module.parameters())


@pytest.mark.parametrize("topology", ["vanilla", "multi_hop"])
def test_a_plan_with_a_local_loss_is_what_a_run_of_it_counts_event_by_event(plan, topology):
    network, schedule = Network(lenet(), torch.rand(2, 1, 28, 28)), schedule_of(LOCAL)
    one = next(o for o in plan.offers if (o.method, o.schedule) == (topology, LOCAL))
    place, setting = Place(topology, tuple(one.cut.split(" + "))), plan.setting
    hollow, real = (network.graph(place, 3, real=real, alone=True) for real in (False, True))
    forecast = Forecast(setting.study(hollow, schedule), setting.dealt)
    study = dataclasses.replace(setting.study(real, schedule), metrics=["loss"])
    events = study.simulate(PEOPLE).events
    found, foretold = counted(events), counted(forecast.events())
    assert found == foretold
    assert not any(
        e.content == "gradient" and e.receiver.startswith("client") for e in events if isinstance(e, Traffic)
    )
    traffic = [e for e in events if isinstance(e, Traffic)]
    flops = [
        e.flops for e in events if isinstance(e, Computed) and (e.party, e.phase) == ("client-0", "training")
    ]
    assert (one.total_bytes, one.client_flops) == (sum(e.frame_bytes for e in traffic), sum(flops))
    sent = sum(e.frame_bytes for e in traffic if e.sender == "client-0")
    assert one.client_sent_bytes == sent > one.client_received_bytes


def test_the_best_keeps_the_limits_and_has_the_least_of_what_is_wanted():
    limits = Limits(client_flops=60e6)
    least = cl.plan(
        lenet(), torch.rand(2, 1, 28, 28), **GIVEN, goal="bytes", limits=limits, schedules=["round_robin"]
    )
    kept = [o for o in least.offers if o.client_flops <= 60e6]
    assert 0 < len(kept) < len(least.offers)
    assert least.best.client_bytes == min(o.client_bytes for o in kept)
    assert "60.0 MFLOP" in least.text and least.best.cut in least.text


def test_no_way_within_the_limits_says_how_near_one_comes():
    limits = Limits(client_bytes=10, seconds=1e9)
    none = cl.plan(lenet(), torch.rand(2, 1, 28, 28), **GIVEN, limits=limits, schedules=["round_robin"])
    assert none.best is None and "at most 10 B is allowed" in none.text
    assert "x" in none.table().column("")


def test_leakage_is_less_behind_more_layers_and_0_of_what_does_not_depend_on_rows(plan):
    found = {o.cut: o.leakage for o in plan.offers if o.method == "vanilla"}
    assert 1.0 >= found["conv1"] > found["fc2"] > 0
    few = cl.plan(lenet(), torch.rand(2, 1, 28, 28), **GIVEN, schedules=["round_robin"])
    assert all(math.isnan(o.leakage) for o in few.offers)


def test_json_holds_everything_and_is_read_back(plan):
    read = json.loads(plan.json())
    assert read["advised"]["cut"] == plan.best.cut and len(read["offers"]) == len(plan.offers)
    assert read["setting"]["world"]["client_flops"] == 1e9 and read["others"][0]["leakage"] is None


def test_plots_are_drawn_as_svg_and_png(plan, tmp_path):
    files = plan.plot(tmp_path)
    assert [f.name for f in files] == ["trade-off.svg", "trade-off.png"]
    assert files[0].read_text().startswith("<?xml") and files[1].read_bytes().startswith(b"\x89PNG")


def test_rivals_move_the_whole_network_each_round(plan):
    fedavg, large = plan.rivals
    weights = sum(p.numel() for p in lenet().parameters())
    assert fedavg.client_parameters == weights
    assert 1.0 < fedavg.client_sent_bytes / (3 * 4 * weights) < 1.01  # three rounds of 4 bytes a weight
    assert large.client_sent_bytes == fedavg.client_sent_bytes * 2  # two steps an epoch
    assert fedavg.client_flops == large.client_flops > plan.best.client_flops
    seldom = cl.plan(lenet(), torch.rand(2, 1, 28, 28), **GIVEN, local_epochs=3, schedules=["round_robin"])
    assert seldom.rivals[0].client_sent_bytes * 3 == fedavg.client_sent_bytes


def test_time_follows_lines_and_machines():
    def seconds(**changed):
        made = cl.plan(
            cl.networks.mlp((64, 32, 10)),
            torch.rand(2, 64),
            **{**GIVEN, **changed},
            schedules=["round_robin"],
        )
        return next(o.seconds for o in made.offers if o.cut == "activation1")

    usual = seconds()
    assert seconds(line=Line(mbit=1.0)) > usual > seconds(line=Line(mbit=1000.0, latency_ms=0.0))
    assert seconds(client_flops=1e6) > usual
    assert seconds(spread=1.0) == seconds(spread=1.0) != usual  # drawn from a seed


def test_codecs_and_labels_elsewhere_save_bytes():
    def sent(**changed):
        made = cl.plan(lenet(), torch.rand(2, 1, 28, 28), **GIVEN, **changed, schedules=["round_robin"])
        return next(o for o in made.offers if o.cut == "conv1").client_sent_bytes

    usual = sent()
    assert sent(codecs="int8") < usual / 3
    assert 0 < usual - sent(share_labels=False) <= 3 * (30 + 10) * 8


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"goal": "tme"}, "time"),
        ({"schedules": ["splitfed"]}, "splitfed3"),
        ({"topologies": ["u-shaped"]}, "u_shaped"),
        ({"rows": 2}, "2 rows, 3 clients"),
        ({"client_flops": -1.0}, "client_flops"),
        ({"epochs": 0}, "epochs"),
        ({"goal": "leakage"}, "8 rows"),
    ],
)
def test_what_cannot_be_planned_is_named(wrong, named):
    with pytest.raises(StudyError, match=named):
        cl.plan(lenet(), torch.rand(2, 1, 28, 28), **{**GIVEN, **wrong})


def test_limits_are_above_0():
    with pytest.raises(StudyError, match="client_bytes"):
        Limits(client_bytes=0)


def test_a_network_with_no_place_to_cut_is_refused():
    with pytest.raises(CutError, match="cut nowhere"):
        cl.plan(nn.Linear(3, 2), torch.zeros(2, 3), client_flops=1e9, server_flops=1e9)


def test_one_client_needs_no_schedule_for_several():
    alone = cl.plan(lenet(), torch.rand(2, 1, 28, 28), **{**GIVEN, "clients": 1})
    assert {o.schedule for o in alone.offers} == {"round_robin"}
    assert all(isinstance(o, Offer) and "hand-over" not in o.phases for o in alone.offers)


def test_speeds_are_measured_where_they_are_not_given():
    made = cl.plan(
        cl.networks.mlp((16, 8, 4)), torch.rand(2, 16), clients=1, rows=10, schedules=["round_robin"]
    )
    world = made.setting.world
    assert world.server_flops == 50 * world.client_flops > 0


@pytest.mark.parametrize("goal", ["time", "bytes", "flops"])
def test_the_advice_is_the_best_of_its_cut_and_the_best_cut_of_its_way(goal):
    network = cl.networks.lenet()
    given = {"clients": 4, "rows": 400, "client_flops": 1e9, "server_flops": 1e10, "goal": goal}
    made = cl.plan(network, torch.rand(2, 1, 28, 28), **given)
    whole = cl.plan(network, torch.rand(2, 1, 28, 28), **given, every=True)
    number = GOALS[goal][0]
    beside = [o for o in whole.offers if o.first_cut == made.best.first_cut]
    same = [o for o in whole.offers if (o.method, o.schedule) == (made.best.method, made.best.schedule)]
    assert getattr(made.best, number) == min(getattr(o, number) for o in (*beside, *same))
    cuts = [
        o.first_cut for o in made.offers if (o.method, o.schedule) == (made.best.method, made.best.schedule)
    ]
    assert cuts == [o.first_cut for o in same]
    keys = [(o.method, o.schedule, o.cut) for o in made.offers]
    assert len(keys) == len(set(keys)) < len(whole.offers)
    assert made.best.server_forward_flops < made.best.server_flops
    row = made.record()["advised"]
    assert row["epoch_up_bytes"] + row["epoch_down_bytes"] == row["epoch_bytes"]


def test_bytes_of_a_row_are_those_of_a_row_where_clients_have_less_than_a_batch():
    made = [
        cl.plan(cl.networks.lenet(), torch.rand(2, 1, 28, 28), clients=2, rows=rows, batch_size=size, client_flops=1e9,
                server_flops=1e10, schedules=["round_robin"]).offers[0]
        for rows, size in ((20, 64), (20, 10))
    ]  # fmt: skip
    assert made[0].batch_size == made[1].batch_size == 10
    assert made[0].sample_up_bytes == made[1].sample_up_bytes > 0
