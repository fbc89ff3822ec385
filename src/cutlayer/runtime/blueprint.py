"""The graph's answers, looked up once, for the hot path: what each action of a program touches."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph.parts import Cut, Ref, TensorSpec
from ..graph.split_graph import SplitGraph
from ..wire import Kind

__all__ = ["Blueprint", "Crossing", "Work"]


@dataclass(frozen=True, slots=True)
class Work:
    """What running a segment touches.

    Attributes:
        name: The segment.
        index: Its place in the order of execution.
        inputs: A field's name, or a reference with whether its gradient is wanted.
        outputs: References to what it makes.
    """

    name: str
    index: int
    inputs: tuple[tuple[str | Ref, bool], ...]
    outputs: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class Crossing:
    """What a frame over a cut carries in one direction.

    Attributes:
        cut: The cut.
        kind: Activation, gradient or label.
        names: Names of the tensors in the frame.
        refs: What they are in the graph (none for labels).
        specs: Their shapes and dtypes.
        index: Place of the last segment that reads them at the far end, to add gradients in that order.
    """

    cut: Cut
    kind: Kind
    names: tuple[str, ...]
    refs: tuple[Ref, ...]
    specs: tuple[TensorSpec | None, ...]
    index: int


class Blueprint:
    """The graph's segments and crossings by the names that actions use."""

    def __init__(self, graph: SplitGraph) -> None:
        self.graph = graph
        self.work = {
            name: Work(
                name,
                index,
                tuple((r, isinstance(r, Ref) and graph.needs_gradient(r)) for r in graph.wiring[name]),
                tuple(Ref(name, output) for output in graph.segments[name].outputs),
            )
            for index, name in enumerate(graph.order)
        }
        self.crossings: dict[str, Crossing] = {}
        for cut in graph.cuts:
            self._add(cut)
        self.predictions = {
            loss.name: (segment, Ref(segment, output or graph.segments[segment].outputs[0]))
            for loss in graph.losses.values()
            for segment, _, output in [loss.prediction.partition(":")]
        }

    def parcel(self, what: str) -> tuple[Crossing, ...]:
        """Return what a frame carries by its name, ``head->server`` or several joined by ``+``."""
        return tuple(self.crossings[name] for name in what.split("+"))

    def _add(self, cut: Cut) -> None:
        if cut.kind == "label":
            self.crossings[cut.name] = Crossing(cut, Kind.LABEL, cut.tensors, (), cut.specs, 0)
            return
        refs = tuple(Ref(cut.producer, name) for name in cut.tensors)
        readers = [
            self.work[n].index
            for ref in refs
            for n in self.graph.consumers(ref)
            if self.graph.segments[n].role == cut.target
        ]
        self.crossings[cut.name] = Crossing(cut, Kind.ACTIVATION, cut.tensors, refs, cut.specs, max(readers))
        back = [i for i, wanted in enumerate(cut.returns_gradient) if wanted]
        if back:
            self.crossings[cut.backward_name] = Crossing(
                cut,
                Kind.GRADIENT,
                tuple(cut.tensors[i] for i in back),
                tuple(refs[i] for i in back),
                tuple(cut.specs[i] for i in back),
                max(readers),
            )
