"""The conductor, told what parties say; it is sent no frame and touches no tensor."""

from __future__ import annotations

import json

import numpy as np
import pytest
from torch import nn

from cutlayer import RoundRobin, Study, optim, vanilla
from cutlayer.data import arrays
from cutlayer.errors import AlignmentError, DataError, FrameError, StudyError
from cutlayer.runtime.positions import START, Position
from cutlayer.schedules import Leave
from cutlayer.sessions.conductor import Absence, Conductor
from cutlayer.sessions.messages import Bye, Done, Go, Held, Hello, Offer, Ready, read_message, written
from cutlayer.sessions.remembered import Roster
from cutlayer.sessions.roster import offer_of, turn_rows

CLIENTS = ("client-0", "client-1", "client-2")


def study_and_data():
    rows = arrays(np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), np.arange(60) % 2)
    holdings = rows.split_rows(3)
    graph = vanilla(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), cut="0", clients=holdings)
    study = Study(
        graph=graph, optimizer=optim.SGD(lr=0.1), schedule=RoundRobin(turn=2), batch_size=5, epochs=3
    )
    return study, holdings


class Recorded:
    """A line that keeps what the conductor sends, and parties that answer by the test's word."""

    def __init__(self, absence: Absence | None = None, roster: Roster | None = None) -> None:
        self.study, self.holdings = study_and_data()
        self.notes: list[tuple[str, str]] = []
        self.sent: dict[str, list] = {}
        self.dropped: dict[str, str] = {}
        self.kept: list[dict] = []
        self.offers = {p.name: offer_of(p, self.study.digest) for p in self.holdings.parties}
        self.conductor = Conductor(
            self.study.graph,
            "server",
            self.study.parts,
            absence or Absence(),
            course=self.study.course,
            note=lambda who, what: self.notes.append((who, what)),
            roster=roster,
            keep_roster=lambda roster: self.kept.append(dict(vars(roster))),
        )
        self.conductor.connect(self)

    def control(self, party: str, message: bytes) -> None:
        self.sent.setdefault(party, []).append(read_message(message, "server"))

    def call_off(self, generation: int) -> None:
        self.generation = generation

    def drop(self, party: str, reason: str) -> None:
        self.dropped[party] = reason

    def join(self, party: str, incarnation: bytes = b"1", positions=(), ready: bool = True) -> None:
        hello = Hello(parts=self.study.parts, offer=self.offers.get(party, Offer()), card={"party": party})
        self.conductor.admit(party, written(hello))
        self.conductor.on_presence(party, incarnation, True)
        if ready:
            self.ready(party, positions)

    def ready(self, party: str, positions=()) -> None:
        self.say(party, Ready(generation=self.conductor.generation, positions=list(positions)))

    def say(self, party: str, message) -> None:
        self.conductor.on_control(party, written(message))

    def last(self, party: str, kind: str):
        return [m for m in self.sent.get(party, []) if m.kind == kind][-1]

    def count(self, party: str, kind: str) -> int:
        return sum(m.kind == kind for m in self.sent.get(party, []))

    def all_join(self, positions=()) -> None:
        for party in ("server", *CLIENTS):
            self.join(party, positions=positions)


def test_it_says_go_when_all_are_there_and_not_before():
    line = Recorded()
    for party in ("server", "client-0", "client-1"):
        line.join(party)
    assert not any(line.count(p, "go") for p in ("server", *CLIENTS))
    line.join("client-2")
    go = line.last("client-0", "go")
    assert go.position == (0, 0) and [turn["train"] for turn in go.rows] == [20, 20, 20]
    assert set(go.cards) == {"server", *CLIENTS}
    assert line.count("server", "go") == 1 and line.kept[-1]["generation"] == go.generation


