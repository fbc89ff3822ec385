"""What was worked out from a graph is the same object while the graph lives, and keeps nobody's weights alive."""

import gc
import weakref

import torch

import cutlayer as cl
from cutlayer.graph.remembering import remembered
from cutlayer.graph.split_graph import SplitGraph


def small() -> SplitGraph:
    people = cl.data.arrays(torch.rand(8, 4), torch.zeros(8, dtype=torch.long)).split_rows(2)
    return cl.vanilla(cl.networks.mlp((4, 3, 2)), "activation1", clients=people)


@remembered(2)
def parties_and(graph: SplitGraph, more: str) -> tuple[str, ...]:
    return (*graph.roles, more)


def test_the_same_object_comes_back_for_the_same_graph_alone():
    graph, other = small(), small()
    assert parties_and(graph, "x") is parties_and(graph, "x")
    assert parties_and(graph, "x") is not parties_and(other, "x")
    assert parties_and(graph, "x") == parties_and(other, more="x") == ("client", "server", "x")


def test_what_was_used_the_longest_ago_goes_first():
    graph = small()
    first = parties_and(graph, "a")
    for more in "bc":
        parties_and(graph, more)
    assert parties_and(graph, "a") is not first


def test_a_graph_that_was_trained_is_forgotten_with_its_weights():
    people = cl.data.arrays(torch.rand(8, 4), torch.zeros(8, dtype=torch.long)).split_rows(2)
    graph = cl.vanilla(cl.networks.mlp((4, 3, 2)), "activation1", clients=people)
    study = cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), batch_size=4)
    run = study.simulate(people)
    watched = weakref.ref(graph), weakref.ref(next(iter(graph.segments.values())).module)
    del graph, study, run
    gc.collect()
    assert [one() for one in watched] == [None, None]
