"""Several batches for one optimizer step, and several on their way at once: the bits of a plain loop."""

import copy
from functools import cache
from itertools import groupby

import pytest
import torch
from small_studies import assert_same_weights, pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.errors import ProgramError, StudyError
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.runtime.simulate import batches_of
from cutlayer.schedules import Op, Program, check

SOURCE, X, Y = pooled(46)
SGD = {"lr": 0.1, "momentum": 0.9}


@cache
def people():
    return SOURCE.split_rows(2)


@cache
def network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 7),
        nn.Dropout(0.0),
        nn.Tanh(),
        nn.Linear(7, 3),
    )


@cache
def graph(name):
    if name == "vanilla":
        return cl.vanilla(network(), "2", clients=people())
    if name == "u_shaped":
        return cl.u_shaped(network(), ("2", "4"), clients=people())
    return cl.multi_hop(network(), ("2", "4"), clients=people())


def micro(name, accumulate, in_flight, **more):
    schedule = cl.RoundRobin(turn=5, accumulate=accumulate, in_flight=in_flight)
    settings = {"optimizer": cl.optim.SGD(**SGD), "batch_size": 4, "epochs": 2, "drop_last": True} | more
    return study_of(graph(name), schedule=schedule, **settings)


def groups(study):
    """Yield the row numbers of the batches of each optimizer step."""
    cohorts = Cohorts(study.graph, people())
    calendar = study.course(cohorts.rows).calendar
    for epoch in range(study.epochs):
        for batches in batches_of(study.schedule, study.graph, calendar, epoch):
            yield [cohorts.ids[b.turn]["train"][calendar.positions(b).numpy()] for b in batches]


@pytest.mark.parametrize("shape", [(2, 1), (2, 2), (4, 1), (4, 2), (4, 4)], ids=str)
@pytest.mark.parametrize("name", ["vanilla", "u_shaped", "multi_hop"])
def test_accumulated_gradients_have_the_bits_of_a_plain_loop(name, shape):
    study = micro(name, *shape)
    run = study.simulate(people())
    model = copy.deepcopy(network()).train()
    optimizer = torch.optim.SGD(model.parameters(), **SGD)
    for batches in groups(study):
        optimizer.zero_grad()
        for rows in batches:
            nn.functional.cross_entropy(model(X[rows]), Y[rows]).backward()
        for parameter in model.parameters():
            parameter.grad /= len(batches)
        optimizer.step()
    assert_same_weights(run, model)


def test_it_is_one_step_on_all_rows_but_for_the_order_of_summation():
    plain = cl.vanilla(cl.networks.mlp((6, 8, 3)), 0.5, clients=people())
    study = study_of(
        plain,
        schedule=cl.RoundRobin(accumulate=5, in_flight=3),
        optimizer=cl.optim.SGD(**SGD),
        batch_size=4,
        drop_last=True,
    )
    run, central = study.simulate(people()), study.central(people()).weights()
    for segment, weights in run.weights().items():
        for name, tensor in weights.items():
            torch.testing.assert_close(tensor, central[segment][name], rtol=1e-5, atol=1e-6)


def of_first_step(study, party):
    return [
        (a.op, a.step)
        for a in study.program(people()).of(party)
        if a.step < 4 and a.op in (Op.FORWARD, Op.BACKWARD, Op.STEP)
    ]


@pytest.mark.parametrize("in_flight", [1, 2, 4])
def test_a_client_has_as_many_batches_on_their_way_as_is_said(in_flight):
    most = begun = 0
    for op, _ in of_first_step(micro("vanilla", 4, in_flight), "client-0"):
        begun += {Op.FORWARD: 1, Op.BACKWARD: -1}.get(op, 0)
        most = max(most, begun)
    assert most == in_flight
    server = [step for _, step in of_first_step(micro("vanilla", 4, in_flight), "server")]
    assert [step for step, _ in groupby(server)] == [0, 1, 2, 3]  # it does each as it comes


def test_more_in_flight_takes_fewer_ticks():
    ticks = [
        micro("multi_hop", 4, n).check(micro("multi_hop", 4, n).program(people()), people())
        for n in (1, 2, 4)
    ]
    assert ticks[0] > ticks[1] > ticks[2]


def test_one_batch_a_step_is_what_it_was():
    plain, said = study_of(graph("vanilla")), study_of(graph("vanilla"), schedule=cl.RoundRobin(accumulate=1))
    assert plain.program(people()) == said.program(people())
    assert plain.digest == said.digest


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("@0 client-0 accumulate head", None, "its step of step 0 is still to be done"),
        (
            "@0 client-0 accumulate head",
            "@0 client-0 step head",
            "the backward of step 1, begun with these weights",
        ),
    ],
)
def test_a_step_that_comes_too_early_or_never_is_found(old, new, words):
    lines = str(micro("vanilla", 2, 2).program(people())).splitlines()
    at = lines.index(old)
    changed = lines[:at] + ([new] if new else []) + lines[at + 1 :]
    with pytest.raises(ProgramError) as caught:
        check(Program.parse("\n".join(changed)), graph("vanilla"))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"accumulate": 0}, "accumulate is at least 1"),
        ({"in_flight": 0}, "in_flight is at least 1"),
        ({"accumulate": 2, "in_flight": 3}, "no more batches are in flight"),
    ],
)
def test_what_cannot_be_is_refused(wrong, words):
    with pytest.raises(StudyError, match=words):
        cl.RoundRobin(**wrong)
