"""Parties, machines and lines: when things happen, worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutlayer.errors import StudyError
from cutlayer.planner.events import Line, Move, Timeline

SLOW = Line(mbit=8.0, latency_ms=100.0, overhead=1.0)  # a megabyte a second


def test_a_frame_takes_both_lines_and_both_latencies():
    timeline = Timeline({"a": SLOW, "b": Line(mbit=16.0, latency_ms=50.0, overhead=1.0)})
    assert timeline.perform([Move("a", "send", 2e6, "b"), Move("b", "receive", 0, "a")]) == pytest.approx(
        2.15
    )
    assert timeline.clock["a"] == 0  # it need not wait for what it sent


def test_a_receivers_line_carries_one_frame_after_the_other():
    timeline = Timeline({"server": SLOW})
    moves = [Move(name, "send", 1e6, "server") for name in "ab"]
    moves += [Move("server", "receive", 0, name) for name in "ab"]
    assert timeline.perform(moves) == pytest.approx(2.1)


def test_two_who_receive_at_the_same_time_share_the_senders_line():
    timeline = Timeline({"server": SLOW})
    moves = [Move("server", "send", 1e6, "a"), Move("server", "send", 1e6, "b")]
    timeline.perform([*moves, Move("a", "receive", 0, "server"), Move("b", "receive", 0, "server")])
    assert timeline.clock["a"] == pytest.approx(1.85) and timeline.clock["b"] == pytest.approx(
        2.1
    )  # in quarters


def test_who_comes_first_is_served_first_whatever_the_order_of_the_program():
    timeline = Timeline({"server": Line(mbit=8.0, latency_ms=0.0, overhead=1.0)})
    moves = [
        Move("slow", "work", 10.0),
        Move("slow", "send", 1e6, "server"),
        Move("quick", "send", 1e6, "server"),
    ]
    moves += [
        Move("server", "receive", 0, "quick"),
        Move("server", "work", 0.5),
        Move("server", "send", 0, "quick"),
    ]
    timeline.perform([*moves, Move("quick", "receive", 0, "server")])
    assert timeline.clock["quick"] == pytest.approx(1.5)


def test_work_at_one_party_goes_on_while_others_wait():
    moves = [
        Move("a", "work", 3.0),
        Move("b", "work", 2.0),
        Move("b", "send", 0, "a"),
        Move("a", "receive", 0, "b"),
    ]
    timeline = Timeline()
    assert timeline.perform(moves) == 3.0 and dict(timeline.worked) == {"a": 3.0, "b": 2.0}
    assert timeline.perform([Move("a", "work", 1.0)]) == 4.0  # a later epoch goes on from there


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 10**6)), min_size=1, max_size=8), st.floats(0.1, 100)
)
def test_a_chain_takes_the_sum_of_its_parts(parts, mbit):
    line = Line(mbit=mbit, latency_ms=7.0, overhead=1.0)
    moves = []
    for index, (seconds, size) in enumerate(parts):
        moves += [Move(f"p{index}", "work", seconds), Move(f"p{index}", "send", size, f"p{index + 1}")]
        moves.append(Move(f"p{index + 1}", "receive", 0, f"p{index}"))
    names = [f"p{index}" for index in range(len(parts) + 1)]
    expected = 0.0
    for seconds, size in parts:
        expected = max(expected, 0.0) + seconds + size * 8 / mbit / 1e6 + 0.014
    # Each party works only after what it got, so its work comes behind its receiving.
    ordered = sorted(moves, key=lambda move: {"receive": 0, "work": 1, "send": 2}[move.kind])
    found = Timeline(dict.fromkeys(names, line)).perform(ordered)
    assert found == pytest.approx(expected)


def test_what_two_others_send_each_other_goes_through_the_host():
    lines = {name: Line(mbit=8.0, latency_ms=50.0, overhead=1.0) for name in ("a", "b", "host")}
    moves = [Move("a", "send", 1e6, "b"), Move("b", "receive", 0, "a")]
    assert Timeline(lines).perform(moves) == pytest.approx(1.1)
    assert Timeline(lines, hub="host").perform(moves) == pytest.approx(2.2)
    assert Timeline(lines, hub="b").perform(moves) == pytest.approx(1.1)


def test_packets_and_records_are_carried_too():
    frame, line = 1_048_576, Line(mbit=8.0, latency_ms=0.0)
    secured = frame + 64 * 31  # in 64 records of TLS
    packets = secured + -(-secured // 1448) * 52
    assert Timeline({"b": line}).perform([Move("a", "send", frame, "b"), Move("b", "receive", 0, "a")]) == (
        pytest.approx(packets / 1e6, rel=1e-3)
    )


def test_a_wait_for_nothing_is_an_error():
    with pytest.raises(StudyError, match="never sent"):
        Timeline().perform([Move("a", "receive", 0, "b")])


@pytest.mark.parametrize(
    "wrong", [{"mbit": 0}, {"up_mbit": -1.0}, {"latency_ms": -1}, {"mbit": float("nan")}, {"overhead": 0.5}]
)
def test_lines_that_cannot_be_are_refused(wrong):
    with pytest.raises(StudyError):
        Line(**wrong)
