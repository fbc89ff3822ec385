"""Positions in a program: how they print and compare, where snapshots are due, where a party acts next."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_studies import pooled

import cutlayer as cl
from cutlayer.errors import ProgramError, StudyError
from cutlayer.runtime.positions import START, Position, next_own, points
from cutlayer.schedules.actions import Action, Op
from cutlayer.schedules.calendar import Calendar
from cutlayer.schedules.steps import Step, flat

NUMBERS = st.integers(0, 10**12)
STEP = Step((Action(0, "a", Op.LOAD, ""), Action(0, "server", Op.LOSS, "loss")), 0, "train.0/0/0")
OTHER = Step((Action(0, "b", Op.LOAD, ""), Action(0, "server", Op.LOSS, "loss")), 0, "train.1/0/0")
GIVE = Action(0, "a", Op.GIVE, "client", "b", "server")
RELAY = Action(0, "server", Op.RELAY, "client", "a", "b")
TAKE = Action(0, "b", Op.TAKE, "client", "a", "server")
ADVANCE = Action(0, "server", Op.ADVANCE, "top")
PROGRAMS = st.lists(st.sampled_from([STEP, OTHER, GIVE, RELAY, TAKE, ADVANCE]))


@given(NUMBERS, NUMBERS)
def test_a_position_prints_and_parses(epoch, item):
    position = Position(epoch, item)
    assert str(position) == f"{epoch}/{item}" and Position.parse(str(position)) == position


def test_positions_are_ordered_as_the_program_is():
    ordered = [START, Position(0, 9), Position(0, 10), Position(1, 0), Position(10, 0)]
    assert sorted({*ordered}) == ordered and str(START) == "0/0"


@pytest.mark.parametrize(
    "text", ["", "3", "3/", "/3", "3/-1", " 3/1", "3/1\n", "03/1", "3/1/2", "٣/1", "a/b", "9" * 5000 + "/0"]
)
def test_what_is_no_position_is_refused(text):
    with pytest.raises(ProgramError, match=r"not a position: .*; expected 'epoch/item', such as '3/120'"):
        Position.parse(text)


@given(PROGRAMS, st.integers(1, 5))
def test_points_are_due_after_steps_and_after_whole_hand_overs(program, every):
    """Held against a plain reading of the rule, with the whole program in view."""
    found = list(points(iter(program), every))
    assert [item for item, _ in found] == program
    moves = [item if isinstance(item, Action) and item is not ADVANCE else None for item in program] + [None]
    for index, (item, due) in enumerate(found):
        if isinstance(item, Step):
            assert due == (sum(isinstance(i, Step) for i in program[: index + 1]) % every == 0)
        else:
            assert due == (moves[index] is not None and moves[index + 1] is None)


def test_points_look_one_item_ahead_and_no_further():
    taken = []
    program = (taken.append(n) or STEP for n in itertools.count())
    found = points(program, 2)
    assert [next(found)[1] for _ in range(4)] == [False, True, False, True]
    assert taken == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("every", [0, -3])
def test_points_are_at_least_a_step_apart(every):
    with pytest.raises(StudyError, match=f"snapshots are at least 1 step apart; got {every}"):
        points([], every)


@pytest.mark.parametrize("handover", ["peer", "server"])
@pytest.mark.parametrize("make", [cl.vanilla, cl.u_shaped])
def test_nobody_s_state_is_under_way_at_a_point(make, handover):
    """In programs of round robin: what was given is taken, and steps and hand-overs all have their point."""
    net = cl.networks.mlp((6, 8, 7, 3))
    cuts = "linear2" if make is cl.vanilla else ("linear1", "linear2")
    graph = make(net, cuts, clients=pooled(30)[0].split_rows(3))
    calendar = Calendar([{"train": 10}] * 3, 4, 0)
    program = list(cl.RoundRobin(handover=handover, turn=1).epoch(graph, calendar, 1))
    under_way, hand_overs, due_after = 0, 0, []
    for item, due in points(program, 2):
        for action in flat([item]):
            under_way += (action.op is Op.GIVE) - (action.op is Op.TAKE)
        if due:
            assert under_way == 0
            due_after.append(item)
            hand_overs += isinstance(item, Action)
    assert hand_overs == sum(a.op is Op.GIVE for a in flat(program)) == 9
    assert len(due_after) - hand_overs == 9 // 2


@given(PROGRAMS, st.sampled_from(["a", "b", "server", "nobody"]), st.integers(0, 12))
def test_the_next_own_item_is_the_first_in_which_the_party_acts(program, party, start):
    own = [i for i, item in enumerate(program) if i >= start and any(a.party == party for a in flat([item]))]
    assert next_own(program, party, start) == (own[0] if own else None)
    assert next_own(iter(program), party, start) == (own[0] if own else None)
