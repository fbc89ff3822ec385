"""A client that leaves while others train on: what was done before stays as it was, in every schedule."""

from functools import cache
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_studies import study_of

import cutlayer as cl
from cutlayer.runtime.positions import Position, points
from cutlayer.schedules import Leave, Op, check
from cutlayer.schedules.steps import Step, flat

CLIENTS = 4
SCHEDULES = {
    "round robin": cl.RoundRobin(turn=2),
    "round robin of updates": cl.RoundRobin(turn=2, updates=True, handover="server"),
    "v1": cl.SplitFed(at_once=2),
    "v1, micro-batches": cl.SplitFed(at_once=2, accumulate=2, in_flight=2, clip=1.0),
    "v1, sampled rounds": cl.SplitFed(round=2, sample=3, at_once=2),
    "v2": cl.SplitFed(version=2, round=3),
    "v3": cl.SplitFed(version=3, round=2),
    "parallel": cl.Parallel(),
    "parallel, averaged": cl.Parallel(heads="averaged", round=2),
    "parallel, global": cl.Parallel(batches="global"),
    "asynchronous": cl.Asynchronous(round=2, staleness=1, speeds={"client-1": 3.0}),
}


@cache
def graph():
    rows = torch.zeros(3, 6)
    return cl.vanilla(cl.networks.mlp((6, 8, 3)), 0.5, clients=CLIENTS, example=rows)


def course(name, rows, leaves=()):
    study = study_of(graph(), schedule=SCHEDULES[name], batch_size=4, epochs=3, evaluate=())
    return study.course([{"train": count} for count in rows], leaves)


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.integers(1, 30), min_size=CLIENTS, max_size=CLIENTS), data=st.data())
def test_what_was_done_before_somebody_left_stays_as_it_was(name, rows, data):
    before = course(name, rows)
    items = list(before.training(1))
    due = [Position(1, index + 1) for index, (_, due) in enumerate(points(iter(items), 2)) if due]
    position = data.draw(st.sampled_from([Position(1, 0), *due]))
    turn = data.draw(st.integers(0, CLIENTS - 1))
    if f"client-{turn}" in before.holders(position):
        return  # then all go back further
    after = course(name, rows, [Leave(turn, 1, before.done(position, turn))])
    later = list(after.training(1))
    assert later[: position.item] == items[: position.item]
    gone = f"client-{turn}"
    assert not [
        a for a in flat(later[position.item :]) if gone in (a.party, a.peer) and a.op is not Op.ADVANCE
    ]
    program = chain(flat(before.training(0)), flat(later), flat(after.training(2)))
    check(program, graph(), after.calendar)


@pytest.mark.parametrize("name", SCHEDULES)
def test_whoever_holds_a_copy_gives_it_back_later(name):
    whole = course(name, [12, 9, 8, 5])
    items = list(whole.training(0))
    for index in range(len(items)):
        holders = whole.holders(Position(0, index))
        taken = {}
        for item in items[:index]:
            if not isinstance(item, Step) and item.op in (Op.TAKE, Op.GIVE) and "#" in item.what:
                taken[item.party, item.what] = item.op is Op.TAKE and item.party != "server"
        assert {party for (party, _), still in taken.items() if still} <= holders
