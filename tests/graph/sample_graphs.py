"""Small graphs of every shape, for tests of what describes them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutlayer.graph import (
    Loss,
    Role,
    Segment,
    Share,
    SplitGraph,
    Sum,
    TensorSpec,
    extended_vanilla,
    multi_task,
    vertical,
)  # fmt: skip

LABEL = TensorSpec((), torch.int64)
DEPARTMENTS = ("radiology", "pathology", "laboratory", "genomics", "cardiology")


def layer(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU())


def clients(count: int) -> tuple[str, ...]:
    return tuple(f"client-{i}" for i in range(count))


def vanilla(count: int = 3) -> SplitGraph:
    x = torch.randn(2, 3, 8, 8)
    head = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4))
    return SplitGraph(
        name="vanilla",
        roles=[
            Role("client", clients(count), {"x": TensorSpec.of(x), "y": LABEL}),
            Role("server", ("server",)),
        ],
        segments=[
            Segment("head", "client", head, ("x",)),
            Segment("top", "server", nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), ("head",)),
        ],
        losses=[Loss(role="server", prediction="top")],
        shares=[Share("y", "client", "server")],
        example={"client": {"x": x}},
    )


def u_shaped(count: int = 3) -> SplitGraph:
    x = torch.randn(2, 20)
    return SplitGraph(
        name="u_shaped",
        roles=[
            Role("client", clients(count), {"x": TensorSpec.of(x), "y": LABEL}),
            Role("server", ("server",)),
        ],
        segments=[
            Segment("head", "client", layer(20, 16), ("x",)),
            Segment("body", "server", layer(16, 16), ("head",)),
            Segment("tail", "client", nn.Linear(16, 2), ("body",)),
        ],
        losses=[Loss(role="client", prediction="tail")],
        example={"client": {"x": x}},
    )


def departments(count: int = 5) -> SplitGraph:
    names = DEPARTMENTS[:count]
    return vertical(
        {name: layer(6 + i, 8) for i, name in enumerate(names)},
        nn.Linear(8 * count, 2),
        example={name: torch.randn(2, 6 + i) for i, name in enumerate(names)},
    )


def tasks() -> SplitGraph:
    names = DEPARTMENTS[:3]
    return multi_task(
        {name: layer(6, 8) for name in names},
        {"oncology": nn.Linear(24, 2), "surgery": nn.Linear(24, 3)},
        example={name: torch.randn(2, 6) for name in names},
        weights={"surgery": 0.5},
    )


def extended() -> SplitGraph:
    names = DEPARTMENTS[:3]
    return extended_vanilla(
        {name: layer(6, 8) for name in names},
        layer(24, 16),
        nn.Linear(16, 2),
        example={name: torch.randn(2, 6) for name in names},
    )


class Encoder(nn.Module):
    """Two fields to two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(10, 8)

    def forward(self, image: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.relu(self.layer(torch.cat([image, table], 1)))
        return features, features * 2


class Skip(nn.Module):
    """A layer around which its second input passes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, through: Tensor, around: Tensor) -> Tensor:
        result: Tensor = self.layer(through) + around
        return result


def hybrid() -> SplitGraph:
    image, table, blood = torch.randn(2, 6), torch.randn(2, 4), torch.randn(2, 5)
    held = {"image": TensorSpec.of(image), "table": TensorSpec.of(table), "y": LABEL}
    return SplitGraph(
        name="hybrid",
        roles=[
            Role("ward", ("ward-a", "ward-b"), held),
            Role("laboratory", ("lab",), {"x": TensorSpec.of(blood)}),
            Role("hub", ("hub",)),
        ],
        segments=[
            Segment("encoder", "ward", Encoder(), ("image", "table"), ("features", "residual")),
            Segment("lab", "laboratory", layer(5, 8), ("x",)),
            Segment("merge", "hub", Sum(), ("encoder:features", "lab")),
            Segment("mid", "hub", Skip(), ("merge", "encoder:residual")),
            Segment("tail", "ward", Skip(), ("mid", "encoder:features")),
            Segment("out", "ward", nn.Linear(8, 2), ("tail",)),
        ],
        losses=[Loss(role="ward", prediction="out")],
        example={"ward": {"image": image, "table": table}, "laboratory": {"x": blood}},
    )


def alone() -> SplitGraph:
    x = torch.randn(2, 4)
    return SplitGraph(
        name="alone",
        roles=[Role("clinic", ("clinic",), {"x": TensorSpec.of(x), "y": LABEL})],
        segments=[Segment("all", "clinic", nn.Linear(4, 2), ("x",))],
        losses=[Loss(role="clinic", prediction="all")],
        example={"clinic": {"x": x}},
    )


def odd_names() -> SplitGraph:
    """A graph whose fields have names that mean something to HTML, XML and Mermaid."""
    odd = 'a<b>&"c"|\x01'
    return SplitGraph(
        name="<odd> & 'strange'",
        roles=[
            Role("clinic", ("clinic",), {odd: TensorSpec((4,), torch.float32)}),
            Role("server", ("server",), {"y": None}),
        ],
        segments=[
            Segment("head", "clinic", nn.Linear(4, 3), (odd,)),
            Segment("top", "server", nn.Linear(3, 2), ("head",)),
        ],
        losses=[Loss(role="server", prediction="top")],
    )


ALL = {
    "vanilla": vanilla, "u_shaped": u_shaped, "departments": departments, "tasks": tasks,
    "extended": extended, "hybrid": hybrid, "alone": alone, "odd_names": odd_names,
}  # fmt: skip
