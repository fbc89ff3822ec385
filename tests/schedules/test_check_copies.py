"""Copies, averages and joined batches: what is left out, done twice or done elsewhere is found."""

from functools import cache

import pytest
from small_graphs import small_calendar, small_graph

from cutlayer.errors import ProgramError
from cutlayer.schedules import (
    Asynchronous,
    Op,
    Parallel,
    Program,
    SplitFed,
    check,
    program_of,
)

SCHEDULES = {
    "v1": SplitFed(round=1),
    "v1, one at a time": SplitFed(at_once=1),
    "v2": SplitFed(version=2),
    "v3": SplitFed(version=3, round=1),
    "parallel": Parallel(),
    "parallel, averaged": Parallel(heads="averaged", round=1),
    "asynchronous": Asynchronous(round=1, staleness=1),
}
GRAPHS = ("vanilla", "u_shaped", "multi_hop")


@cache
def right(schedule, name):
    graph, calendar = small_graph(name), small_calendar(name, train=2)
    return program_of(SCHEDULES[schedule], graph, calendar, 2, ("valid",), ended=True)


def accepted(actions, name):
    try:
        check(Program(actions), small_graph(name), small_calendar(name, train=2))
    except ProgramError:
        return False
    return True


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_right_program_is_accepted_and_parses_back(schedule, name):
    program = right(schedule, name)
    assert accepted(program, name) and Program.parse(str(program)) == program
    assert accepted([a._replace(step=a.step + 7) for a in program], name)


FREE = {"asynchronous": {Op.MERGE}, "v3": {Op.OWN}, "parallel": {Op.OWN}}
"""Besides learning rates: how much the state itself counts in a mixture, and that the last party's state is its own."""


@pytest.mark.parametrize("name", ["vanilla", pytest.param("u_shaped", marks=pytest.mark.long)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_action_can_be_left_out_but_what_programs_do_not_promise(schedule, name):
    program = right(schedule, name)
    left_out = {a.op for i, a in enumerate(program) if accepted(program[:i] + program[i + 1 :], name)}
    assert left_out == {Op.ADVANCE} | FREE.get(schedule, set())


@pytest.mark.parametrize("name", ["vanilla", pytest.param("u_shaped", marks=pytest.mark.long)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_action_can_be_done_twice(schedule, name):
    program = right(schedule, name)
    assert not [str(a) for i, a in enumerate(program) if accepted(program[: i + 1] + program[i:], name)]


V1, V3, JOINT = (right(schedule, "vanilla") for schedule in ("v1", "v3", "parallel"))


def replaced(program, old, new):
    """The program with the first line that is ``old`` replaced."""
    lines = str(program).splitlines()
    at = lines.index(old)
    return Program.parse("\n".join([*lines[:at], *new, *lines[at + 1 :]]))


@pytest.mark.parametrize(
    ("program", "old", "new", "words"),
    [
        (V1, "@0 server fork server#0", ["@0 server fork server"], "'server' names no copy"),
        (V1, "@0 server fork server#0", ["@0 server fork sever#0"], "did you mean 'server'"),
        (V1, "@0 server fork server#0", [], "there is no copy 'server#0' here"),
        (V1, "@0 server copy client#0 to client-0", ["@0 client-1 copy client#0 to client-0"], "client"),
        (V1, "@0 server copy client#0 to client-0", ["@0 server copy client#0 to server"], "is not of role"),
        (V1, "@2 server merge server#0*2", ["@2 server drop server#0"], "it was trained in step"),
        (V1, "@2 server merge server#0*2", ["@2 server merge server#0"], "is no copy with a weight"),
        (V1, "@2 server merge server#0*2", ["@2 server merge server#0*0"], "is no copy with a weight"),
        (
            V1,
            "@2 server merge server#0*2",
            ["@2 server merge client#0*2"],
            "there is no copy 'client#0' here",
        ),
        (V1, "@2 server average client", ["@2 client-0 average client"], "no copy was merged before"),
        (V3, "@0 client-1 own client", ["@0 server own client"], "'server' is not of role 'client'"),
        (V3, "@0 client-1 own client", ["@0 client-0 own client"], "has a state of its own already"),
        (
            JOINT,
            "@2 server join head->server+y->server*2",
            ["@2 server join head->server+y->server*3"],
            "it joins",
        ),
        (
            JOINT,
            "@2 server join head->server+y->server*2",
            ["@2 server join head->server+y->server"],
            "of how many steps",
        ),
        (
            JOINT,
            "@2 server join head->server+y->server*2",
            ["@2 server join haed->server*2"],
            "did you mean 'head->server'",
        ),
        (
            JOINT,
            "@2 server split head<-server*2",
            ["@2 server split head<-server*1"],
            "is of 2 batches, not 1",
        ),
        (
            JOINT,
            "@2 server split head<-server*2",
            ["@2 server split haed<-server*2"],
            "did you mean 'head<-server'",
        ),
        (JOINT, "@2 server split head<-server*2", [], "it needs the backward of 'top'"),
    ],
)
def test_what_is_wrong_is_said(program, old, new, words):
    with pytest.raises(ProgramError) as caught:
        check(replaced(program, old, new), small_graph("vanilla"), small_calendar("vanilla", train=2))
    assert words in str(caught.value)
