"""The checker: what is wrong in a program, in which words, and with the place marked."""

import re
import time

import pytest
from small_graphs import NAMES, small_calendar, small_graph

from cutlayer.errors import ProgramError
from cutlayer.schedules import Action, Calendar, Op, Program, RoundRobin, check, program_of
from cutlayer.schedules.calendar import Batch
from cutlayer.schedules.steps import training_step

GRAPH = small_graph("vanilla")
RIGHT = program_of(RoundRobin(), GRAPH, small_calendar("vanilla", 2), 1, ("valid",))
SMASH = "head->server+y->server"  # the client's labels ride with the activations
HOPS = small_graph("multi_hop")  # here they go past the hop in a frame of their own


def without(program, line):
    """The program without the first action that prints like this."""
    lines = str(program).splitlines()
    lines.remove(line)
    return Program.parse("\n".join(lines))


def inserted(program, before, *lines):
    all_lines = str(program).splitlines()
    at = all_lines.index(before)
    return Program.parse("\n".join([*all_lines[:at], *lines, *all_lines[at:]]))


def replaced(program, old, new):
    lines = str(program).splitlines()
    lines[lines.index(old)] = new
    return Program.parse("\n".join(lines))


def refused(program, graph=GRAPH):
    with pytest.raises(ProgramError) as caught:
        check(program, graph)
    return str(caught.value)


def test_a_right_program_takes_as_many_ticks_as_its_longest_wait():
    assert len(RIGHT) / 2 < check(RIGHT, GRAPH) <= len(RIGHT)


def test_a_deadlock_shows_the_grid_with_the_places_marked():
    client = """
        @0 client-0 load train.0/0/0
        @0 client-0 forward head
        @0 client-0 receive head<-hop-1 from hop-1
        @0 client-0 send head->hop-1 to hop-1"""
    hop = "@0 hop-1 receive head->hop-1 from client-0"
    with pytest.raises(ProgramError) as caught:
        check({"client-0": Program.parse(client), "hop-1": Program.parse(hop)}, HOPS)
    mark = "<-- ERROR HERE"
    what, *grid = str(caught.value).splitlines()
    assert what == (
        "deadlock, nobody can go on: hop-1 waits for head->hop-1 (step 0) from client-0; "
        "client-0 waits for head<-hop-1 (step 0) from hop-1"
    )
    assert [re.split("  +", line.strip()) for line in grid] == [
        ["tick", "client-0", "hop-1"],
        ["0", "@0 load train.0/0/0", "(waits: receive head->hop-1)"],
        ["1", "@0 forward head"],
        ["2", f"(waits: receive head<-hop-1) {mark}", f"(waits: receive head->hop-1) {mark}"],
    ]
    assert len({line.index("(waits: receive head->hop-1)") for line in grid if "head->" in line}) == 1


def test_a_receive_without_its_send():
    text = refused(without(RIGHT, f"@0 client-0 send {SMASH} to server"))
    assert text.startswith("deadlock") and f"server waits for {SMASH} (step 0) from client-0" in text
    alone = refused(Program.parse(f"@0 server receive {SMASH} from client-0"))
    assert alone.startswith(f"a receive without its send: server waits for {SMASH} (step 0) from client-0\n")


def test_a_frame_that_nobody_receives():
    text = refused(Program.parse("@0 client-0 load train.0/0/0\n@0 client-0 send y->server to server"), HOPS)
    assert "'@0 client-0 send y->server to server' is never received by server" in text


def test_frames_that_come_in_another_order():
    load, *receives = "@0 client-0 load train.0/0/0", "y->server", "y->server"
    sends = [f"@{step} client-0 send y->server to server" for step in (0, 1)]
    receives = [f"@{step} server receive y->server from client-0" for step in (1, 0)]
    program = Program.parse("\n".join([load, sends[0], load.replace("@0", "@1"), sends[1], *receives]))
    assert "the next frame from client-0 is '@0 client-0 send y->server to server'" in refused(program, HOPS)


def test_use_before_make():
    assert "it needs a loaded batch, which is neither made nor received" in refused(
        without(RIGHT, "@0 client-0 load train.0/0/0")
    )
    text = refused(Program.parse("@0 server forward top"))
    assert "'@0 server forward top' cannot be performed: it needs 'head->server'" in text
    assert "@0 forward top <-- ERROR HERE" in text


def test_backward_before_its_forward():
    assert "backward before its forward" in refused(Program.parse("@0 server backward top"))


def test_a_gradient_that_has_not_come():
    text = refused(
        Program.parse("@0 client-0 load train.0/0/0\n@0 client-0 forward head\n@0 client-0 backward head")
    )
    assert "it needs the gradient head<-server" in text


