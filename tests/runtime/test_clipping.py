"""Clipping by the norm of the whole network's gradient, though nobody has the whole of it."""

import copy
from functools import cache

import pytest
import torch
from small_studies import assert_same_weights, batches, by_uncut_name, pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.errors import ProgramError, StudyError
from cutlayer.metering.events import Traffic
from cutlayer.schedules import Op, Program, check

SOURCE, X, Y = pooled(24)
SGD = {"lr": 0.5, "momentum": 0.9}
NET = cl.networks.mlp((6, 8, 7, 3))


@cache
def people():
    return SOURCE.split_rows(2)


@cache
def graph(name):
    if name == "vanilla":
        return cl.vanilla(NET, "linear2", clients=people())
    return {"u_shaped": cl.u_shaped, "multi_hop": cl.multi_hop}[name](
        NET, ("linear1", "linear2"), clients=people()
    )


def clipping(name="vanilla", bound=0.3, **more):
    return study_of(graph(name), schedule=cl.RoundRobin(clip=bound, **more), optimizer=cl.optim.SGD(**SGD))


@pytest.mark.parametrize("bound", [0.3, 100.0])
@pytest.mark.parametrize("name", ["vanilla", "u_shaped", "multi_hop"])
def test_it_equals_the_uncut_network_and_pytorchs_own_clipping(name, bound):
    study = clipping(name, bound)
    run = study.simulate(people())
    assert run.equals(study.central(people()))
    model = copy.deepcopy(NET).train()
    optimizer = torch.optim.SGD(model.parameters(), **SGD)
    for _, rows in batches(study, people()):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X[rows]), Y[rows]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), bound)
        optimizer.step()
    for key, tensor in by_uncut_name(run).items():
        torch.testing.assert_close(tensor, model.state_dict()[key], rtol=1e-4, atol=1e-5)
    if bound == 100.0:  # no gradient is as long
        assert_same_weights(study_of(graph(name), optimizer=cl.optim.SGD(**SGD)).simulate(people()), model)


def test_accumulated_gradients_are_clipped_once():
    study = clipping(bound=0.2, accumulate=2, in_flight=2)
    run = study.simulate(people())
    program = study.program(people())
    steps = [a for a in program if a.op is Op.STEP]
    assert len([a for a in program if a.op is Op.CLIP]) == len(steps)
    free = study_of(graph("vanilla"), schedule=cl.RoundRobin(accumulate=2), optimizer=cl.optim.SGD(**SGD))
    assert not torch.equal(*(by_uncut_name(r)["linear1.weight"] for r in (run, free.simulate(people()))))


def test_each_pair_exchanges_one_number_a_step_and_the_statement_says_so():
    run = clipping().simulate(people())
    told = [e for e in run.events if isinstance(e, Traffic) and e.cut == "gradient norm"]
    steps = len(batches(clipping(), people()))
    assert sum(e.frames for e in told) == 2 * steps
    assert sum(e.tensor_bytes for e in told) == 2 * steps * 8
    for party in ("client-0", "server"):
        assert "the norm of its gradients" in " ".join(clipping().disclosure(party).split())
        assert "norm" not in study_of(graph("vanilla")).disclosure(party)


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("@0 client-0 clip 0.3", "still to be clipped"),
        ("@0 client-0 report squares to server", "waits for squares"),
        ("@0 server report norm to client-0", "waits for norm"),
        ("@0 client-0 backward head", "backward"),
    ],
)
def test_what_is_left_out_is_found(gone, words):
    lines = str(clipping().program(people())).splitlines()
    lines.remove(gone)
    with pytest.raises(ProgramError, match=words):
        check(Program.parse("\n".join(lines)), graph("vanilla"))


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bound_is_above_0(bound):
    with pytest.raises(StudyError, match="clip is the bound of a norm"):
        cl.RoundRobin(clip=bound)
