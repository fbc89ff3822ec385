"""Actions print, parse and compare; programs are lists of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutlayer.errors import ProgramError
from cutlayer.schedules import Action, Op, Program

WORDS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_-", min_size=1, max_size=12)
WITH_PEER = (Op.SEND, Op.RECEIVE, Op.GIVE, Op.COPY, Op.TAKE, Op.RELAY, Op.TELL, Op.HEAR, Op.REPORT, Op.NOTE)


@st.composite
def actions(draw):
    op = draw(st.sampled_from(Op))
    what = draw(
        st.one_of(WORDS, st.builds("{}->{}".format, WORDS, WORDS), st.builds("{}/{}".format, WORDS, WORDS))
    )
    peer = draw(WORDS) if op in WITH_PEER else ""
    via = draw(WORDS) if op is Op.RELAY or (op in (Op.GIVE, Op.TAKE) and draw(st.booleans())) else ""
    return Action(draw(st.integers(0, 10**9)), draw(WORDS), op, what, peer, via)


@given(actions())
def test_an_action_parses_back_from_what_it_prints(action):
    assert Action.parse(str(action)) == action
    assert Action.parse(f"  {action}\n") == action


@given(st.lists(actions(), max_size=20))
def test_a_program_parses_back_from_what_it_prints(actions):
    program = Program(actions)
    assert Program.parse(str(program)) == program
    assert len({program, Program.parse(f"# a remark\n\n{program}\n")}) == 1


@given(st.lists(actions(), max_size=30))
def test_the_parties_parts_make_up_the_program(actions):
    program = Program(actions)
    assert set(program.parties) == {action.party for action in actions}
    parts = {party: program.of(party) for party in program.parties}
    assert sum(map(len, parts.values())) == len(program)
    assert all(action.party == party for party, part in parts.items() for action in part)
    rest = {party: iter(part) for party, part in parts.items()}
    assert Program(next(rest[action.party]) for action in program) == program


def test_each_kind_of_action_has_its_line():
    lines = {
        "@0 client-0 load train.0/0/0": Action(0, "client-0", Op.LOAD, "train.0/0/0"),
        "@3 server send head<-server to client-0": Action(3, "server", Op.SEND, "head<-server", "client-0"),
        "@3 client-0 receive head<-server from server": Action(
            3, "client-0", Op.RECEIVE, "head<-server", "server"
        ),
        "@9 a give client to b via server": Action(9, "a", Op.GIVE, "client", "b", "server"),
        "@9 server relay client from a on-to b": Action(9, "server", Op.RELAY, "client", "a", "b"),
        "@9 b take client from a via server": Action(9, "b", Op.TAKE, "client", "a", "server"),
        "@9 server copy client#3 to c": Action(9, "server", Op.COPY, "client#3", "c"),
        "@9 server merge client#3*120": Action(9, "server", Op.MERGE, "client#3*120"),
        "@9 b tell metrics/2 to a": Action(9, "b", Op.TELL, "metrics/2", "a"),
        "@9 b snapshot 2": Action(9, "b", Op.SNAPSHOT, "2"),
    }
    assert {str(action): action for action in lines.values()} == lines
    assert all(Action.parse(line) == action for line, action in lines.items())


NO_ACTIONS = """
load
@ client load x
@x client load x
@-1 client load x
@01 client load x
@1 client load
0 client load x
@1 client send cut
@1 client load x to y
@1 client load x  y
@1 client send cut at y
@1 client send cut to
@1 client send cut from y
@1 client receive cut to y
@1 client send cut to y via z
@1 client load x via z
@1 client give r to b through s
@1 client give r to b on-to s
@1 server relay r from a
@1 server relay r from a via b
"""


@pytest.mark.parametrize("line", NO_ACTIONS.split("\n")[1:])
def test_what_is_no_action_is_refused(line):
    with pytest.raises(ProgramError, match="not an action"):
        Action.parse(line)


def test_an_unknown_word_names_the_nearest():
    with pytest.raises(
        ProgramError, match=r"not an action: '@1 client forwrad head'; did you mean 'forward'\?"
    ):
        Action.parse("@1 client forwrad head")


def test_a_program_names_the_line_that_is_no_action():
    with pytest.raises(ProgramError, match="'@1 client sleep'"):
        Program.parse("@0 client load train.0/0/0\n@1 client sleep\n")


def test_programs_compare_and_hash_by_their_actions():
    one = Program([Action(0, "a", Op.LOAD, "train.0/0/0")])
    assert one == Program.parse(str(one)) and hash(one) == hash(Program.parse(str(one)))
    assert one != Program() and str(Program()) == "" and Program().parties == ()
