"""A decoder at home: what it reads, what its loss may be made of, and that nothing else changes."""

import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.errors import GraphError
from cutlayer.graph.reconstruction import roles_at_home, taught_at_home

X = torch.randn(4, 6)
NET = cl.networks.mlp((6, 8, 7, 3))


def vanilla(**more):
    return cl.vanilla(NET, "activation1", clients=2, example=X, **more)


def test_the_decoder_reads_what_crosses_and_nothing_more_crosses():
    before = vanilla()
    graph = cl.with_decoder(before, nn.Linear(8, 6), alpha=0.5)
    assert [str(ref) for ref in graph.wiring["decoder"]] == ["head:activation1"]
    assert graph.cuts == before.cuts
    assert graph.losses["reconstruction"].weight == 0.5 and graph.losses["reconstruction"].target == "x"
    assert taught_at_home(graph) == {"head", "decoder"} and roles_at_home(graph) == ("client",)
    assert taught_at_home(before) == frozenset() and roles_at_home(before) == ()
    assert "made again at home" in graph.describe() and "made again" not in before.describe()
    assert "x float32[B, 6], y" in graph.disclosure("client-0")


def test_the_decoder_is_copied_and_codecs_stay():
    decoder = nn.Linear(8, 6)
    graph = cl.with_decoder(vanilla(codecs={"head->server": "int8"}), decoder)
    assert graph.segments["decoder"].module is not decoder
    assert {cut.name: cut.codec for cut in graph.cuts} == {
        cut.name: cut.codec for cut in vanilla(codecs={"head->server": "int8"}).cuts
    }


def test_where_several_tensors_cross_the_decoder_reads_all():
    torch.manual_seed(0)
    graph = cl.vanilla(cl.networks.resnet18(classes=3), "layer2.0.conv1", example=torch.randn(2, 3, 32, 32))
    cut = next(cut for cut in graph.cuts if cut.kind == "activation")
    assert len(cut.tensors) == 2

    class Both(nn.Module):
        def forward(self, one, other):
            return one.mean() + other.new_zeros(len(other), 3, 32, 32)

    wired = cl.with_decoder(graph, Both()).wiring["decoder"]
    assert [ref.output for ref in wired] == list(cut.tensors)


def test_two_roles_may_each_have_a_decoder():
    columns = {"left": torch.randn(4, 3), "right": torch.randn(4, 2)}
    graph = cl.vertical(
        {"left": nn.Linear(3, 5), "right": nn.Linear(2, 5)}, nn.Linear(10, 2), example=columns
    )
    for role, width in (("left", 3), ("right", 2)):
        graph = cl.with_decoder(graph, nn.Linear(5, width), role=role, name=f"decoder-{role}")
    assert roles_at_home(graph) == ("left", "right")
    assert list(graph.losses) == ["loss", "reconstruction-decoder-left", "reconstruction-decoder-right"]


@pytest.mark.parametrize(
    ("more", "decoder", "why"),
    [
        ({"role": "clients"}, nn.Linear(8, 6), "no role 'clients'.*did you mean 'client'"),
        ({"role": "server"}, nn.Linear(8, 6), "sends no activations"),
        ({"field": "z"}, nn.Linear(8, 6), "does not hold"),
        ({"field": "y"}, nn.Linear(8, 6), "which nothing behind it reads"),
        ({"alpha": 0.0}, nn.Linear(8, 6), "positive weight"),
        ({}, nn.Linear(8, 5), r"not in the shape of the field 'x'.*float32\[B, 5\].*float32\[B, 6\]"),
        ({}, nn.Linear(9, 6), "cannot run on its inputs"),
    ],
)
def test_what_cannot_be_is_refused(more, decoder, why):
    with pytest.raises(GraphError, match=f"(?s){why}"):
        cl.with_decoder(vanilla(), decoder, **more)


def test_a_loss_by_way_of_another_role_does_not_stay_at_home():
    with pytest.raises(GraphError, match="segment 'body' of role 'server': encoder and decoder stay at home"):
        cl.SplitGraph(
            roles=[cl.Role("client", ("a",), {"x": None}), cl.Role("server", ("server",))],
            segments=[
                cl.Segment("head", "client", nn.Linear(6, 8), ("x",)),
                cl.Segment("body", "server", nn.Linear(8, 8), ("head",)),
                cl.Segment("tail", "client", nn.Linear(8, 6), ("body",)),
            ],
            losses=[
                cl.Loss(
                    role="client", prediction="tail", target="x", function=nn.MSELoss(), reconstructs=True
                )
            ],
        )


def test_a_label_stays_a_label_and_raw_columns_stay_refused():
    """Making ``x`` again does not excuse a label that feeds what crosses, nor raw columns that cross."""
    role = cl.Role("client", ("a",), {"x": cl.TensorSpec((6,), torch.float32), "y": None})
    server = cl.Role("server", ("server",))
    again = cl.Loss(
        role="client",
        prediction="decoder",
        target="x",
        function=nn.MSELoss(),
        name="again",
        reconstructs=True,
    )
    rest = [
        cl.Segment("decoder", "client", nn.Linear(6, 6), ("head",)),
        cl.Segment("top", "server", nn.Linear(6, 3), ("head",)),
    ]
    label = cl.Loss(role="server", prediction="top")
    shares = [cl.Share("y", "client", "server")]
    with pytest.raises(GraphError, match="a label must not feed what crosses"):
        cl.SplitGraph(
            roles=[role, server],
            segments=[
                cl.Segment("head", "client", nn.Bilinear(6, 1, 6), ("x", "y")),
                *rest,
                cl.Segment("tail", "client", nn.Linear(3, 3), ("top",)),
            ],
            losses=[cl.Loss(role="client", prediction="tail"), again],
        )
    with pytest.raises(GraphError, match="a raw field never crosses a cut"):
        cl.SplitGraph(
            roles=[role, server],
            segments=[cl.Segment("head", "client", nn.ReLU6(), ("x",)), *rest],
            losses=[label, again],
            shares=shares,
            example={"client": {"x": X.abs(), "y": torch.zeros(4, dtype=torch.int64)}},
        )
