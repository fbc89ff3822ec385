"""Round robin writes the programs that stand in ``golden/``, to read and to compare.

After a change that is meant, write them anew with ``CUTLAYER_WRITE_GOLDEN=1 pytest tests/schedules`` and
read the difference before it is committed.
"""

import os
from pathlib import Path

import pytest
from small_graphs import NAMES, small_calendar, small_graph

from cutlayer.errors import StudyError
from cutlayer.schedules import Calendar, Op, Program, RoundRobin, check, program_of
from cutlayer.schedules.base import verdict
from cutlayer.schedules.calendar import Batch
from cutlayer.schedules.steps import Step, training_step

GOLDEN = Path(__file__).parent / "golden"

CASES = {
    "vanilla_peer": ("vanilla", RoundRobin(), 2, False),
    "vanilla_peer_turn_1": ("vanilla", RoundRobin(turn=1), 1, False),
    "vanilla_server": ("vanilla", RoundRobin(handover="server"), 2, False),
    "vanilla_server_turn_1": ("vanilla", RoundRobin(handover="server", turn=1), 1, False),
    "u_shaped": ("u_shaped", RoundRobin(), 1, False),
    "vertical": ("vertical", RoundRobin(), 1, False),
    "multi_hop": ("multi_hop", RoundRobin(handover="server"), 1, False),
    "multi_task": ("multi_task", RoundRobin(), 1, False),
    "extended_vanilla_verdict": ("extended_vanilla", RoundRobin(), 1, True),
    "u_shaped_verdict": ("u_shaped", RoundRobin(), 1, True),
    "frozen": ("frozen", RoundRobin(), 1, False),
}


def written(name, schedule, epochs, with_verdict):
    """The program for 2 to 3 training batches a turn and, where there is a verdict, 2 validation batches."""
    graph, calendar = small_graph(name), small_calendar(name, train=4)
    program = program_of(schedule, graph, calendar, epochs, ("valid",) if with_verdict else ())
    if not with_verdict:
        return program, graph
    return Program([*program, *verdict(graph, calendar, epochs - 1, "valid")]), graph


@pytest.mark.parametrize("case", CASES)
def test_the_program_is_the_golden_one(case):
    program, graph = written(*CASES[case])
    file = GOLDEN / f"{case}.txt"
    if os.environ.get("CUTLAYER_WRITE_GOLDEN") == "1":
        file.write_text(str(program))
    assert str(program) == file.read_text()
    assert Program.parse(file.read_text()) == program
    assert check(program, graph) > 0


def test_every_golden_file_belongs_to_a_case():
    assert {file.stem for file in GOLDEN.glob("*")} == set(CASES)


@pytest.mark.parametrize("turn", [0, 1, 2])
@pytest.mark.parametrize("handover", ["peer", "server"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "frozen"])
def test_every_configuration_has_a_right_program(name, handover, turn):
    graph, calendar = small_graph(name), small_calendar(name)
    program = program_of(RoundRobin(handover=handover, turn=turn), graph, calendar, 2, ("valid",))
    program = Program([*program, *verdict(graph, calendar, 1, "valid")])
    assert check(program, graph) == check({p: program.of(p) for p in program.parties}, graph) <= len(program)


def test_a_turn_is_as_many_batches_as_asked_for():
    graph, calendar = small_graph("vanilla"), Calendar([{"train": 6}, {"train": 3}], 1)
    order = {}
    for turn in (0, 1, 4):
        program = program_of(RoundRobin(turn=turn), graph, calendar, 1)
        order[turn] = "".join(a.party[-1] for a in program if a.op is Op.LOAD)
        assert [a.step for a in program if a.op is Op.LOAD] == list(range(9))
    assert order == {0: "000000111", 1: "010101000", 4: "000011100"}


def test_a_turn_is_a_training_step_on_each_batch_numbered_on():
    graph, calendar = small_graph("vanilla"), Calendar([{"train": 25}, {"train": 13}], 2)
    steps = [item for item in RoundRobin(turn=5).epoch(graph, calendar, 3) if isinstance(item, Step)]
    turns = [0] * 5 + [1] * 5 + [0] * 5 + [1] * 2 + [0] * 3
    done = [0, 0]
    for place, (turn, step) in enumerate(zip(turns, steps, strict=True)):
        alike = training_step(graph, turn, 60 + place, Batch("train", turn, 3, done[turn]))
        assert step == alike and step.template is alike.template
        done[turn] += 1


def test_a_client_without_rows_has_no_turn():
    graph, calendar = small_graph("vanilla"), Calendar([{}, {"train": 2}], 1)
    program = program_of(RoundRobin(), graph, calendar, 2)
    assert "client-0" not in program.parties and not any(a.op is Op.GIVE for a in program)
    check(program, graph)


def test_the_state_goes_back_to_where_training_left_it_after_an_evaluation():
    graph, calendar = small_graph("vanilla"), small_calendar("vanilla")
    program = program_of(RoundRobin(), graph, calendar, 1, ("valid",))
    moves = [(a.party, a.peer) for a in program if a.op is Op.GIVE]
    assert moves == [("client-0", "client-1"), ("client-1", "client-0"), ("client-0", "client-1")]


def test_where_only_one_client_is_measured_the_state_goes_there_and_back():
    graph = small_graph("vanilla")
    calendar = Calendar([{"train": 2, "valid": 1}, {"train": 2}], 2)
    program = program_of(RoundRobin(), graph, calendar, 2, ("valid",))
    check(program, graph)
    assert [a.party for a in program if a.op is Op.EVALUATE] == ["server", "server"]


def test_the_server_relays_and_not_a_party_with_raw_input():
    graph = small_graph("multi_hop")
    program = program_of(RoundRobin(handover="server"), graph, small_calendar("multi_hop"), 1)
    assert {a.party for a in program if a.op is Op.RELAY} <= {"hop-1", "server"}


def test_without_a_party_that_takes_part_in_every_turn_nobody_can_relay():
    graph = small_graph("frozen")
    with pytest.raises(StudyError, match="handover='server' needs a party that takes part in every turn"):
        program_of(RoundRobin(handover="server"), graph, small_calendar("frozen"), 1)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(StudyError, match=r"handover='pear'; did you mean 'peer'\?"):
        RoundRobin(handover="pear")
    with pytest.raises(StudyError, match="a turn has at least one batch; got -1; 0 means a whole epoch"):
        RoundRobin(turn=-1)


def test_a_schedule_describes_itself():
    assert (
        RoundRobin().describe()
        == "round robin, a turn is an epoch of the client's data, hand-over peer to peer"
    )
    assert "2 batches, hand-over through the server" in RoundRobin(turn=2, handover="server").describe()
