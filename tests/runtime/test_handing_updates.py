"""Hand-over of updates: a client makes the state of initial weights, which it knows, and what came; the same bits."""

from functools import cache

import pytest
import torch
from small_studies import pooled, study_of
from test_schedules_apart import apart
from torch import nn

import cutlayer as cl
from cutlayer.errors import FrameError, ProgramError
from cutlayer.metering.events import Traffic
from cutlayer.metering.run_log import RunLog
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.runtime.simulate import Simulation
from cutlayer.schedules import Leave, Op, Program, check
from cutlayer.wire import Kind, Message, decode, encode

PEOPLE = pooled(33)[0].split_rows(3)


@cache
def graph(name="vanilla", frozen=False):
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Linear(6, 64), nn.BatchNorm1d(64), nn.Tanh(), nn.Linear(64, 7), nn.Dropout(0.1), nn.Linear(7, 3)
    )
    if frozen:
        net[0].requires_grad_(False)
    if name == "u_shaped":
        return cl.u_shaped(net, ("2", "4"), clients=PEOPLE)
    return cl.vanilla(net, "3" if frozen else "2", clients=PEOPLE)


def study(name="vanilla", frozen=False, optimizer=None, **more):
    schedule = cl.RoundRobin(**({"updates": True} | more))
    optimizer = optimizer or cl.optim.SGD(lr=0.01, momentum=0.9)
    return study_of(graph(name, frozen), schedule=schedule, batch_size=4, optimizer=optimizer)


@pytest.mark.parametrize("optimizer", [None, cl.optim.Adam(lr=0.01)], ids=["momentum", "adam"])
@pytest.mark.parametrize("more", [{}, {"turn": 2}, {"handover": "server"}], ids=str)
@pytest.mark.parametrize("name", ["vanilla", "u_shaped"])
def test_the_bits_are_those_without(name, more, optimizer):
    run = study(name, optimizer=optimizer, **more).simulate(PEOPLE)
    assert run.equals(study(name, optimizer=optimizer, **more).central(PEOPLE))
    whole = study(name, optimizer=optimizer, updates=False, **more).simulate(PEOPLE)
    for segment, weights in whole.weights().items():
        assert all(torch.equal(tensor, run.weights()[segment][key]) for key, tensor in weights.items())


def test_parties_apart_come_to_the_same_bits():
    simulated = study("u_shaped", turn=2).simulate(PEOPLE)
    found = apart(study("u_shaped", turn=2), PEOPLE)
    for segment in graph("u_shaped").order:
        party = simulated._simulation.holder(segment).name
        for key, tensor in simulated.weights()[segment].items():
            assert torch.equal(found[party, segment][key], tensor), (segment, key)


def test_a_client_that_comes_late_needs_one_update():
    late = [Leave(2, 0, 0, until=1)]
    found, whole = (apart(study(updates=updates), PEOPLE, late) for updates in (True, False))
    assert "client-2" in {party for party, _ in found}
    assert found.keys() == whole.keys()
    for at, weights in whole.items():
        assert all(torch.equal(tensor, found[at][key]) for key, tensor in weights.items()), at


def handed(run):
    """Return frames and bytes of hand-overs."""
    sent = [e for e in run.events if isinstance(e, Traffic) and e.cut == "hand-over of client"]
    return sum(e.frames for e in sent), sum(e.frame_bytes for e in sent)


def test_frames_are_shorter_and_what_is_frozen_takes_almost_nothing():
    plain = {"optimizer": cl.optim.SGD(lr=0.01)}  # an optimizer without memory
    weights = sum(t.nbytes for t in graph().segments["head"].module.state_dict().values())
    (frames, whole), (same, short) = (
        handed(study(updates=updates, **plain).simulate(PEOPLE)) for updates in (False, True)
    )
    assert frames == same and whole - short > 0.05 * weights * frames
    frames, whole = handed(study(frozen=True, updates=False, **plain).simulate(PEOPLE))
    same, short = handed(study(frozen=True, **plain).simulate(PEOPLE))
    assert frames == same and whole - short > 0.95 * 7 * 64 * 4 * frames  # the frozen layer's bytes


def test_the_program_says_so_and_the_checker_knows_it():
    program = study(handover="server").program(PEOPLE)
    moves = {a.op: a for a in program if a.op in (Op.GIVE, Op.RELAY, Op.TAKE)}
    assert {a.what for a in moves.values()} == {"client:update"}
    assert len(moves) == 3
    text = str(program)
    for old, new, words in [
        ("give client:update", "give client:weights", "a state is not handed over as 'weights'"),
        ("take client:update", "take client", "the next frame from server is '@"),
        ("give client:update", "give cleint:update", "no role is named 'cleint'"),
    ]:
        with pytest.raises(ProgramError) as caught:
            check(Program.parse(text.replace(old, new, 1)), graph())
        assert words in str(caught.value)


def test_all_parties_must_hand_over_alike():
    digests = {study(updates=updates).parts["program"] for updates in (False, True)}
    assert len(digests) == 2
    assert "hand-over peer to peer of updates" in study().schedule.describe()


class Meddling:
    """A transport's end that changes the first sealed frame."""

    def __init__(self, end, change):
        self.party, self._end, self._change, self._done = end.party, end, change, False

    def send(self, party, frame):
        message = decode(bytes(frame))
        if message.kind is Kind.SEALED and not self._done:
            self._done = True
            inner = decode(message.tensors[0][1].numpy())
            inner = inner._replace(tensors=tuple(self._change(n, t) for n, t in inner.tensors))
            sealed = torch.frombuffer(bytearray(encode(inner)), dtype=torch.uint8)
            frame = encode(Message(Kind.SEALED, message.name, message.step, (("sealed", sealed),)))
        self._end.send(party, frame)

    def receive(self, party, timeout_s):
        return self._end.receive(party, timeout_s)

    def close(self):
        self._end.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n, t: (n, t[:-3]) if "/update/" in n else (n, t), "an update"),
        (
            lambda n, t: (n.replace("update/weight/0", "update/weight/9"), t),
            "an update of nothing that is known",
        ),
        (lambda n, t: (n.replace("head/update", "tail/update"), t), "an update of nothing that is known"),
        (lambda n, t: (n.replace("update/", ""), t), "does not fit at"),
    ],
    ids=["cut short", "unknown weight", "unknown segment", "as if it was whole"],
)
def test_an_update_that_is_none_is_refused(change, words):
    people, one = PEOPLE, study()
    cohorts = Cohorts(one.graph, people)
    calendar = one.course(cohorts.rows).calendar
    simulation = Simulation(one.graph, people, one.schedule, calendar, cohorts, one.settings, RunLog())
    for party in simulation.parties.values():
        party.transport = Meddling(party.transport, change)
    with pytest.raises(FrameError, match=words) as caught:
        simulation.train()
    assert caught.value.party == "client-1"
