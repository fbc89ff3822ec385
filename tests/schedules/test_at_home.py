"""Rows without labels in a program: how they are spread, and what the checker lets become of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import cutlayer as cl
from cutlayer.errors import ProgramError, StudyError
from cutlayer.runtime.course import Course
from cutlayer.runtime.positions import Position
from cutlayer.schedules import Calendar, Op, Program, check, program_of
from cutlayer.schedules.at_home import unit, units
from cutlayer.schedules.calendar import Leave
from cutlayer.schedules.steps import flat

ROWS = [
    {"train": 8, "unlabelled": 21, "test": 4},
    {"train": 4, "unlabelled": 3, "test": 4},
    {"unlabelled": 7},
]
SEMI = cl.RoundRobin(unlabelled=True)


def graph():
    people = cl.data.digits().split_rows(3)
    return cl.with_decoder(
        cl.vanilla(cl.networks.mlp((64, 8, 10)), 0.5, clients=people), nn.Linear(8, 64), alpha=0.1
    )


GRAPH = graph()


def program(schedule=SEMI, rows=ROWS, **more):
    calendar = Calendar(rows, 4, **more)
    return program_of(schedule, GRAPH, calendar, 2, ("test",), ended=True), calendar


def loads(actions):
    return [action.what for action in actions if action.op is Op.LOAD]


@given(st.integers(0, 40), st.integers(0, 200), st.booleans())
def test_each_batch_of_an_epoch_is_there_once_and_evenly_spread(train, unlabelled, drop_last):
    calendar = Calendar([{"train": train, "unlabelled": unlabelled}], 4, drop_last=drop_last)
    made = [unit(calendar, 0, 0, number) for number in range(units(calendar, 0, 0))]
    batches = [str(batch) for one in made for batch in one]
    wanted = {f"{s}.0/0/{n}" for s in ("train", "unlabelled") for n in range(calendar.batches(0, s))}
    assert len(batches) == len(wanted) and set(batches) == wanted
    assert len(batches) == calendar.steps()
    assert max(map(len, made), default=0) - min(map(len, made), default=0) <= 1


def test_the_program_is_proven_and_unlabelled_steps_have_no_peer():
    made, calendar = program()
    assert check(made, GRAPH, calendar) > 0
    steps = {a.step for a in made if a.op is Op.LOAD and a.what.startswith("unlabelled")}
    assert len(steps) == 2 * (6 + 1 + 2)
    alone = [a for a in made if a.step in steps and a.op not in (Op.GIVE, Op.TAKE, Op.ADVANCE)]
    assert all(not action.peer and action.party != "server" for action in alone)


def test_without_the_rows_it_is_the_ordinary_program():
    rows = [{s: n for s, n in turn.items() if s != "unlabelled"} for turn in ROWS]
    assert str(program(SEMI, rows)[0]) == str(program(cl.RoundRobin(), rows)[0])


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_other_parties_do_the_same_with_the_rows_and_without(turn):
    """But for the numbers of steps, the server's part is the same, and so are the hand-overs of labelled turns."""
    rows = [*ROWS[:2], {"train": 4}]
    fewer = [{s: n for s, n in of.items() if s != "unlabelled"} for of in rows]
    schedule = cl.RoundRobin(unlabelled=True, turn=turn)
    one, other = program(schedule, rows)[0], program(schedule, fewer)[0]
    assert [a._replace(step=0) for a in one.of("server")] == [a._replace(step=0) for a in other.of("server")]
    moves = (Op.GIVE, Op.TAKE, Op.SEND, Op.RECEIVE)
    assert [a[1:] for a in one if a.op in moves] == [a[1:] for a in other if a.op in moves]


