"""Run a traced forward once, step by step, and note what each step makes, costs and changes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..errors import CutError
from .flops import flop_counter
from .strides import Strides
from .tracing import Trace, is_free

__all__ = ["Measured", "Spec", "measure", "worlds_of"]


@dataclass(frozen=True)
class Spec:
    """What a tensor looks like.

    Attributes:
        shape: With the batch dimension.
        dtype: Its type.
        strides: How it lies in memory, if not row by row.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    strides: Strides | None

    @staticmethod
    def of(tensor: Tensor) -> Spec:
        """Return the spec of ``tensor``."""
        return Spec(tuple(tensor.shape), tensor.dtype, Strides.of(tensor))


@dataclass
class Measured:
    """What each step of a trace makes, costs and changes.

    Attributes:
        specs: The tensor that a step makes.
        plain: What else a step makes: numbers, sizes, tuples.
        flops: Forward FLOPs of all steps up to and including this one, by PyTorch's counter.
        changed: Earlier steps whose tensors a step changes in place.
        state: Names of the model's buffers that the forward changes.
        rows: Rows of the example.
    """

    rows: int
    specs: dict[fx.Node, Spec] = field(default_factory=dict)
    plain: dict[fx.Node, Any] = field(default_factory=dict)
    flops: dict[fx.Node, int] = field(default_factory=dict)
    changed: dict[fx.Node, tuple[fx.Node, ...]] = field(default_factory=dict)
    state: frozenset[str] = frozenset()


def worlds_of(example: Tensor | Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the example with at least two rows, and the same with one row more.

    Two sizes tell the number of rows from other numbers; one row alone is what BatchNorm cannot train on.
    """
    tensors = (example,) if isinstance(example, Tensor) else tuple(example)
    if not tensors or not all(isinstance(t, Tensor) and t.dim() > 0 and t.shape[0] > 0 for t in tensors):
        raise CutError(
            "the example must be a tensor, or a tuple of tensors, with rows in the first dimension",
            got=", ".join(str(tuple(t.shape)) if isinstance(t, Tensor) else type(t).__name__ for t in tensors)
            or "nothing",
        )
    if tensors[0].shape[0] == 1:
        tensors = _longer(tensors)
    return tensors, _longer(tensors)


def _longer(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    rows = tensors[0].shape[0]
    return tuple(torch.cat([t, t[:1]]) if t.shape[0] == rows else t for t in tensors)


def measure(trace: Trace, model: nn.Module, inputs: tuple[Tensor, ...]) -> Measured:
    """Run ``trace`` on ``inputs`` with the modules of ``model`` (in its present mode; buffers may change).

    Steps that change a value in place and return it take that value's place from there on.
    """
    before = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    meter = _Meter(model, trace.graph, Measured(rows=inputs[0].shape[0]))
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), meter.counter:
        try:
            meter.run(*(t.detach().clone() for t in inputs))
        except CutError:
            raise
        except Exception as error:
            raise CutError(
                f"the model does not run on the example: {str(error).splitlines()[0]}",
                got=", ".join(
                    f"{name} {tuple(t.shape)}" for name, t in zip(trace.inputs, inputs, strict=True)
                ),
                todo="give an example that model(*example) accepts",
            ) from error
    after = dict(model.named_buffers())
    meter.measured.state = frozenset(n for n, old in before.items() if not torch.equal(old, after[n]))
    _replace_changed(trace.graph, meter)
    return meter.measured


class _Meter(fx.Interpreter):
    def __init__(self, model: nn.Module, graph: fx.Graph, measured: Measured) -> None:
        super().__init__(model, graph=graph)
        self.measured = measured
        self.counter = flop_counter()
        self.returns: dict[fx.Node, fx.Node] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "output":
            return super().run_node(n)
        versions = {node: v._version for node, v in self.env.items() if isinstance(v, Tensor)}
        result = super().run_node(n)
        changed = tuple(node for node, version in versions.items() if self.env[node]._version != version)
        if changed and not is_free(n):
            self.measured.changed[n] = changed
            same = [node for node in changed if self.env[node] is result]
            if same:
                self.returns[n] = same[-1]
        if isinstance(result, Tensor):
            self.measured.specs[n] = Spec.of(result)
        else:
            self.measured.plain[n] = _described(result)
        self.measured.flops[n] = self.counter.get_total_flops()
        return result


def _described(value: Any) -> Any:
    """Return ``value`` with tensors replaced by their specs, so that nothing large is kept."""
    if isinstance(value, Tensor):
        return Spec.of(value)
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        return tuple(_described(v) for v in value)
    return value


def _replace_changed(graph: fx.Graph, meter: _Meter) -> None:
    order = {node: i for i, node in enumerate(graph.nodes)}
    for step, value in meter.returns.items():
        if value.op == "get_attr" or step.target is operator.setitem:
            continue
        for user in [user for user in value.users if order[user] > order[step]]:
            user.replace_input_with(value, step)
