from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cutlayer.errors import GraphError
from cutlayer.graph import Loss, Role, Segment, SplitGraph, TensorSpec


class OneHot(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, label: Tensor) -> Tensor:
        return F.one_hot(label, self.classes).float()


class Beside(nn.Module):
    """A layer's output and, beside it, something of the input."""

    def __init__(self, layer: nn.Module, beside: nn.Module) -> None:
        super().__init__()
        self.layer, self.beside = layer, beside

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.layer(x).flatten(1), self.beside(x).flatten(1)], 1)


class Pick(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return -x[:, [2, 0]]


class Join(nn.Module):
    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, 1)


def u(x: Tensor, head: nn.Module) -> SplitGraph:
    """Return a graph whose head's output goes to a server and comes back."""
    y = torch.tensor([0, 1])
    return SplitGraph(
        roles=[
            Role("client", ("client",), {"x": TensorSpec.of(x), "y": TensorSpec.of(y)}),
            Role("server", ("server",)),
        ],
        segments=[
            Segment("head", "client", head, ("x",)),
            Segment("body", "server", nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), ("head",)),
            Segment("tail", "client", nn.Linear(4, 3), ("body",)),
        ],
        losses=[Loss(role="client", prediction="tail")],
        example={"client": {"x": x, "y": y}},
    )


def labelled(*segments: Segment) -> SplitGraph:
    x, y = torch.randn(2, 4), torch.tensor([0, 1])
    body = Segment("body", "server", nn.Linear(3, 3), ("head",))
    return SplitGraph(
        roles=[
            Role("client", ("client",), {"x": TensorSpec.of(x), "y": TensorSpec.of(y)}),
            Role("server", ("server",)),
        ],
        segments=[*segments, body],
        losses=[Loss(role="client", prediction="tail")],
        example={"client": {"x": x, "y": y}},
    )


def test_a_label_cannot_be_sent_as_an_activation():
    with pytest.raises(
        GraphError,
        match=r"segment 'head' reads the label 'y' of role 'client', and 'head:out', which crosses a cut, is "
        r"made from it: a label must not feed what crosses a cut; drop that input.*Share\(field",
    ):
        labelled(
            Segment("head", "client", OneHot(), ("y",)), Segment("tail", "client", nn.Linear(3, 3), ("body",))
        )


def test_a_label_cannot_be_sent_by_way_of_other_segments():
    with pytest.raises(
        GraphError, match=r"segment 'coded' reads the label 'y'.*and 'head:out', which crosses"
    ):
        labelled(
            Segment("coded", "client", OneHot(), ("y",)),
            Segment("both", "client", Join(), ("x", "coded")),
            Segment("head", "client", nn.Linear(7, 3), ("both",)),
            Segment("tail", "client", nn.Linear(3, 3), ("body",)),
        )


def test_a_label_may_feed_what_stays():
    graph = labelled(
        Segment("head", "client", nn.Linear(4, 3), ("x",)),
        Segment("coded", "client", OneHot(), ("y",)),
        Segment("tail", "client", Join(), ("body", "coded")),
    )
    assert [cut.name for cut in graph.cuts] == ["head->server", "body->client"]


RAW = {
    "batch normalisation": (nn.BatchNorm1d(6), (6,)),
    "batch normalisation of pictures": (nn.BatchNorm2d(3), (3, 8, 8)),
    "columns beside a layer": (Beside(nn.Linear(6, 4), nn.Identity()), (6,)),
    "some columns, negated": (Beside(nn.Linear(6, 4), Pick()), (6,)),
    "a crop": (nn.ZeroPad2d(-2), (1, 8, 8)),
    "a scaling of pixels": (nn.Conv2d(1, 1, 1), (1, 8, 8)),
    "sixty thousand numbers": (nn.BatchNorm2d(3), (3, 144, 144)),
}


@pytest.mark.parametrize(("head", "shape"), RAW.values(), ids=RAW)
def test_raw_columns_cannot_cross(head, shape):
    with pytest.raises(
        GraphError,
        match="output 'out' of segment 'head' passes on columns of the raw field 'x' of role 'client'",
    ):
        u(torch.randn(2, *shape), head)


def test_positive_records_pass_a_relu_unchanged():
    with pytest.raises(GraphError, match="passes on columns"):
        u(torch.rand(2, 6), Beside(nn.Linear(6, 4), nn.ReLU()))


def test_whole_numbers_cannot_cross_as_they_are():
    class AsFloat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x.float(), x.float().mean(1, keepdim=True)], 1)

    with pytest.raises(GraphError, match="passes on columns"):
        u(torch.tensor([[3, 5, 7], [4, 1, 0]]), AsFloat())


MIXED = {
    "a linear layer": (nn.Linear(6, 6), torch.zeros(2, 6)),
    "one column, scaled": (nn.Linear(1, 5), torch.randn(2, 1)),
    "a linear layer and normalisation": (nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), torch.rand(2, 6)),
    "a convolution": (nn.Conv2d(1, 4, 3, padding=1), torch.rand(2, 1, 8, 8)),
    "a convolution of seven": (nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3), nn.ReLU()), torch.rand(2, 3, 32, 32)),
    "an embedding": (nn.Embedding(9, 4), torch.tensor([[3, 5, 8], [4, 1, 0]])),
    "pooling": (nn.AvgPool2d(2), torch.rand(2, 1, 8, 8)),
}


@pytest.mark.parametrize(("head", "x"), MIXED.values(), ids=MIXED)
def test_what_mixes_columns_may_cross(head, x):
    assert [cut.name for cut in u(x, head).cuts] == ["head->server", "body->client"]


def test_looking_for_raw_columns_draws_nothing_and_leaves_no_trace():
    head = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    x = torch.randn(2, 6)
    state = torch.get_rng_state()
    SplitGraph(
        roles=[Role("client", ("client",), {"x": None}), Role("server", ("server",), {"y": None})],
        segments=[
            Segment("head", "client", head, ("x",)),
            Segment("top", "server", nn.Identity(), ("head",)),
        ],
        losses=[Loss(role="server", prediction="top")],
        example={"client": {"x": x}},
    )
    assert torch.equal(state, torch.get_rng_state())
    assert head.training
    assert all(torch.equal(before[name], tensor) for name, tensor in head.state_dict().items())


def test_what_could_not_be_tried_is_known():
    class TwoRows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(2, 6).cumsum(1)

    assert ("client", "x") in u(torch.randn(2, 6), TwoRows()).untried
    assert ("client", "x") not in u(torch.randn(2, 6), nn.Linear(6, 4)).untried