def test_a_restarted_party_makes_all_go_on_from_the_last_common_position():
    line = Recorded()
    line.all_join()
    line.join("client-1", b"2", ready=False)
    call = line.last("client-0", "roll call")
    assert call.generation == line.conductor.generation == line.generation
    assert "client-1 restarted" in call.reason
    # client-0 trains items 0 and 1, client-1 takes over (items 2 and 3: give and take) and trains 4 and 5.
    line.ready("server", [(0, 2), (0, 4), (0, 6)])
    line.ready("client-0", [(0, 2), (0, 4)])
    line.ready("client-2", [])
    assert line.count("client-0", "go") == 1
    line.ready("client-1", [(0, 4)])
    assert line.last("server", "go").position == (0, 4)


def test_a_party_that_does_nothing_in_between_needs_no_snapshot_of_the_place():
    line = Recorded()
    line.all_join()
    line.join("client-2", b"2", ready=False)
    # client-2 has never acted; client-0 not since it gave the state away at item 4.
    line.ready("server", [(0, 6), (0, 8)])
    line.ready("client-0", [(0, 4)])
    line.ready("client-1", [(0, 6), (0, 8)])
    line.ready("client-2", [])
    # Item 7 is client-2's taking over, so at 8 it has acted: what it would need it does not hold.
    assert line.last("server", "go").position == (0, 6)


def test_a_lost_connection_alone_disturbs_nobody():
    line = Recorded()
    line.all_join()
    generation = line.conductor.generation
    line.conductor.on_presence("client-1", b"1", False)
    line.conductor.on_presence("client-1", b"1", True)
    assert line.conductor.generation == generation and line.conductor.running
    assert ("client-1", "connection lost") in line.notes


def test_old_snapshots_go_when_all_hold_two_later_ones():
    line = Recorded()
    line.all_join()
    for party in ("server", "client-0"):
        line.say(party, Held(positions=[(0, 2)]))
        line.conductor.tick()
    assert not line.count("server", "keep")
    for party in ("server", "client-0", "client-1"):
        line.say(party, Held(positions=[(0, 2), (0, 4)]))
        line.conductor.tick()
    assert line.last("server", "keep").position == (0, 2)
    assert line.kept[-1]["kept"] is True


def test_snapshots_behind_the_place_all_went_back_to_count_no_more():
    line = Recorded()
    line.all_join()
    line.join("client-1", b"2", ready=False)
    for party in ("server", "client-0", "client-2"):
        line.ready(party, [(0, 2), (0, 4)] if party != "client-2" else [])
    line.ready("client-1", [])
    assert line.last("server", "go").position == (0, 2)
    line.say("client-1", Held(positions=[(0, 4)]))
    line.conductor.tick()
    assert not line.count(
        "server", "keep"
    )  # the server does (0, 4) once more: it has not said yet that it holds it


def test_who_lost_its_snapshots_is_named_and_nothing_begins_anew():
    line = Recorded(roster=Roster(kept=True, generation=4))
    line.join("server", positions=[(1, 0)])
    line.join("client-0", positions=[(1, 0)])
    line.join("client-1", positions=[])
    line.join("client-2", positions=[(1, 0)])
    stopped = line.last("server", "stop")
    assert "no snapshot in common" in stopped.reason and "client-1" in stopped.reason
    assert not line.count("server", "go") and line.conductor.over.is_set()


def test_a_host_that_lost_its_folder_begins_nothing_anew():
    line = Recorded()
    line.join("server")
    for party in CLIENTS:
        line.join(party, positions=[(2, 0)])
    stopped = line.last("client-0", "stop")
    assert "the host remembers nothing" in stopped.reason and "client-0, client-1, client-2" in stopped.reason
    assert not line.count("client-0", "go")


def test_generations_rise_over_restarts_of_the_host():
    line = Recorded(roster=Roster(generation=7))
    line.all_join()
    assert line.last("server", "go").generation == 8


def test_another_study_is_refused_and_told_which_part_differs():
    line = Recorded()
    parts = line.study.parts | {"seed": "0" * 64}
    with pytest.raises(StudyError, match=r"seed differ.*same study file"):
        line.conductor.admit("client-0", written(Hello(parts=parts, offer=Offer(), card={})))


def test_other_data_than_before_are_refused():
    line = Recorded()
    line.all_join()
    line.offers["client-0"] = Offer(rows={"train": 19}, ids={"train": "0" * 64})
    with pytest.raises(StudyError, match="other data"):
        line.join("client-0", b"2")


