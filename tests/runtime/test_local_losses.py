"""Local losses: clients learn from an auxiliary head of their own, and no gradient comes back."""

import copy
from functools import cache

import pytest
import torch
from small_studies import batches, pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.errors import ProgramError
from cutlayer.metering.events import Traffic
from cutlayer.schedules import Op, check

SOURCE, X, Y = pooled(24)
LR = 0.1


@cache
def people():
    return SOURCE.split_rows(2)


@cache
def graph():
    torch.manual_seed(2)
    return cl.SplitGraph.over(
        people(),
        segments=[
            cl.Segment("head", "client", nn.Sequential(nn.Linear(6, 8), nn.ReLU()), ("x",)),
            cl.Segment("guess", "client", nn.Linear(8, 3), ("head",)),
            cl.Segment("top", "server", nn.Linear(8, 3), ("head",)),
        ],
        losses=[
            cl.Loss(role="server", prediction="top"),
            cl.Loss(role="client", prediction="guess", name="local"),
        ],
        shares=[cl.Share("y", "client", "server")],
    )


def test_a_turn_has_the_bits_of_two_plain_loops():
    study = study_of(graph(), schedule=cl.RoundRobin(local=True), optimizer=cl.optim.SGD(lr=LR))
    run = study.simulate(people())
    head, guess, top = (
        copy.deepcopy(graph().segments[name].module).train() for name in ("head", "guess", "top")
    )
    client = torch.optim.SGD([*head.parameters(), *guess.parameters()], lr=LR)
    server = torch.optim.SGD(top.parameters(), lr=LR)
    for _, rows in batches(study, people()):
        smashed = head(X[rows])
        client.zero_grad()
        nn.functional.cross_entropy(guess(smashed), Y[rows]).backward()
        client.step()
        server.zero_grad()
        nn.functional.cross_entropy(top(smashed.detach()), Y[rows]).backward()
        server.step()
    for name, module in (("head", head), ("guess", guess), ("top", top)):
        for key, tensor in module.state_dict().items():
            assert torch.equal(run.weights()[name][key], tensor), (name, key)


@pytest.mark.parametrize(
    "schedule",
    [
        cl.RoundRobin(local=True),
        cl.SplitFed(local=True),
        cl.SplitFed(local=True, version=2),
        cl.Parallel(local=True),
        cl.Asynchronous(local=True),
    ],
    ids=lambda schedule: schedule.describe(),
)
def test_no_gradient_leaves_the_server(schedule):
    study = study_of(graph(), schedule=schedule)
    run = study.simulate(people())
    assert "gradient" not in {e.content for e in run.events if isinstance(e, Traffic)}
    assert "no gradient back" in schedule.describe()
    start = {name: graph().segments[name].module.state_dict() for name in graph().order}
    for name, weights in run.weights().items():
        assert all(not torch.equal(tensor, start[name][key]) for key, tensor in weights.items())
    again = study_of(graph(), schedule=type(schedule)()).simulate(people())
    assert "gradient" in {e.content for e in again.events if isinstance(e, Traffic)}


def test_the_client_does_not_wait_for_the_server():
    program = study_of(graph(), schedule=cl.RoundRobin(local=True)).program(people())
    ops = [action.op for action in program.of("client-0") if action.step == 0]
    assert Op.RECEIVE not in ops and ops.count(Op.DETACH) == 1 and ops[-2:] == [Op.BACKWARD, Op.STEP]


def test_without_a_loss_of_its_own_the_client_needs_the_gradient():
    """``local`` is only for cuts behind which the client has a loss; elsewhere gradients come as ever."""
    plain = cl.vanilla(cl.networks.mlp((6, 8, 3)), 0.5, clients=people())
    local, ordinary = (
        str(study_of(plain, schedule=cl.RoundRobin(local=local)).program(people())) for local in (True, False)
    )
    assert local == ordinary
    forced = [action for action in study_of(plain).program(people()) if "<-" not in action.what]
    with pytest.raises(ProgramError, match="it needs the gradient head<-server"):
        check(forced, plain)
    lines = str(study_of(plain).program(people())).replace(
        "receive head<-server from server", "detach head<-server"
    )
    detached = [a for a in cl.Program.parse(lines) if not (a.op is Op.SEND and "<-" in a.what)]
    with pytest.raises(ProgramError, match="nothing else would teach segment 'head'"):
        check(detached, plain)
