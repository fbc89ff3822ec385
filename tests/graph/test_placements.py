"""What may be said for clients= and parties=, and what is told where it is something else."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import cutlayer as cl
from cutlayer.errors import CutError, GraphError
from cutlayer.graph.networks import mlp

ROWS = torch.randn(3, 4)
NET = mlp((4, 6, 5, 3))


def source() -> cl.data.Source:
    rng = np.random.default_rng(0)
    return cl.data.arrays(rng.normal(size=(40, 4)), rng.integers(0, 3, 40))


def test_holdings_and_their_parties_give_the_same_graph():
    people = source().split_rows(3)
    by_holdings = cl.vanilla(NET, cut="linear1", clients=people)
    assert cl.vanilla(NET, cut="linear1", clients=people.parties).describe() == by_holdings.describe()


def test_parties_with_columns():
    people = source().split_columns({"a": slice(0, 2), "b": slice(2, 4)}, labels="server")
    bottoms, top = {"a": nn.Linear(2, 3), "b": nn.Linear(2, 3)}, nn.Linear(6, 3)
    said = [cl.vertical(bottoms, top, parties=p).describe() for p in (people, people.parties)]
    assert said[0] == said[1]


def test_a_graph_of_ones_own_over_parties():
    people = source().split_rows(2)
    graph = cl.SplitGraph.over(
        people.parties,
        segments=[cl.Segment("all", "client", nn.Linear(4, 3), ("x",))],
        losses=[cl.Loss(role="client", prediction="all")],
    )
    assert graph.roles["client"].parties == ("client-0", "client-1")


def test_the_first_program(tmp_path):
    """Pictures in a file, dealt unevenly over five hospitals, as the first program that one writes."""
    rng = np.random.default_rng(0)
    path = tmp_path / "pictures.npz"
    np.savez(path, x=rng.normal(size=(60, 3, 8, 8)).astype(np.float32), y=np.arange(60) % 3)
    hospitals = cl.data.npz(path).split_rows(5, by="dirichlet", alpha=0.5, seed=0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    study = cl.Study(
        graph=cl.vanilla(model, cut="1", clients=hospitals.parties),
        schedule=cl.RoundRobin(handover="peer"),
        optimizer=cl.optim.SGD(lr=0.05, momentum=0.9),
        batch_size=8,
        epochs=1,
        seed=0,
    )
    run = study.simulate(hospitals)
    console = Console(file=io.StringIO(), width=120)
    console.print(run.summary())
    assert "head->server" in console.file.getvalue()
    assert [p.name for p in study.graph.parties][:5] == [p.name for p in hospitals.parties]


@pytest.mark.parametrize("cut", [("a", "b"), None, (), ["linear1"]])
def test_vanilla_takes_one_cut(cut):
    with pytest.raises(CutError, match=r"vanilla takes one cut.*two, .*u_shaped; more .*multi_hop"):
        cl.vanilla(NET, cut=cut, example=ROWS)


@pytest.mark.parametrize("cuts", ["linear1", ("linear1",), ("linear1", "linear2", "linear3"), None, 0.5])
def test_u_shaped_takes_two_cuts(cuts):
    with pytest.raises(CutError, match=r"u_shaped takes two cuts: cuts=\('layer1', 'layer3'\).*got "):
        cl.u_shaped(NET, cuts=cuts, example=ROWS)


@pytest.mark.parametrize("cuts", ["linear1", (), None])
def test_multi_hop_takes_a_tuple_of_cuts(cuts):
    with pytest.raises(CutError, match=r"multi_hop takes a tuple of cuts: cuts=\('layer1',\)"):
        cl.multi_hop(NET, cuts=cuts, example=ROWS)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (nn.Flatten, r"got the class Flatten.*call it: Flatten\(\.\.\.\)"),
        (cl.networks.vgg11, r"got the function vgg11.*call it: vgg11\(\.\.\.\)"),
        ("vgg11", r"got 'vgg11'.*give a module"),
    ],
)
def test_a_model_is_a_module(model, told):
    with pytest.raises(GraphError, match=f"model is not a torch.nn.Module.*{told}"):
        cl.vanilla(model, cut="linear1", example=ROWS)
    with pytest.raises(GraphError, match=f"top is not a torch.nn.Module.*{told}"):
        cl.vertical({"a": nn.Linear(4, 2)}, model, example={"a": ROWS})


@pytest.mark.parametrize("clients", [source(), None, 2.5, True, (1, 2)])
def test_clients_are_people(clients):
    with pytest.raises(
        GraphError, match=r"clients= does not say who holds what; got .*source.split_rows\(5\)"
    ):
        cl.vanilla(NET, cut="linear1", clients=clients, example=ROWS)
    with pytest.raises(GraphError, match="people does not say who holds what"):
        cl.SplitGraph.over(clients, segments=[], losses=[])


def test_names_are_several():
    with pytest.raises(GraphError, match=r"clients= is one word; got 'clinic'.*clients=\('clinic',\)"):
        cl.vanilla(NET, cut="linear1", clients="clinic", example=ROWS)
    with pytest.raises(GraphError, match="needs at least one client"):
        cl.vanilla(NET, cut="linear1", clients=0, example=ROWS)