def test_a_leave_keeps_whole_units():
    """Who leaves after two batches with labels did their share of those without; the others' steps follow on."""
    calendar = Calendar(ROWS, 4, leaves=[Leave(0, 0, 1)])
    first = loads(flat(SEMI.epoch(GRAPH, calendar, 0)))
    share = [f"unlabelled.0/0/{n}" for n in range(3)]
    assert first[:5] == ["train.0/0/0", *share, "train.1/0/0"] and len(first) == 4 + 2 + 2
    assert calendar.first_step(1) == len(first) and calendar.steps(1) == 2 + 2
    gone = Calendar(ROWS, 4, leaves=[Leave(2, 0, 1)])
    assert [what for what in loads(flat(SEMI.epoch(GRAPH, gone, 0))) if ".2/" in what] == ["unlabelled.2/0/0"]


def changed(find, replace):
    lines = str(program()[0])
    assert find in lines
    return Program.parse(lines.replace(find, replace, 1))


@pytest.mark.parametrize(
    ("find", "replace", "why"),
    [
        ("@1 client-0 forward decoder", "@1 client-0 send head->server to server", "nothing that is made of it leaves"),
        ("@1 client-0 forward decoder", "@1 client-0 send y->server to server", "nothing that is made of it leaves"),
        ("@1 client-0 forward decoder\n", "", "needs 'decoder'"),
        ("@1 client-0 backward decoder\n@1 client-0 step decoder\n", "", "needs the backward of 'decoder'"),
        ("@1 client-0 backward head\n@1 client-0 step head\n", "", "the backward of step 1, begun with these weights"),
        ("@1 client-0 step decoder\n", "", "its step of step 1 is still to be done"),
        ("@1 client-0 forward head", "@1 client-0 infer head", "only encoders and decoders"),
        ("@1 client-0 loss reconstruction\n", "", "needs the loss of 'reconstruction'"),
        ("@2 client-0 load unlabelled.0/0/1", "@2 client-0 load unlabelled.0/0/0", "trained on in step 1 before"),
        ("@1 client-0 load unlabelled.0/0/0", "@1 client-0 load unlabelled.0/0/6", "has 6 batches"),
        ("@1 client-0 load unlabelled.0/0/0", "@1 client-0 load test.0/0/0", "is not for training"),
        ("@0 client-0 load train.0/0/0", "@0 client-0 load unlabelled.0/0/5", "nothing that is made of it leaves"),
    ],
)  # fmt: skip
def test_a_wrong_program_is_refused(find, replace, why):
    with pytest.raises(ProgramError, match=why):
        check(changed(find, replace), GRAPH, program()[1])


def test_a_graph_without_a_decoder_refuses_the_program():
    plain = cl.vanilla(cl.networks.mlp((64, 8, 10)), 0.5, clients=cl.data.digits().split_rows(3))
    lines = "@0 client-0 load unlabelled.0/0/0\n@0 client-0 forward head\n"
    with pytest.raises(ProgramError, match="only encoders and decoders of a party's own are trained on it"):
        check(Program.parse(lines), plain)


@pytest.mark.parametrize("more", [{"accumulate": 2}, {"clip": 1.0}])
def test_what_ties_steps_together_is_refused(more):
    with pytest.raises(StudyError, match=f"no {next(iter(more))}"):
        cl.RoundRobin(unlabelled=True, **more)


def test_the_schedule_says_so():
    assert "unlabelled rows at home" in SEMI.describe() and "unlabelled" not in cl.RoundRobin().describe()


@pytest.mark.parametrize("turn", [0, 1, 2])
@pytest.mark.parametrize("gone", [0, 1, 2])
def test_who_leaves_anywhere_leaves_the_program_before_as_it_was(turn, gone):
    """What was done until a party left is the beginning of the program in which it is on leave."""
    schedule = cl.RoundRobin(unlabelled=True, turn=turn)
    course = Course(GRAPH, schedule, Calendar(ROWS, 4), 2, (), None)
    items = list(course.training(0))
    for number in range(len(items)):
        done = course.done(Position(0, number), gone)
        rest = list(schedule.epoch(GRAPH, Calendar(ROWS, 4, leaves=[Leave(gone, 0, done)]), 0))
        steps = [str(a) for a in flat(items[:number]) if a.op is Op.LOAD]
        assert [str(a) for a in flat(rest) if a.op is Op.LOAD][: len(steps)] == steps
