"""How many bytes each frame of a program takes, by the layout that the real encoder uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch

from ..codecs import Like, codec_of
from ..errors import StudyError
from ..graph.split_graph import SplitGraph
from ..runtime.blueprint import Blueprint, Crossing
from ..runtime.live import Workshop
from ..runtime.optim import OptimizerSpec
from ..wire import Kind
from ..wire.frame_layout import Limits, Spec, arrange
from .counting import without_data

__all__ = ["Frame", "Framing", "States"]

_LIMITS = Limits(max_frame_bytes=2**62, max_tensors=2**16 - 1)
_SEALED = "sealed"


class Frame(NamedTuple):
    """What the meters note of a frame, or of labels that ride in another's.

    Attributes:
        cut: Over which cut, or what else it is about.
        content: Activation, gradient, label, hand-over….
        frame_bytes: Its bytes.
        tensor_bytes: Those of the tensors in it.
    """

    cut: str
    content: Kind
    frame_bytes: int
    tensor_bytes: int


class Framing:
    """Sizes of the frames over the cuts of a graph."""

    def __init__(self, graph: SplitGraph) -> None:
        self._blueprint = Blueprint(graph)
        self._known: dict[tuple[str, int], tuple[Frame, ...]] = {}

    def of(self, what: str, rows: int) -> tuple[Frame, ...]:
        """Return the frame called ``what`` with a batch of ``rows``: what it is for, then what rides along."""
        if (what, rows) not in self._known:
            self._known[what, rows] = self._sized(what, rows)
        return self._known[what, rows]

    def _sized(self, what: str, rows: int) -> tuple[Frame, ...]:
        first, *others = self._blueprint.parcel(what)
        own = _written(first, rows)
        riders = [
            (other.cut.name, spec) for other in others for spec in _plain(other, rows, name=other.cut.name)
        ]
        whole = frame_bytes(what, (*own, *(spec for _, spec in riders)))
        rode = [Frame(cut, Kind.LABEL, _bytes([spec]), _bytes([spec])) for cut, spec in riders]
        mine = Frame(first.cut.name, first.kind, whole - sum(r.frame_bytes for r in rode), _bytes(own))
        return (mine, *rode)


class States:
    """Sizes of hand-overs: segments' states with optimizers' memory, as training goes on.

    It has the segments without numbers, and their optimizers do steps on these.

    Args:
        graph: Whose segments.
        optimizers: Each segment's.
    """

    def __init__(self, graph: SplitGraph, optimizers: dict[str, OptimizerSpec]) -> None:
        self._graph = graph
        empty = [replace(s, module=without_data(s.module)) for s in graph.segments.values()]
        workshop = Workshop(empty, optimizers, torch.device("meta"))
        self._live = {name: workshop.fresh(name) for name in graph.order}
        self._stepped: set[str] = set()
        self._every = {name for name, spec in optimizers.items() if spec.schedule and spec.every == "step"}
        self._known: dict[tuple[str, bool], tuple[int, int]] = {}
        self._held: dict[tuple[str, bool], list[Spec]] = {}

    def step(self, segment: str) -> None:
        """Note that ``segment`` did an optimizer step."""
        if segment in self._stepped and segment not in self._every:
            return
        live = self._live[segment]
        for parameter in live.parameters:
            parameter.grad = torch.zeros_like(parameter)
        live.step()
        self._stepped.add(segment)
        self._forget()

    def advance(self, segment: str) -> None:
        """Note that the learning rate of ``segment`` moved on by an epoch."""
        self._live[segment].advance()
        self._forget()

    def _forget(self) -> None:
        self._known.clear()
        self._held.clear()

    def handed(self, what: str, to: str, *, memory: bool) -> tuple[int, int]:
        """Return the bytes of a sealed hand-over of a role's state, and those of the tensors in it.

        Args:
            what: The role, or a copy of its state.
            to: The party that it is sealed for.
            memory: Whether the optimizer's slots are in it.
        """
        if (what, memory) not in self._known:
            specs = self._specs(what.partition(":")[0].partition("#")[0], memory)
            self._known[what, memory] = frame_bytes(what, specs), _bytes(specs)
        sealed, tensors = self._known[what, memory]
        return frame_bytes(to, [(_SEALED, torch.uint8, (sealed,))]), tensors

    def held_bytes(self, segment: str) -> tuple[int, int]:
        """Return the bytes of the weights and buffers of ``segment``, and of its optimizer's slots."""
        state = self._live[segment].state()
        sizes = {True: 0, False: 0}
        for name, tensor in state.items():
            sizes[name.startswith("slot/")] += tensor.nbytes
        return sizes[False], sizes[True]

    def weights(self, segment: str) -> list[Spec]:
        """Return names, types and shapes of the weights and buffers of ``segment``."""
        mark = "weight/"
        return [
            (name.removeprefix(mark), t.dtype, tuple(t.shape))
            for name, t in self._live[segment].state(memory=False).items()
            if name.startswith(mark)
        ]

    def trained_bytes(self, segment: str) -> int:
        """Return the bytes of the gradients of the weights of ``segment``."""
        return sum(parameter.nbytes for parameter in self._live[segment].parameters)

    def _specs(self, role: str, memory: bool) -> list[Spec]:
        return [
            (f"{segment.name}/{name}", dtype, shape)
            for segment in self._graph.segments_of(role)
            for name, dtype, shape in self._state(segment.name, memory)
        ]

    def _state(self, segment: str, memory: bool) -> list[Spec]:
        if (segment, memory) not in self._held:
            state = self._live[segment].state(memory=memory)
            self._held[segment, memory] = [(name, t.dtype, tuple(t.shape)) for name, t in state.items()]
        return self._held[segment, memory]


