"""The disclosure statement says who sees whose weights under each schedule, and a run does no more."""

import pytest
import torch
from small_studies import pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.metering.events import Traffic

PEOPLE = pooled(24)[0].split_rows(3)
NET = cl.networks.mlp((6, 8, 3))


def study(schedule, **more):
    return study_of(cl.vanilla(NET, 0.5, clients=PEOPLE), schedule=schedule, epochs=1, **more)


def sections(text):
    """Return the statement's sections by title, each as one line."""
    parts = text.split("\n\n")
    return {part.splitlines()[0]: " ".join(part.split()) for part in parts}


def test_round_robin_hands_over_and_nobody_averages():
    page = study(cl.RoundRobin()).disclosure("client-1")
    assert "at the end of a turn" in page and "average" not in page


@pytest.mark.parametrize(
    "schedule",
    [cl.SplitFed(), cl.SplitFed(version=2), cl.Parallel(heads="averaged"), cl.Asynchronous()],
    ids=lambda s: s.describe(),
)
def test_a_client_is_told_that_the_averager_can_read_its_weights(schedule):
    said = sections(study(schedule).disclosure("client-1"))
    assert "Its own state of head" in said["WHAT LEAVES client-1"]
    assert "to server, at the end of each round" in said["WHAT LEAVES client-1"]
    assert "The average of head" in said["WHAT COMES IN TO client-1"]
    assert "To any party but server: the weights and buffers of head" in said["WHAT NEVER LEAVES client-1"]
    assert "at the end of a turn" not in " ".join(said.values())
    server = sections(study(schedule).disclosure("server"))
    assert "can read each one" in server["WHAT COMES IN TO server"]
    assert "of top" in server["WHAT NEVER LEAVES server"]


@pytest.mark.parametrize(
    "schedule",
    [cl.SplitFed(version=3), cl.SplitFed(personal=True), cl.Parallel()],
    ids=lambda s: s.describe(),
)
def test_who_keeps_its_own_weights_gives_them_to_nobody(schedule):
    said = sections(study(schedule).disclosure("client-1"))
    assert "no other party ever has them" in said["WHAT NEVER LEAVES client-1"]
    assert "state of head" not in said["WHAT LEAVES client-1"]
    run = study(schedule).simulate(PEOPLE)
    assert "handover" not in {e.content for e in run.events if isinstance(e, Traffic)}


def test_states_go_between_clients_and_the_averager_only():
    run = study(cl.SplitFed()).simulate(PEOPLE)
    ways = {(e.sender, e.receiver) for e in run.events if isinstance(e, Traffic) and e.content == "handover"}
    clients = [f"client-{n}" for n in range(3)]
    assert ways == {(c, "server") for c in clients} | {("server", c) for c in clients}


def test_another_party_may_average_so_that_the_server_sees_no_clients_weights():
    hops = cl.multi_hop(cl.networks.mlp((6, 8, 7, 3)), ("linear1", "linear2"), clients=PEOPLE)
    by_hop = study_of(hops, schedule=cl.SplitFed(averager="hop-1"), epochs=1)
    said = sections(by_hop.disclosure("client-1"))
    assert "to hop-1, at the end of each round" in said["WHAT LEAVES client-1"]
    assert "Its own state" not in by_hop.disclosure("server")
    run = by_hop.simulate(PEOPLE)
    taken = {e.receiver for e in run.events if isinstance(e, Traffic) and e.content == "handover"}
    assert "server" not in taken and "hop-1" in taken
    with pytest.raises(StudyError, match="cannot average"):
        study_of(hops, schedule=cl.SplitFed(averager="client-0")).program(PEOPLE)


def test_where_no_gradient_comes_back_none_is_announced():
    torch.manual_seed(0)
    graph = cl.SplitGraph.over(
        PEOPLE,
        segments=[
            cl.Segment("head", "client", nn.Linear(6, 4), ("x",)),
            cl.Segment("guess", "client", nn.Linear(4, 3), ("head",)),
            cl.Segment("top", "server", nn.Linear(4, 3), ("head",)),
        ],
        losses=[
            cl.Loss(role="server", prediction="top"),
            cl.Loss(role="client", prediction="guess", name="own"),
        ],
        shares=[cl.Share("y", "client", "server")],
    )
    for local in (True, False):
        for party in ("client-0", "server"):
            page = study_of(graph, schedule=cl.SplitFed(local=local)).disclosure(party)
            assert ("Gradients over cut" in page) is not local