def test_a_stranger_is_not_on_the_list():
    line = Recorded()
    with pytest.raises(StudyError, match="not on this study's list"):
        line.join("client-9")


def test_the_end_is_said_when_all_are_done_and_again_to_who_missed_it():
    line = Recorded()
    line.all_join()
    generation = line.conductor.generation
    for party in ("server", *CLIENTS):
        assert not line.conductor.over.is_set()
        line.say(party, Done(generation=generation))
    assert line.conductor.over.is_set() and line.count("client-2", "bye") == 1
    again = Recorded(roster=Roster(generation=generation, finished=True))
    again.join("client-2")
    assert again.count("client-2", "bye") == 1


def test_absent_stop_and_wait():
    line = Recorded(Absence(then="stop", after_s=0.0))
    line.all_join()
    line.conductor.tick()
    assert not line.conductor.over.is_set()
    line.conductor.on_presence("client-1", b"1", False)
    line.conductor.tick()
    assert "client-1 did not come back" in line.last("server", "stop").reason
    waiting = Recorded(Absence(after_s=0.0))
    waiting.all_join()
    waiting.conductor.on_presence("client-1", b"1", False)
    waiting.conductor.tick()
    status = waiting.last("server", "status")
    assert status.missing == ["client-1"] and "waiting for client-1" in status.text
    assert not waiting.conductor.over.is_set() and waiting.conductor.running


def test_absent_skip_goes_back_to_before_the_state_was_handed_to_who_is_gone():
    line = Recorded(Absence(then="skip", after_s=0.0))
    line.all_join()
    line.conductor.on_presence("client-1", b"1", False)
    line.conductor.tick()
    # At (0, 4) client-1 has the state; only at (0, 2) client-0 still has.
    line.ready("server", [(0, 2), (0, 4), (0, 5)])
    line.ready("client-0", [(0, 2), (0, 4)])
    line.ready("client-2", [])
    # Later positions are of a course that is no more: all let go of them before the new one is written down.
    assert line.last("server", "roll call").back_to == (0, 2)
    assert line.conductor._roster.leaves == []
    for party in ("server", "client-0"):
        line.ready(party, [(0, 2)])
    line.ready("client-2", [])
    go = line.last("server", "go")
    assert go.position == (0, 2)
    assert [tuple(leave) for leave in go.leaves] == [tuple(Leave(1, 0, 0))]
    assert "client-1" not in go.cards
    # It comes back and is let in when an epoch begins.
    line.join("client-1", b"2")
    assert line.count("client-1", "go") == 1
    line.conductor.epoch_begins(1)
    for party in ("server", *CLIENTS):
        line.ready(party, [(1, 0)] if party != "client-1" else [])
    go = line.last("client-1", "go")
    assert go.position == (1, 0) and [tuple(leave) for leave in go.leaves] == [(1, 0, 0, 1)]


def test_who_restarts_while_all_go_back_goes_back_too():
    line = Recorded(Absence(then="skip", after_s=0.0))
    line.all_join()
    for party in ("server", *CLIENTS):
        line.say(party, Held(positions=[(0, 2), (0, 4)]))
    line.conductor.on_presence("client-1", b"1", False)
    line.conductor.tick()
    for party in ("server", "client-0", "client-2"):
        line.ready(party, [(0, 2), (0, 4)])
    back_to = line.last("server", "roll call").back_to
    assert back_to is not None
    line.join("client-0", b"2", ready=False)  # it was killed before it heard of that
    assert line.last("client-0", "roll call").back_to == back_to


def test_who_has_heard_of_the_end_is_not_called_lost():
    line = Recorded()
    line.all_join()
    for party in ("server", *CLIENTS):
        line.say(party, Done(generation=line.conductor.generation))
    for party in ("server", "client-0"):
        line.say(party, Bye())
    for party in ("client-0", "client-1"):
        line.conductor.on_presence(party, b"1", False)
    assert ("client-0", "connection lost") not in line.notes
    assert ("client-1", "connection lost") in line.notes


