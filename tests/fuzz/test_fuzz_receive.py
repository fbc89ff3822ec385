"""Frames that are not what the program expects: refused where they arrive, nothing is trained on them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

import cutlayer as cl
from cutlayer.data import Holdings, Records
from cutlayer.errors import FrameError, NumericsError
from cutlayer.metering.run_log import RunLog
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.runtime.simulate import Settings, Simulation
from cutlayer.schedules import Calendar
from cutlayer.wire import DTYPES, Kind, decode, encode

ROWS, BATCH = 12, 4
X, Y = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(0)), torch.arange(ROWS) % 3
NET = cl.networks.mlp((6, 8, 7, 3))


def client():
    return Holdings.of({"c0": {"train": Records(np.arange(ROWS), {"x": X, "y": Y})}}, {"c0": "client"})


def vanilla():
    return cl.vanilla(NET, "linear1", clients=client()), client()


def u_shaped():
    return cl.u_shaped(NET, ("linear1", "linear2"), clients=client()), client()


def vertical():
    held = {"clinic": {"x": X[:, :3]}, "lab": {"x": X[:, 3:]}, "server": {"y": Y}}
    people = Holdings.of({name: {"train": Records(np.arange(ROWS), fields)} for name, fields in held.items()})
    bottoms = {"clinic": nn.Linear(3, 4), "lab": nn.Linear(3, 4)}
    return cl.vertical(bottoms, nn.Linear(8, 3), parties=people), people


class Changing:
    """A transport's end that changes the first frame over a cut."""

    def __init__(self, end, cut, change):
        self.party, self._end, self._cut, self._change = end.party, end, cut, change

    def send(self, party, frame):
        message = decode(frame)
        if message.name == self._cut:
            changed = self._change(message)
            frame = encode(changed)
            self._cut = ""
        self._end.send(party, frame)

    def receive(self, party, timeout_s):
        return self._end.receive(party, timeout_s)

    def close(self):
        self._end.close()


def first_step(make, cut, change=lambda message: message):
    """Do a study's first step, with the frame over ``cut`` changed; return the weights before and after."""
    graph, people = make()
    cohorts, schedule = Cohorts(graph, people), cl.RoundRobin()
    calendar = Calendar(cohorts.rows, BATCH)
    optimizers = dict.fromkeys(graph.order, cl.optim.SGD(lr=0.1))
    chosen = Settings(optimizers=optimizers, epochs=1, seed=0)
    simulation = Simulation(graph, people, schedule, calendar, cohorts, chosen, RunLog(None))
    before = simulation.weights()
    for party in simulation.parties.values():
        party.transport = Changing(party.transport, cut, change)
        party.shared = replace(party.shared, wary=True)
    error = None
    try:
        simulation.performer.perform([next(iter(schedule.epoch(graph, calendar, 0)))])
    except Exception as raised:  # what kind it is, the tests say
        error = raised
    after = simulation.weights()
    moved = {s for s in before if any(not torch.equal(t, after[s][n]) for n, t in before[s].items())}
    return error, moved


def each(change):
    """Change every tensor of a message."""
    return lambda message: message._replace(tensors=tuple((n, change(t)) for n, t in message.tensors))


def first(change):
    """Change the first tensor of a message, not the labels that ride along."""
    return lambda message: message._replace(
        tensors=((message.tensors[0][0], change(message.tensors[0][1])), *message.tensors[1:])
    )


CUTS = {
    "activations with labels": (vanilla, "head->server+y->server", "server"),
    "gradients to a client": (vanilla, "head<-server", "c0"),
    "activations to a client": (u_shaped, "body->client", "c0"),
    "gradients to a server": (u_shaped, "body<-client", "server"),
    "activations of several": (vertical, "lab->server", "server"),
    "gradients to several": (vertical, "lab<-server", "lab"),
}
LIES = {
    "another type": first(lambda t: t.double()),
    "no type of numbers": first(lambda t: t.to(torch.bool)),
    "wider": first(lambda t: torch.cat([t, t], 1)),
    "without width": first(lambda t: t[:, :0]),
    "flat": first(lambda t: t.reshape(-1)),
    "deeper": first(lambda t: t[None]),
    "one number": first(lambda t: t.sum()),
    "nothing there": first(lambda t: None),
    "no rows": each(lambda t: t[:0]),
    "one row": first(lambda t: t[:1]),
    "a row more": first(lambda t: torch.cat([t, t[:1]])),
    "a thousand rows": each(lambda t: t[:1].expand(1000, *t.shape[1:])),
    "another kind": lambda m: m._replace(kind=Kind.STATISTICS),
    "another step": lambda m: m._replace(step=1),
    "the last step there is": lambda m: m._replace(step=2**64 - 1),
    "of an evaluation": lambda m: m._replace(training=False),
    "another cut": lambda m: m._replace(name="head->tail"),
    "a tensor too many": lambda m: m._replace(tensors=(*m.tensors, ("more", torch.ones(1)))),
    "no tensor": lambda m: m._replace(tensors=()),
    "a tensor of another name": lambda m: m._replace(tensors=(("other", m.tensors[0][1]), *m.tensors[1:])),
}


NO_LIE = {("nothing there", cut) for cut in CUTS if cut.startswith("gradients")} | {
    # An input may have got no gradient; and the server learns from this frame alone what it belongs to.
    ("of an evaluation", "activations with labels")
}


@pytest.mark.parametrize("cut", CUTS)
def test_an_honest_frame_is_trained_on(cut):
    make, name, _ = CUTS[cut]
    error, moved = first_step(make, name)
    assert error is None and len(moved) >= 2


@pytest.mark.parametrize(
    ("cut", "lie"),
    [(cut, lie) for lie in LIES for cut in CUTS if (lie, cut) not in NO_LIE],
)
def test_a_lie_is_refused_by_whom_it_reaches(cut, lie):
    make, name, receiver = CUTS[cut]
    error, _ = first_step(make, name, LIES[lie])
    assert isinstance(error, FrameError), repr(error)
    assert (error.party, error.cut, error.step) == (receiver, name, 0)
    assert len(str(error)) < 1000


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("cut", CUTS)
def test_numbers_that_are_none_are_never_trained_on(cut, value):
    make, name, receiver = CUTS[cut]

    def bomb(tensor):
        tensor = tensor.clone()
        tensor[1, 1] = value
        return tensor

    error, _ = first_step(make, name, first(bomb))
    assert isinstance(error, NumericsError), repr(error)
    assert error.party == receiver and error.cut == name and error.step == 0


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(CUTS)),
    st.lists(st.integers(0, 9), max_size=4) | st.lists(st.sampled_from([4, 7, 8]), min_size=2, max_size=2),
    st.sampled_from(sorted(DTYPES, key=str)) | st.just(torch.float32),
    st.sampled_from([0, 1, -1, 2**31 - 1, 255]),
)
@example(cut="gradients to a client", shape=[3, 8], dtype=torch.float32, value=1)
def test_any_other_tensor_is_refused_or_does_no_harm(cut, shape, dtype, value):
    make, name, receiver = CUTS[cut]
    tensor = torch.full(shape, value, dtype=torch.float64).to(dtype)
    error, _ = first_step(make, name, first(lambda _: tensor))
    right = {"activations with labels": 8, "gradients to a client": 8, "activations to a client": 7,
             "gradients to a server": 7}.get(cut, 4)  # fmt: skip
    if shape == [BATCH, right] and dtype is torch.float32:
        assert error is None or isinstance(error, NumericsError)
    else:
        assert isinstance(error, FrameError) and (error.party, error.cut) == (receiver, name), repr(error)