def test_an_optimizer_step_before_its_backward():
    assert "cannot be performed: it needs the backward of 'head'" in refused(
        Program.parse("@0 client-0 step head")
    )


@pytest.mark.parametrize("kind", ["backward", "step"])
def test_work_that_is_left_undone(kind):
    program = without(RIGHT, f"@1 server {kind} top")
    text = refused(program)
    assert (
        "needs the backward of 'top'" in text
        if kind == "backward"
        else "its step of step 1 is still to be done" in text
    )
    text = refused(Program(a for a in RIGHT if a.op is not Op.STEP and a.step == 0))
    assert "'@0 client-0 backward head' was done, and its step (head) never is" in text


def test_a_hand_over_that_is_missing():
    program = without(RIGHT, "@1 client-0 give client to client-1")
    program = without(program, "@1 client-1 take client from client-0")
    text = refused(program)
    assert "the state of role 'client' is with 'client-0' and was not handed over to 'client-1'" in text


def test_a_state_that_was_given_away_is_not_used():
    lists = {
        "client-0": ["@0 client-0 give client to client-1", "@0 client-0 advance head"],
        "client-1": ["@0 client-1 take client from client-0"],
    }
    why = "was not handed over to 'client-0'"
    assert f"the state of role 'client' is on its way and {why}" in refused(
        Program.parse("\n".join(lists["client-0"]))
    )
    lists["client-0"].insert(1, "@0 client-0 load train.0/0/0")
    text = refused({party: Program.parse("\n".join(lines)) for party, lines in lists.items()})
    assert f"the state of role 'client' is with 'client-1' and {why}" in text
    assert text.endswith("give it there and take it here first")


def test_a_hand_over_in_the_middle_of_a_step():
    hand_over = ["@0 client-0 give client to client-1", "@0 client-1 take client from client-0"]
    program = inserted(RIGHT, "@0 client-0 receive head<-server from server", *hand_over)
    assert "the backward of segment 'head' in step 0 is still to be done" in refused(program)


def test_a_relay_that_sends_astray():
    graph = small_graph("vanilla")
    program = program_of(RoundRobin(handover="server"), graph, small_calendar("vanilla", 2), 1)
    check(program, graph)
    text = refused(
        replaced(
            program,
            "@1 client-1 take client from client-0 via server",
            "@1 client-1 take client from client-1 via server",
        )
    )
    assert "the frame that server passes on is '@1 client-0 give client to client-1 via server'" in text


def test_batches_that_do_not_match():
    graph = small_graph("vertical")
    program = program_of(RoundRobin(), graph, small_calendar("vertical", 4), 1)
    text = refused(replaced(program, "@1 lab load train.0/0/1", "@1 lab load train.0/0/7"), graph)
    assert "'lab->server' comes from batch train.0/0/7, the rest from train.0/0/1" in text


def test_a_batch_that_is_trained_on_twice():
    line = "@1 client-1 load train.1/0/0"
    program = program_of(RoundRobin(), GRAPH, small_calendar("vanilla", 3), 1)
    lines = [a for a in str(program).splitlines() if " load " in a]
    text = refused(replaced(program, lines[1], lines[1][:-1] + "0"))
    assert "the batch train.0/0/0 was trained on in step 0 before" in text
    assert "'client-1' does not take part in turn 0" in refused(
        replaced(RIGHT, line, line.replace("train.1", "train.0"))
    )


@pytest.mark.parametrize(
    "word", ["train", "train.0/0", "trian.0/0/0", "train.x/0/0", "train.9/0/0", "train.-1/0/0"]
)
def test_a_batch_that_is_none(word):
    text = refused(replaced(RIGHT, "@0 client-0 load train.0/0/0", f"@0 client-0 load {word}"))
    assert f"{word!r} names no batch" in text and text.endswith("write split.turn/epoch/batch, train.0/0/3")


def test_training_and_evaluation_do_not_mix():
    frozen = small_graph("frozen")
    program = program_of(RoundRobin(), frozen, small_calendar("frozen", 2), 1, ("valid",))
    for segment, mode in (("head", "evaluation"), ("top", "training")):
        line = next(str(a) for a in program if (a.op, a.what) == (Op.FORWARD, segment))
        assert f"'head->server' was made for {mode}" in refused(
            replaced(program, line, line.replace("forward", "infer")), frozen
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["valid", "test"])
def test_rows_that_are_held_out_are_not_trained_on(name, split):
    graph = small_graph(name)
    step = Program(training_step(graph, 0, 0, Batch(split, 0, 0, 0)).actions())
    text = refused(step, graph)
    assert f"the batch {split}.0/0/0 is not for training" in text and " forward " in text.splitlines()[0]
    assert text.endswith("forward takes batches of the split 'train', infer those of any")