def frame_bytes(name: str, specs: Sequence[Spec]) -> int:
    """Return the bytes of a frame called ``name`` with tensors of these names, types and shapes."""
    return _frame_bytes(name, tuple((title, dtype, tuple(shape)) for title, dtype, shape in specs))


@lru_cache(maxsize=4096)
def _frame_bytes(name: str, specs: tuple[Spec, ...]) -> int:
    return arrange(name, specs, _LIMITS).frame_bytes


def _bytes(specs: Sequence[Spec]) -> int:
    return sum(
        Like(tuple(shape), dtype).width * shape[0] * dtype.itemsize if shape else dtype.itemsize
        for _, dtype, shape in specs
        if dtype is not None
    )


def _written(crossing: Crossing, rows: int) -> list[Spec]:
    """Return names, types and shapes of the tensors of a crossing as its codec writes them."""
    if not crossing.coded:
        return _plain(crossing, rows)
    back = crossing.kind is Kind.GRADIENT
    found: list[Spec] = []
    for name, dtype, shape in _plain(crossing, rows):
        floats = dtype is not None and dtype.is_floating_point
        forth = crossing.cut.codec if floats else codec_of("exact")
        codec = crossing.cut.return_codec if back and floats else forth
        like = Like(tuple(shape), dtype or torch.float32)
        for part in codec.parts(forth.folded(like) if back else like):
            found.append((f"{name}.{part.name}" if part.name else name, part.dtype, tuple(part.shape)))
    return found


def _plain(crossing: Crossing, rows: int, name: str = "") -> list[Spec]:
    """Return names, types and shapes of the tensors of a crossing as they are.

    Raises:
        StudyError: A shape is not known.
    """
    found: list[Spec] = []
    for title, spec in zip(crossing.names, crossing.specs, strict=True):
        if spec is None:
            raise StudyError(
                "what crosses cannot be counted: its shape is not known",
                cut=crossing.cut.name,
                todo="build the graph with clients= the holdings of your data, or example= rows of all fields",
            )
        found.append((name or title, spec.dtype, (rows, *spec.shape)))
    return found
