"""Tiny graphs of every configuration, by name, for programs that are written, checked and performed."""

from functools import cache

import numpy as np
import torch
from torch import nn

from cutlayer.data import arrays
from cutlayer.graph import (
    Loss,
    Role,
    Segment,
    SplitGraph,
    TensorSpec,
    extended_vanilla,
    multi_hop,
    multi_task,
    u_shaped,
    vanilla,
    vertical,
)
from cutlayer.graph.networks import mlp
from cutlayer.schedules import Calendar

X = TensorSpec((2,), torch.float32)
Y = TensorSpec((), torch.int64)
ROWS = torch.arange(6.0).reshape(3, 2)


def bottoms(*roles):
    return {role: nn.Linear(2, 2) for role in roles}


def _clients():
    """Two clients that hold the labels."""
    return arrays(np.arange(16.0).reshape(8, 2), np.arange(8) % 2).split_rows(2)


def _frozen():
    """A frozen first segment, and a server role with one party for each turn."""
    roles = [Role("client", ("a", "b"), {"x": X}), Role("server", ("s", "t"), {"y": Y})]
    segments = [
        Segment("head", "client", nn.Linear(2, 3).requires_grad_(False), ("x",)),
        Segment("top", "server", nn.Linear(3, 2), ("head",)),
    ]
    example = {"client": {"x": ROWS}}
    return SplitGraph(
        roles=roles,
        segments=segments,
        losses=[Loss(role="server", prediction="top")],
        example=example,
        name="frozen",
    )


_MAKERS = {
    "vanilla": lambda: vanilla(mlp((2, 3, 2)), "linear1", clients=2, example=ROWS),
    "u_shaped": lambda: u_shaped(mlp((2, 3, 3, 2)), ("linear1", "linear2"), clients=2, example=ROWS),
    "vertical": lambda: vertical(bottoms("clinic", "lab"), nn.Linear(4, 2)),
    "multi_hop": lambda: multi_hop(mlp((2, 3, 3, 2)), ("linear1", "linear2"), clients=_clients()),
    "multi_task": lambda: multi_task(
        bottoms("clinic", "lab"), {"risk": nn.Linear(4, 2), "stay": nn.Linear(4, 2)}
    ),
    "extended_vanilla": lambda: extended_vanilla(bottoms("clinic", "lab"), nn.Linear(4, 3), nn.Linear(3, 2)),
    "frozen": _frozen,
}
NAMES = tuple(_MAKERS)


@cache
def small_graph(name: str) -> SplitGraph:
    """Return the graph ``name``; always the same object."""
    return _MAKERS[name]()


def small_calendar(name: str, train: int = 5, valid: int = 2) -> Calendar:
    """Return a calendar of batches of 2: each turn has one row more to train on than the turn before."""
    turns = len(small_graph(name).turns)
    return Calendar(
        [{"train": train + turn, "valid": valid} for turn in range(turns)],
        2,
        seed=3,
        evaluation_batch_size=1,
    )
