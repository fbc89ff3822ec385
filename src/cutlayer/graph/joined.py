"""The graph's segments as one network on one machine: what split training must equal."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from .parts import Ref
from .split_graph import SplitGraph

__all__ = ["Joined"]


class Joined(nn.Module):
    """The graph's segments as one module on one machine: the uncut network that split training must equal.

    Where a value has several readers, the gradients that they return are numbers whose sum depends, in its
    last bit, on what is added first. Parties add up what their own segments return before it crosses a cut;
    so does this network: each segment and each role read through a view of their own.
    """

    def __init__(self, graph: SplitGraph) -> None:
        super().__init__()
        self.graph = graph
        self.segments = nn.ModuleDict({name: graph.segments[name].module for name in graph.order})

    def forward(
        self, fields: Mapping[str, Mapping[str, Tensor]], only: Collection[str] | None = None
    ) -> dict[Ref, Tensor]:
        """Return the outputs of every segment, or ``only`` of these, given ``{role: {field: Tensor[B, ...]}}``."""
        values: dict[Ref, Tensor] = {}
        crossed: dict[tuple[Ref, str], Tensor] = {}
        for name in self.graph.order:
            if only is not None and name not in only:
                continue
            segment = self.graph.segments[name]
            inputs = [
                self._read(values, crossed, r, segment.role)
                if isinstance(r, Ref)
                else fields[segment.role][r]
                for r in self.graph.wiring[name]
            ]
            result = self.segments[name](*inputs)
            results = result if isinstance(result, tuple) else (result,)
            values.update({Ref(name, output): t for output, t in zip(segment.outputs, results, strict=True)})
        return values

    def _read(
        self, values: Mapping[Ref, Tensor], crossed: dict[tuple[Ref, str], Tensor], ref: Ref, role: str
    ) -> Tensor:
        """Return the value as a segment on ``role`` reads it."""
        value = values[ref]
        if self.graph.segments[ref.segment].role != role:
            if (ref, role) not in crossed:
                crossed[ref, role] = value.view_as(value)
            value = crossed[ref, role]
        return value.view_as(value)
