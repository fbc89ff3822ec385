"""Whatever is changed in a right program, the checker finds it, or performing it comes to the same bits.

What may remain right and come to other bits is only what a program does not promise:

- a learning rate that moves on (``advance``) or a snapshot that is kept, left out or elsewhere;
- other training rows, where one party alone loads them (with several, their batches must agree): a right
  program need not use every row.
"""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_graphs import NAMES, small_graph

from cutlayer.data import Holdings, Records
from cutlayer.errors import ProgramError
from cutlayer.metering.events import Measured
from cutlayer.metering.run_log import RunLog
from cutlayer.runtime import optim
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.runtime.simulate import Settings, Simulation
from cutlayer.runtime.stopping import EarlyStopping
from cutlayer.schedules import Action, Calendar, Op, Program, RoundRobin, check, program_of
from cutlayer.schedules.base import verdict

FREE = {Op.ADVANCE, Op.SNAPSHOT, Op.LOAD}
SGD = optim.SGD(lr=0.1, momentum=0.9, schedule=optim.StepLR(step_size=1, gamma=0.5))


@cache
def small_data(name):
    """Rows for every role with fields: turn ``t`` trains on 3 + t rows and measures on 2."""
    graph, draw = small_graph(name), torch.Generator().manual_seed(0)
    parties, roles = {}, {}
    for role in graph.roles.values():
        for number, party in enumerate(role.parties if role.fields else ()):
            turns = range(len(graph.turns)) if len(role.parties) == 1 else [number]
            ids = {"train": [100 * t + i for t in turns for i in range(3 + t)]}
            ids["valid"] = [100 * t + 50 + i for t in turns for i in range(2)]
            made = {"x": lambda n: torch.randn(n, 2, generator=draw), "y": lambda n: torch.arange(n) % 2}
            parties[party] = {
                split: Records(np.array(rows), {field: made[field](len(rows)) for field in role.fields})
                for split, rows in ids.items()
            }
            roles[party] = role.name
    return Holdings.of(parties, roles)


@cache
def calendar_of(name):
    rows = Cohorts(small_graph(name), small_data(name)).rows
    return Calendar(rows, 2, seed=3, evaluation_batch_size=1)


@cache
def right(name):
    """One epoch, its evaluation and its verdict; hand-overs are relayed where somebody can relay them."""
    graph, calendar = small_graph(name), calendar_of(name)
    schedule = RoundRobin(handover="peer" if name == "frozen" else "server", turn=1)
    program = program_of(schedule, graph, calendar, 1, ("valid",))
    return Program([*program, *verdict(graph, calendar, 0, "valid")])


def performed(name, program):
    """All that a program leaves: every party's segments with their optimizers, snapshots, and the metrics."""
    graph, log = small_graph(name), RunLog()
    simulation = Simulation(
        graph,
        small_data(name),
        RoundRobin(),
        calendar_of(name),
        Cohorts(graph, small_data(name)),
        Settings(
            optimizers=dict.fromkeys(graph.order, SGD), epochs=1, seed=3, early_stopping=EarlyStopping()
        ),
        log,
    )
    with torch.random.fork_rng(devices=[]):
        simulation.performer.perform(program)
    left = {}
    for party in simulation.parties.values():
        states = {name: live.state() for name, live in party.live.items()}
        for place, kept in (("now", states), ("best", party.best)):
            for segment, state in kept.items():
                left |= {(party.name, place, segment, key): t.clone() for key, t in state.items()}
    measured = {repr(event) for event in log.events if isinstance(event, Measured)}
    return left, measured


@cache
def performed_right(name):
    return performed(name, right(name))


def same(one, other):
    (left, measured), (right_left, right_measured) = one, other
    return (
        measured == right_measured
        and left.keys() == right_left.keys()
        and all(torch.equal(tensor, right_left[key]) for key, tensor in left.items())
    )


def accepted(name, actions):
    """The program of these actions, if it is right."""
    program = Program(actions)
    try:
        check(program, small_graph(name), calendar_of(name))
    except ProgramError:
        return None
    return program


def prove(name, program, changed):
    """An accepted program comes to the same, or the change is a freedom that programs have."""
    if not all(action.op in FREE for action in changed):
        assert same(performed(name, program), performed_right(name)), f"accepted, not the same: {changed}"


@pytest.mark.parametrize("name", NAMES)
def test_the_right_program_is_accepted_and_comes_to_the_same_each_time(name):
    check(right(name), small_graph(name))
    assert same(performed(name, right(name)), performed_right(name))


@pytest.mark.parametrize("name", NAMES)
def test_no_action_can_be_left_out_but_what_programs_do_not_promise(name):
    program = right(name)
    left_out = [a.op for i, a in enumerate(program) if accepted(name, program[:i] + program[i + 1 :])]
    assert set(left_out) == {Op.ADVANCE, Op.SNAPSHOT}


@pytest.mark.parametrize("name", NAMES)
def test_no_action_can_be_done_twice_but_a_snapshot(name):
    program = right(name)
    twice = [a.op for i, a in enumerate(program) if accepted(name, program[: i + 1] + program[i:])]
    assert set(twice) == {Op.SNAPSHOT}


def neighbours_swapped(name):
    """Right programs in which two neighbours in one party's list stand the other way round."""
    program = right(name)
    for party in program.parties:
        mine = [i for i, action in enumerate(program) if action.party == party]
        for i, j in pairwise(mine):
            actions = list(program)
            actions[i], actions[j] = actions[j], actions[i]
            if swapped := accepted(name, actions):
                yield swapped, [program[i], program[j]]


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_of_one_party_swap_only_where_it_makes_no_difference(name):
    swaps = list(neighbours_swapped(name))
    assert 0 < len(swaps) < len(right(name)) / 2
    for program, changed in swaps[::5]:
        prove(name, program, changed)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_no_swap_of_neighbours_makes_a_difference(name):
    for program, changed in neighbours_swapped(name):
        prove(name, program, changed)


@st.composite
def mutations(draw, name):
    """A right program with one action altered, or moved, or two swapped, or one done again later."""
    program = right(name)
    spot = draw(st.integers(0, len(program) - 1))
    action, actions = program[spot], list(program)
    how = draw(st.sampled_from(["alter", "alter", "move", "swap", "again"]))
    if how == "alter":
        field = draw(st.sampled_from(Action._fields))
        known = sorted({getattr(a, field) for a in program}, key=str)
        known += {"step": [99], "party": ["nobody"], "what": ["nothing", "train.0/0/9"]}.get(field, [])
        actions[spot] = action._replace(**{field: draw(st.sampled_from(known))})
        return actions, [action, actions[spot]]
    other = draw(st.integers(0, len(program) - 1))
    if how == "swap":
        actions[spot], actions[other] = actions[other], actions[spot]
        return actions, [action, program[other]]
    if how == "move":
        actions.insert(other, actions.pop(spot))
    else:
        actions.insert(other, action)
    return actions, [action]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_change_is_found_or_makes_no_difference(name, data):
    look_for_difference(name, data)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_of_many_changes_is_found_or_makes_no_difference(name, data):
    look_for_difference(name, data)


def look_for_difference(name, data):
    actions, changed = data.draw(mutations(name))
    if program := accepted(name, actions):
        prove(name, program, changed)
