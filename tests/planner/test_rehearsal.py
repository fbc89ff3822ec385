"""A rehearsal knows how long every kind of action takes, and leaves everything as it was."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.metering.events import Worked
from cutlayer.planner import Forecast
from cutlayer.planner.rehearsal import Kind, Rehearsed, rehearse
from cutlayer.planner.tariff import Cost, Priced
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.schedules import Op
from cutlayer.schedules.actions import Action

PEOPLE = cl.data.arrays(
    torch.rand(80, 16), torch.zeros(80, dtype=torch.long), torch.rand(20, 16), torch.zeros(20, dtype=torch.long)
).split_rows(4)  # fmt: skip


class Slow(nn.Module):
    """Takes 10 ms for any rows, and 3 ms for each row of a batch."""

    def forward(self, x):
        time.sleep(0.01 + 0.003 * len(x))
        return x


def study(schedule=None, model=None, **settings):
    graph = cl.vanilla(model or cl.networks.mlp((16, 8, 4)), "0" if model else "linear1", clients=PEOPLE)
    given = {
        "optimizer": cl.optim.SGD(lr=0.1),
        "batch_size": 10,
        "epochs": 2,
        "metrics": ["loss"],
        **settings,
    }
    return cl.Study(graph=graph, schedule=schedule or cl.RoundRobin(), **given)


@pytest.mark.parametrize("schedule", [cl.RoundRobin(), cl.SplitFed(), cl.Parallel()], ids=lambda s: s.name)
def test_a_rehearsal_knows_every_kind_of_action(schedule):
    made = study(schedule)
    pace = rehearse(made, batches=2, rows=5)
    run = made.simulate(PEOPLE)
    priced = [
        p for items in Forecast(made, Cohorts(made.graph, PEOPLE).rows).epochs() for item in items for p in item
    ]  # fmt: skip
    ops = {event.op for event in run.events if isinstance(event, Worked)} - {Op.KEEP}  # once, at the end
    assert ops <= {str(p.action.op) for p in priced if pace.seconds(p) > 0}


def test_what_takes_a_known_time_is_foretold():
    made = study(model=nn.Sequential(nn.Linear(16, 8), nn.ReLU(), Slow(), nn.Linear(8, 4)), evaluate=())
    rows = Cohorts(made.graph, PEOPLE).rows
    told = rehearse(made, batches=1, repeats=1).simulation(Forecast(made, rows))
    slept = 2 * 4 * 2 * (0.01 + 0.03)  # epochs, clients, batches of 10 rows
    assert 0.95 * slept < told < 2 * slept


def test_rows_that_were_not_rehearsed_are_on_the_line_through_those_that_were():
    made = {
        Kind("client", "forward", "head", True): {4: 3.0, 8: 5.0},
        Kind("client", "own", "client", False): {0: 2.0},
    }
    pace = Rehearsed(known=made, roles={"a": "client"})

    def seconds(op, what, rows, training=True):
        return pace.seconds(Priced(Action(0, "a", op, what), Cost(), rows, training))

    assert [seconds(Op.FORWARD, "head", rows) for rows in (2, 4, 6, 8, 20)] == [2.0, 3.0, 4.0, 5.0, 11.0]
    assert seconds(Op.FORWARD, "head#3", 4) == 3.0  # a copy of the segment
    assert seconds(Op.OWN, "client", 0, training=False) == 2.0 and seconds(Op.FORWARD, "top", 4) == 0.0


def test_a_rehearsal_leaves_the_study_and_random_numbers_as_they_were():
    made, before = study(), torch.get_rng_state()
    weights = [p.clone() for s in made.graph.segments.values() for p in s.module.parameters()]
    rehearse(made, batches=1)
    after = [p for s in made.graph.segments.values() for p in s.module.parameters()]
    assert all(map(torch.equal, weights, after)) and torch.equal(before, torch.get_rng_state())
