"""FLOPs and memory of a segment for any batch, without computing it: shapes alone go through its layers.

PyTorch's counter sees the same operations on tensors without data (device ``meta``) as on real ones. Where it does
not, on two rows tried for real, batches are really computed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import StudyError
from ..graph.flops import flop_counter
from ..graph.parts import Ref, Segment, TensorSpec
from ..graph.split_graph import SplitGraph

__all__ = ["Counted", "Counter", "Counts", "measure", "without_data"]

_FEW = 2
"""Rows on which it is tried whether shapes alone tell the FLOPs."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What one batch costs at one segment.

    Attributes:
        forward: FLOPs of the forward in training.
        backward: FLOPs of the backward; 0 where nothing is to be learned.
        infer: FLOPs of the forward in evaluation.
        kept_bytes: Activations that the forward keeps for the backward, weights not counted.
    """

    forward: int
    backward: int
    infer: int
    kept_bytes: int


def without_data(module: nn.Module) -> nn.Module:
    """Return a copy of ``module`` whose parameters and buffers have shapes and no numbers."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.detach().to("meta")
    return copy.deepcopy(module, memo)


class Counts(Protocol):
    """Knows what segments cost."""

    def of(self, segment: str, rows: int) -> Counted:
        """Return what a batch of ``rows`` costs at ``segment``."""
        ...


class Counter:
    """Counts what the segments of a graph cost, once for each number of rows.

    Args:
        graph: Whose segments.
        silent: Names of cuts over which no gradient comes back.
    """

    def __init__(self, graph: SplitGraph, silent: frozenset[str] = frozenset()) -> None:
        self._pieces = {name: _Piece(graph, graph.segments[name], silent) for name in graph.order}
        self._known: dict[tuple[str, int], Counted] = {}

    def of(self, segment: str, rows: int) -> Counted:
        """Return what a batch of ``rows`` costs at ``segment``."""
        if (segment, rows) not in self._known:
            self._known[segment, rows] = self._pieces[segment].count(rows)
        return self._known[segment, rows]


class _Piece:
    """One segment, with what it reads and where gradients come in."""

    def __init__(self, graph: SplitGraph, segment: Segment, silent: frozenset[str]) -> None:
        self.segment = segment
        self.inputs = [
            (_spec(graph, segment, ref), _wanted(graph, ref)) for ref in graph.wiring[segment.name]
        ]
        self.roots = [_taught(graph, Ref(segment.name, output), silent) for output in segment.outputs]

    def count(self, rows: int) -> Counted:
        """Return what a batch of ``rows`` costs."""
        return self._measured(self._module, rows)

    @cached_property
    def _module(self) -> nn.Module:
        """The segment without numbers, if that counts the same; else a copy of the real one."""
        real = copy.deepcopy(self.segment.module) if self._is_here else None
        if real is None:
            return without_data(self.segment.module)
        try:
            shapes = without_data(self.segment.module)
            if self._measured(shapes, _FEW) == self._measured(real, _FEW):
                return shapes
        except Exception:  # a layer may do to data what shapes alone do not allow
            return real
        return real

    @property
    def _is_here(self) -> bool:
        return not any(p.is_meta for p in self.segment.module.parameters())

    def _measured(self, module: nn.Module, rows: int) -> Counted:
        device = next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))
        inputs = [_made(spec, rows, device, wanted) for spec, wanted in self.inputs]
        return measure(module, inputs, self.roots)[0]


def measure(
    module: nn.Module, inputs: Sequence[Tensor], roots: Sequence[bool], known: dict[int, Tensor] | None = None
) -> tuple[Counted, tuple[Tensor, ...]]:
    """Run ``module`` in training, back again, and in evaluation; return what it cost and what it made.

    Args:
        module: With numbers or without.
        inputs: What it reads, which wants a gradient or not.
        roots: For each output whether a gradient comes to it.
        known: Memory that is counted elsewhere.
    """
    kept = _Kept(module, {} if known is None else known)
    with torch.random.fork_rng(devices=[]):
        module.train()
        with torch.enable_grad(), flop_counter() as forward, kept.watching():
            made = module(*inputs)
        outputs = made if isinstance(made, tuple) else (made,)
        back = _backward([o for o, root in zip(outputs, roots, strict=True) if root and o.requires_grad])
        module.eval()
        with torch.no_grad(), flop_counter() as infer:
            module(*(tensor.detach() for tensor in inputs))
    counted = Counted(
        forward=forward.get_total_flops(),
        backward=back,
        infer=infer.get_total_flops(),
        kept_bytes=kept.total,
    )
    return counted, tuple(o.detach() for o in outputs)


def _backward(roots: Sequence[Tensor]) -> int:
    """Return the FLOPs of what teaches a module and those before it."""
    if not roots:
        return 0
    with flop_counter() as counter:
        torch.autograd.backward(roots, [torch.zeros_like(tensor) for tensor in roots])
    return int(counter.get_total_flops())


class _Kept:
    """Adds up what a forward keeps for its backward, each piece of memory once, weights not at all."""

    def __init__(self, module: nn.Module, known: dict[int, Tensor]) -> None:
        self.total = 0
        known.update({id_of(t): t for t in (*module.parameters(), *module.buffers())})
        self._known = known

    def watching(self) -> AbstractContextManager[Any]:
        """Return what notes tensors that are kept."""
        return torch.autograd.graph.saved_tensors_hooks(self._note, lambda tensor: tensor)

    def _note(self, tensor: Tensor) -> Tensor:
        if id_of(tensor) not in self._known:
            self._known[id_of(tensor)] = tensor  # as long as it lives, nothing else has its number
            self.total += tensor.untyped_storage().nbytes()
        return tensor


def id_of(tensor: Tensor) -> int:
    """Return what tells one piece of memory from others, also where it holds no data."""
    return int(tensor.untyped_storage()._cdata)


def _spec(graph: SplitGraph, segment: Segment, ref: Ref | str) -> TensorSpec:
    spec = graph.specs.get(ref) if isinstance(ref, Ref) else graph.roles[segment.role].fields.get(ref)
    if spec is None:
        raise StudyError(
            f"what segment {segment.name!r} costs cannot be told: the shape of {str(ref)!r} is not known",
            todo="build the graph with clients= the holdings of your data, or example= a few rows",
        )
    return spec


def _wanted(graph: SplitGraph, ref: Ref | str) -> bool:
    return isinstance(ref, Ref) and graph.needs_gradient(ref)


def _taught(graph: SplitGraph, ref: Ref, silent: frozenset[str]) -> bool:
    """Return whether a gradient of ``ref`` comes to its segment, from a loss or from whoever reads it."""
    if not graph.needs_gradient(ref):
        return False
    first = graph.segments[ref.segment].outputs[0]
    for loss in graph.losses.values():
        name, _, output = loss.prediction.partition(":")
        if Ref(name, output or first) == ref:
            return True
    role = graph.segments[ref.segment].role
    quiet = {cut.target for cut in graph.cuts if cut.name in silent and cut.producer == ref.segment}
    readers = [graph.segments[name].role for name in graph.consumers(ref)]
    return any(reader == role or reader not in quiet for reader in readers)


def _made(spec: TensorSpec, rows: int, device: torch.device, wanted: bool) -> Tensor:
    """Return rows of zeros as ``spec`` says; token ids are 0, which any vocabulary has."""
    tensor = torch.zeros((rows, *spec.shape), dtype=spec.dtype, device=device)
    return tensor.requires_grad_() if wanted and spec.dtype.is_floating_point else tensor
