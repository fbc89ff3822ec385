"""FLOPs of segments from shapes alone equal those of real batches, in one piece or in many."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.graph.flops import flop_counter
from cutlayer.planner.counting import Counter, without_data
from cutlayer.planner.places import Network, Place

NETWORKS = {
    "mlp": (lambda: cl.networks.mlp((12, 9, 7, 5)), torch.zeros(4, 12)),
    "unet": (lambda: cl.networks.unet(width=4, depth=1), torch.zeros(4, 1, 8, 8)),
    "transformer": (
        lambda: cl.networks.transformer(20, width=8, depth=1, heads=2, length=6),
        torch.zeros(4, 6, dtype=torch.long),
    ),
}


def really(module, inputs):
    """Return FLOPs of a real forward and backward, as a training step has them."""
    with flop_counter() as forward:
        made = module.train()(*inputs)
    with flop_counter() as backward:
        made.backward(torch.ones_like(made))
    return forward.get_total_flops(), backward.get_total_flops()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("topology", ["vanilla", "u_shaped", "multi_hop"])
def test_stretches_of_a_chain_cost_what_segments_cost(name, topology):
    make, example = NETWORKS[name]
    network = Network(make(), example)
    places = [network.place(topology, one.name) for one in network.candidates]
    for place in [place for place in places if place is not None][::4]:
        graph = network.graph(place, 2)
        alone, chained = Counter(graph), network.counter(place)
        for segment in graph.order:
            one, other = alone.of(segment, 5), chained.of(segment, 5)
            assert (one.forward, one.backward, one.infer) == (other.forward, other.backward, other.infer)


def test_counts_are_those_of_a_real_batch():
    network = Network(cl.networks.lenet(), torch.zeros(4, 1, 28, 28))
    graph = network.graph(Place("vanilla", ("pool1",)), 1, real=True)
    z = torch.zeros(7, 6, 14, 14, requires_grad=True)
    for segment, inputs in (("head", [torch.zeros(7, 1, 28, 28)]), ("top", [z])):
        found = Counter(graph).of(segment, 7)
        assert (found.forward, found.backward) == really(graph.segments[segment].module, inputs)
        assert found.infer == found.forward


def test_activations_kept_are_those_that_the_backward_needs():
    network = Network(nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)), torch.zeros(4, 8))
    graph = network.graph(Place("vanilla", ("1",)), 1)
    assert (
        Counter(graph).of("head", 10).kept_bytes == 10 * 8 * 4 + 10 * 16 * 4
    )  # the input, and what tanh gave


def test_a_layer_that_shapes_alone_cannot_run_is_really_run():
    class Picky(nn.Module):
        def forward(self, x):
            return x * (2.0 if float(x.detach().sum()) >= 0 else 3.0)

    model = nn.Sequential(nn.Linear(6, 5), Picky(), nn.Linear(5, 2))
    graph = cl.vanilla(model, "0", clients=1, example=torch.zeros(2, 6))
    top = Counter(graph).of("top", 4)
    assert (top.forward, top.backward) == (2 * 4 * 5 * 2, 2 * 2 * 4 * 5 * 2)


def test_a_copy_without_numbers_has_shapes_ties_and_what_is_frozen():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[0].bias.requires_grad_(False)
    model.add_module("again", model[0])
    hollow = without_data(model)
    assert all(t.is_meta for t in (*hollow.parameters(), *hollow.buffers())) and hollow.again is hollow[0]
    assert [p.requires_grad for p in hollow.parameters()] == [p.requires_grad for p in model.parameters()]
    assert not any(p.is_meta for p in model.parameters())


def test_a_field_of_unknown_shape_is_named():
    from cutlayer.graph.parts import Loss, Role, Segment

    graph = cl.SplitGraph(
        roles=[Role("client", ("a",), {"x": None, "y": None})],
        segments=[Segment("all", "client", nn.Linear(3, 2), ("x",))],
        losses=[Loss(role="client", prediction="all", function=nn.CrossEntropyLoss())],
    )
    with pytest.raises(StudyError, match=r"'x' is not known"):
        Counter(graph).of("all", 2)
