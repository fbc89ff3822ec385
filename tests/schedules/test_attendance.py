"""Who takes part in a round: stated, seeded, and the same whoever else is there."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import small_graph

from cutlayer.errors import StudyError
from cutlayer.schedules import Calendar, Leave, SplitFed
from cutlayer.schedules.attendance import Attendance, Share

GRAPH = small_graph("vanilla")  # client-0 and client-1
ROWS = [{"train": 10}, {"train": 4}]
MANY = Calendar([{"train": 6 + turn} for turn in range(40)], 2, seed=5)


def turns(attendance, calendar=MANY, epoch=0, number=0):
    return [share.turn for share in attendance.shares(GRAPH, calendar, epoch, number)]


def test_everybody_does_an_epoch_unless_something_is_said():
    shares = Attendance().shares(GRAPH, Calendar(ROWS, 2), 0, 0)
    assert sorted(shares) == [Share(0, 0, 5), Share(1, 0, 2)]
    assert Attendance().rounds(Calendar(ROWS, 2), 0) == 1


def test_rounds_of_some_batches_end_when_the_longest_is_done():
    attendance, calendar = Attendance(round=2), Calendar(ROWS, 2)
    assert attendance.rounds(calendar, 0) == 3
    rounds = [sorted(attendance.shares(GRAPH, calendar, 0, n)) for n in range(3)]
    assert rounds == [[(0, 0, 2), (1, 0, 2)], [(0, 2, 4)], [(0, 4, 5)]]


@given(st.integers(1, 40) | st.floats(0.01, 1.0), st.integers(0, 5), st.integers(0, 9))
def test_a_sample_has_its_size_and_comes_of_the_seed(sample, epoch, seed):
    calendar = replace(MANY, seed=seed)
    chosen = turns(Attendance(sample=sample), calendar, epoch)
    size = sample if isinstance(sample, int) else -(-sample * 40 // 1)
    assert len(set(chosen)) == len(chosen) == min(40, size)
    assert chosen == turns(Attendance(sample=sample), calendar, epoch)


def test_samples_differ_from_round_to_round_and_seed_to_seed():
    few = Attendance(sample=4, round=1)
    assert turns(few) != turns(few, number=1) != turns(few, epoch=1)
    assert turns(few) != turns(few, replace(MANY, seed=6))


@given(st.sets(st.integers(0, 39), max_size=30), st.integers(1, 40))
def test_who_leaves_changes_nothing_for_the_others(gone, sample):
    leaves = replace(MANY, leaves=[Leave(turn, 0, 0) for turn in gone])
    everybody = turns(Attendance(sample=sample))
    assert turns(Attendance(sample=sample), leaves) == [turn for turn in everybody if turn not in gone]


@pytest.mark.parametrize(
    ("late", "expected"),
    [("wait", [(0, 0, 5), (1, 0, 2)]), ("drop", [(1, 0, 2)]), ("partial", [(0, 0, 2), (1, 0, 2)])],
)
def test_a_slow_client_is_awaited_left_out_or_cut_short(late, expected):
    slow = Attendance(speeds={"client-0": 0.5}, deadline=4, late=late)
    assert sorted(slow.shares(GRAPH, Calendar(ROWS, 2), 0, 0)) == expected


def test_nobody_in_time_is_nobody():
    nobody = SplitFed(deadline=0.1, late="drop")
    assert not nobody.shares(GRAPH, Calendar(ROWS, 2), 0, 0)
    ops = {action.op for action in nobody.epoch(GRAPH, Calendar(ROWS, 2), 0)}
    assert ops == {"advance"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"round": -1}, "a round has at least one batch"),
        ({"sample": 0}, "sample is a number of clients or a share"),
        ({"sample": 1.5}, "sample is a number of clients or a share"),
        ({"sample": True}, "sample is a number of clients or a share"),
        ({"speeds": {"client-0": 0.0}}, "client-0: a speed is batches a second"),
        ({"deadline": 0}, "a deadline is a number of seconds"),
        ({"late": "dorp"}, "did you mean 'drop'"),
        ({"version": 4}, "the versions 1, 2 and 3"),
        ({"at_once": 0}, "at least one client works"),
        ({"weights": "row"}, "did you mean 'rows'"),
    ],
)
def test_what_cannot_be_is_refused(wrong, words):
    with pytest.raises(StudyError, match=words):
        SplitFed(**wrong)


def test_a_speed_of_nobody_names_the_nearest():
    with pytest.raises(StudyError, match="did you mean 'client-0'"):
        Attendance(speeds={"client0": 2.0}).shares(GRAPH, Calendar(ROWS, 2), 0, 0)