def test_when_all_are_there_everyone_is_told_so():
    line = Recorded()
    for party in ("server", "client-0", "client-1"):
        line.join(party)
    line.conductor.tick()
    assert line.last("client-0", "status").missing == ["client-2"]
    line.join("client-2")
    assert line.last("client-0", "status").missing == []


def test_who_comes_late_begins_with_an_epoch():
    line = Recorded(Absence(then="skip", late=("client-2",)))
    for party in ("server", "client-0", "client-1"):
        line.join(party)
    go = line.last("server", "go")
    assert go.rows[2] == {} and [tuple(leave)[:3] for leave in go.leaves] == [(2, 0, 0)]
    line.join("client-2")
    line.conductor.epoch_begins(2)
    for party in ("server", *CLIENTS):
        line.ready(party, [(2, 0)] if party != "client-2" else [])
    go = line.last("client-2", "go")
    assert go.rows[2]["train"] == 20 and go.position == (2, 0)
    course = line.study.course(go.rows, [Leave(*leave) for leave in go.leaves])
    assert course.calendar.steps(1) == 8 and course.calendar.steps(2) == 12
    assert course.calendar.first_step(2) == 16


def test_control_messages_that_are_none_are_noted():
    line = Recorded()
    line.all_join()
    for text in (
        b"",
        b"{",
        b'{"kind": "go"}',
        b'{"kind": "nothing"}',
        b"[" * 100_000,
        json.dumps({"kind": 1}).encode(),
    ):
        line.dropped.clear()
        line.conductor.on_control("client-0", text)
        assert "client-0" in line.dropped
    line.conductor.on_control("client-0", written(Go(generation=1, position=(0, 0), rows=[], cards={})))
    assert "only the host sends" in line.dropped["client-0"]
    with pytest.raises(FrameError):
        line.conductor.admit("client-0", b"no hello")


# Roster


def test_rows_of_a_turn_need_the_same_ids_at_all_its_parties():
    study, holdings = study_and_data()
    offers = {p.name: offer_of(p, study.digest) for p in holdings.parties} | {"server": Offer()}
    assert turn_rows(study.graph, offers) == [{"train": 20}] * 3
    assert turn_rows(study.graph, offers, ["client-1"])[1] == {}

    rows = arrays(np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32), np.arange(12) % 2)
    shared = rows.split({"client": "*"}, labels="server", seed=3)
    graph = vanilla(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), cut="0", clients=shared)
    brought = {p.name: offer_of(p, "d") for p in shared.parties}
    assert turn_rows(graph, brought) == [{"train": 12}]
    brought["server"] = Offer(rows={"train": 13}, ids={"train": "1" * 64})
    assert turn_rows(graph, brought) == [{"train": 12}]
    brought["server"] = Offer(rows={"train": 12}, ids={"train": "1" * 64})
    with pytest.raises(AlignmentError, match="same ids"):
        turn_rows(graph, brought)
    brought["server"] = Offer()
    with pytest.raises(DataError, match="no rows to train on"):
        turn_rows(graph, brought)


def test_ids_are_hashed_with_the_study_and_in_order():
    study, holdings = study_and_data()
    party = holdings.parties[0]
    one = offer_of(party, study.digest)
    assert one == offer_of(party, study.digest) != offer_of(party, "another")
    assert offer_of(None, study.digest) == Offer()


# Course


def test_until_is_the_next_action_and_the_holder_who_gives_next():
    study, holdings = study_and_data()
    course = study.course(
        turn_rows(study.graph, {p.name: offer_of(p, "d") for p in holdings.parties} | {"server": Offer()})
    )
    assert course.until("client-1", START) == Position(0, 3)
    assert course.until("server", Position(0, 4)) == Position(0, 4)
    assert course.until("client-0", Position(2, 10**6)) == course.end == Position(3, 0)
    assert course.holders(START) == {"client-0"} and course.holders(Position(0, 4)) == {"client-1"}
    assert course.done(Position(0, 6), 1) == 2
    assert course.until("client-0", Position(10**9, 0)) == course.end
