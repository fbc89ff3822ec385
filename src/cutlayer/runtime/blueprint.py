"""The graph's answers, looked up once, for the hot path: what each action of a program touches."""

from __future__ import annotations

from dataclasses import dataclass

from ..codecs import EXACT
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
        indices: Place of the first segment at the far end that reads each, to add gradients in that order.
    """

    cut: Cut
    kind: Kind
    names: tuple[str, ...]
    refs: tuple[Ref, ...]
    specs: tuple[TensorSpec | None, ...]
    indices: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its name in programs and frames."""
        return self.cut.backward_name if self.kind is Kind.GRADIENT else self.cut.name

    @property
    def coded(self) -> bool:
        """Whether a codec has a part in it: to write what crosses, or to bring its gradient in another form."""
        return self.kind is not Kind.LABEL and (self.cut.codec, self.cut.return_codec) != (EXACT, EXACT)


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
        judged = [ref for _, ref in self.predictions.values()]
        self.shared_predictions = {
            name: len(graph.order) + number
            for number, (name, (_, ref)) in enumerate(self.predictions.items())
            if graph.needs_gradient(ref) and judged.count(ref) + len(graph.consumers(ref)) > 1
        }
        """Losses that are not alone to read their prediction, with their place in the order of readers."""

    def parcel(self, what: str) -> tuple[Crossing, ...]:
        """Return what a frame carries by its name, ``head->server`` or several joined by ``+``."""
        return tuple(self.crossings[name] for name in what.split("+"))

    def _add(self, cut: Cut) -> None:
        if cut.kind == "label":
            self.crossings[cut.name] = Crossing(cut, Kind.LABEL, cut.tensors, (), cut.specs, ())
            return
        refs = tuple(Ref(cut.producer, name) for name in cut.tensors)
        indices = tuple(
            min(
                self.work[n].index
                for n in self.graph.consumers(ref)
                if self.graph.segments[n].role == cut.target
            )
            for ref in refs
        )
        self.crossings[cut.name] = Crossing(cut, Kind.ACTIVATION, cut.tensors, refs, cut.specs, indices)
        back = [i for i, wanted in enumerate(cut.returns_gradient) if wanted]
        if back:
            self.crossings[cut.backward_name] = Crossing(
                cut,
                Kind.GRADIENT,
                tuple(cut.tensors[i] for i in back),
                tuple(refs[i] for i in back),
                tuple(cut.specs[i] for i in back),
                tuple(indices[i] for i in back),
            )