def test_any_split_may_be_evaluated():
    program = program_of(RoundRobin(), GRAPH, small_calendar("vanilla"), 1, ("train", "valid"))
    assert check(program, GRAPH, small_calendar("vanilla")) > 0


@pytest.mark.parametrize("nothing", [[], {}, {"client-0": [], "server": []}])
def test_an_empty_program_is_refused(nothing):
    assert refused(nothing).startswith("the program is empty; yield the actions")


def test_a_batch_that_its_turn_does_not_have():
    calendar = small_calendar("vanilla", 2)  # a batch in turn 0, two in turn 1
    check(RIGHT, GRAPH, calendar)
    assert check(replaced(RIGHT, "@0 client-0 load train.0/0/0", "@0 client-0 load train.0/0/1"), GRAPH)
    for word, has in {
        "train.0/0/1": "turn 0 has 1 batch of the split 'train'",
        "valid.0/0/2": "turn 0 has 2 batches of the split 'valid'",
        "test.0/0/0": "turn 0 has no batches of the split 'test'",
    }.items():
        with pytest.raises(ProgramError, match=has) as caught:
            check(Program.parse(f"@0 client-0 load {word}"), GRAPH, calendar)
        assert caught.value.todo == "batches are counted from 0"


def test_a_score_that_is_left_out():
    scores = [str(a) for a in RIGHT if a.op is Op.SCORE]
    assert "its score of step" in refused(without(RIGHT, scores[0]))
    lines = str(RIGHT).splitlines()
    del lines[len(lines) - 1 - lines[::-1].index(scores[-1])]
    assert "is still to be done" in refused(Program.parse("\n".join(lines)))


def test_an_evaluation_that_is_left_out():
    evaluate = next(str(a) for a in RIGHT if a.op is Op.EVALUATE)
    assert "its evaluate (valid/0) never is" in refused(without(RIGHT, evaluate))
    assert "what was scored is valid/0" in refused(
        replaced(RIGHT, evaluate, evaluate.replace("valid", "test"))
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("@0 client-0 forward haed", r"no segment is named 'haed'"),
        ("@0 server forward head", "segment 'head' is placed on role 'client'"),
        ("@0 server loss lost", "no loss is named 'lost'"),
        ("@0 client-0 loss loss", "loss 'loss' is placed on role 'server'"),
        ("@0 server send head->sever to client-0", "no cut is named 'head->sever'"),
        ("@0 server send head->server to client-0", "head->server goes from role 'client' to 'server'"),
        ("@0 client-0 send head->server to client-1", "head->server goes from role 'client' to 'server'"),
        ("@0 client-0 advance top", "segment 'top' is placed on role 'server'"),
        ("@0 client-0 give client to server", "'server' is not of role 'client'"),
        ("@0 client-0 tell gossip/0 to server", "only metrics and verdicts are told"),
        ("@0 server tell verdict/0 to client-0", "nothing was evaluated here in epoch 0"),
        ("@0 client-0 snapshot 0", "the verdict of epoch 0 is not known here yet"),
    ],
)
def test_a_word_or_place_that_is_wrong(line, why):
    text = refused(Program.parse(line))
    assert why in text and "<-- ERROR HERE" in text


def test_a_party_that_is_not_in_the_graph_names_the_nearest():
    assert refused(Program.parse("@0 client-7 load train.0/0/0")).endswith("did you mean 'client-1'?")
    assert "'client-7', who is not in the graph" in refused(Program.parse("@0 client-7 load train.0/0/0"))


def test_a_merged_program_that_one_thread_could_not_perform():
    lines = str(RIGHT).splitlines()
    send = lines.index(f"@0 client-0 send {SMASH} to server")
    lines.insert(send, lines.pop(lines.index(f"@0 server receive {SMASH} from client-0")))
    program = Program.parse("\n".join(lines))
    assert "stands before its send, so one thread cannot perform" in refused(program)
    assert check({p: program.of(p) for p in program.parties}, GRAPH) > 0


def test_an_error_carries_party_and_step():
    with pytest.raises(ProgramError) as caught:
        check([Action(7, "server", Op.FORWARD, "top")], GRAPH)
    assert (caught.value.party, caught.value.step) == ("server", 7)


def test_ten_thousand_steps_are_checked_in_seconds():
    program = program_of(RoundRobin(turn=50), GRAPH, Calendar([{"train": 5000}] * 2, 1), 1)
    began = time.perf_counter()
    check(program, GRAPH)
    assert time.perf_counter() - began < 10
    assert program[-1].step == 10_000
