"""Build an ordinary module from the steps of one piece; parameters keep their names and identity."""

from __future__ import annotations

import copy
import keyword
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor, fx, nn

from .splitting import Computed, DeviceOf, Dimension, Split
from .strides import Strides, placed, relaid
from .tracing import is_free

__all__ = ["PieceModule", "build_pieces"]


class PieceModule(nn.Module):
    """The part of a network between two cuts.

    Submodules and parameters carry the names that they have in the network, so a piece's ``state_dict``
    is a part of the network's. What runs is code that was generated from the network's forward, one
    version for training and one for evaluation where they differ.

    Args:
        forwards: The generated forward for training and for evaluation.
        code: The source of the forward for training, to be read.

    Attributes:
        gradient_strides: How the gradients of outputs lie in memory in the uncut network, by the output's
            number, where that is not row by row.
    """

    def __init__(self, forwards: tuple[Callable[..., Any], Callable[..., Any]], code: str) -> None:
        super().__init__()
        self._in_training, self._in_evaluation = forwards
        self.code = code
        self.gradient_strides: dict[int, Strides] = {}

    def forward(self, *values: Tensor) -> Any:
        """Return what the piece makes of ``values``: a tensor, or a tuple of several."""
        made = self._in_training(self, *values) if self.training else self._in_evaluation(self, *values)
        if not self.gradient_strides:
            return made
        if isinstance(made, Tensor):
            return placed(made, None, self.gradient_strides[0])
        return tuple(self._awaiting(i, value) for i, value in enumerate(made))

    def _awaiting(self, number: int, value: Tensor) -> Tensor:
        strides = self.gradient_strides.get(number)
        return value if strides is None or not value.requires_grad else placed(value, None, strides)


def build_pieces(model: nn.Module, training: Split, evaluation: Split) -> list[PieceModule]:
    """Return one module per piece, made of the submodules of ``model`` (which they take over)."""
    taken: set[int] = set()
    pieces = []
    for number in range(training.count):
        graphs = [_piece_graph(training, number)]
        if evaluation is not training:
            graphs.append(_piece_graph(evaluation, number))
        generated = [fx.GraphModule(model, graph) for graph in graphs]
        first, last = type(generated[0]).forward, type(generated[-1]).forward
        piece = PieceModule((first, last), generated[0].code)
        piece.training = model.training
        for target in dict.fromkeys(str(n.target) for g in graphs for n in g.nodes if n.op in _NAMED):
            _adopt(piece, model, target, taken)
        pieces.append(piece)
    return pieces


_NAMED = ("call_module", "get_attr")


def _piece_graph(split: Split, piece: int) -> fx.Graph:
    """Copy the steps of ``piece`` into a graph of its own."""
    graph = fx.Graph()
    env: dict[fx.Node, Any] = {}
    received = split.inputs[piece]
    for node in received:
        name = split.names([node])[0]
        env[node] = graph.placeholder(f"{name}_" if keyword.iskeyword(name) else name)
    sources = dict(env)
    changed = split.changed_in(piece)
    for node in received:
        strides = split.course.measured.specs[node].strides
        if strides is not None and not is_free(node):
            env[node] = graph.call_function(relaid, (env[node], *astuple(strides)))
        elif node in changed:
            env[node] = graph.call_function(torch.clone, (env[node],))
    for node in split.needs[piece]:
        if node not in env:
            env[node] = _write_number(graph, split.number(piece, node), sources)

    def fetch(node: fx.Node) -> Any:
        if node not in env and node.op == "get_attr":
            env[node] = graph.node_copy(node)
        return env[node]

    for node in split.course.steps:
        if not is_free(node) and split.piece[node] == piece:
            env[node] = graph.node_copy(node, fetch)
    made = [env[node] for node in split.outputs[piece]]
    graph.output(made[0] if len(made) == 1 else tuple(made))
    return graph


def _write_number(graph: fx.Graph, number: Any, sources: dict[fx.Node, Any]) -> Any:
    if isinstance(number, tuple):
        return tuple(_write_number(graph, part, sources) for part in number)
    if isinstance(number, Dimension):
        return graph.call_method("size", (sources[number.tensor], number.dimension))
    if isinstance(number, Computed):
        parts = {node: _write_number(graph, part, sources) for node, part in number.parts.items()}
        return graph.node_copy(number.step, parts.__getitem__)
    if isinstance(number, DeviceOf):
        return graph.call_function(getattr, (sources[number.tensor], "device"))
    return number


def _adopt(piece: nn.Module, model: nn.Module, target: str, taken: set[int]) -> None:
    """Put what ``model`` has at the dotted name ``target`` at the same name of ``piece``.

    What an earlier piece has already taken has no weights (else the cut was refused), and is copied.
    """
    *path, name = target.split(".")
    for part in path:
        source, mine = getattr(model, part), getattr(piece, part, None)
        if source is mine:
            return
        if mine is None:
            mine = nn.Module()
            mine.training = source.training
            piece.add_module(part, mine)
        model, piece = source, mine
    value = getattr(model, name)
    if id(value) in taken:
        value = copy.deepcopy(value)
    taken.add(id(value))
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        kept = name in model._buffers and name not in model._non_persistent_buffers_set
        piece.register_buffer(name, value, persistent=kept)
    else:
        setattr(piece, name, value)
