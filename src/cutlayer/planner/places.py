"""Every place at which a network can be cut, and the graphs that come of it, without numbers in them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import CutError, StudyError, nearest
from ..graph.building import build_pieces
from ..graph.candidates import Candidate, Survey
from ..graph.coding import Choice
from ..graph.parts import Loss, LossFunction, Ref, Role, Segment, Share, TensorSpec
from ..graph.split_graph import SplitGraph
from .chain import Chain, Stretches
from .counting import Counts, without_data

__all__ = ["TOPOLOGIES", "Network", "Place"]

TOPOLOGIES = ("vanilla", "u_shaped", "multi_hop")
_FEW = 2
_ROLES = {
    "vanilla": ("client", "server"),
    "u_shaped": ("client", "server", "client"),
    "multi_hop": ("client", "hop-1", "server"),
}
_NAMES = {
    "vanilla": ("head", "top"),
    "u_shaped": ("head", "body", "tail"),
    "multi_hop": ("head", "hop-1", "top"),
}


@dataclass(frozen=True)
class Place:
    """A topology with the cuts that it needs.

    Attributes:
        topology: Vanilla, u_shaped or multi_hop.
        cuts: The modules after which it is cut, in order.
    """

    topology: str
    cuts: tuple[str, ...]

    def __str__(self) -> str:
        return " + ".join(self.cuts)


class Network:
    """A network that is surveyed once and cut everywhere.

    Args:
        model: Any module; it is not changed.
        example: Rows of its input [B, ...], or a tuple of its inputs.
        labels: Rows of labels; whole numbers, one a row, unless given.
        loss: The loss; cross-entropy unless given.

    Attributes:
        candidates: The places where it can be cut, in the order of execution.
        parameters: Its parameters.

    Raises:
        CutError: The model does not run on the example, or can be cut nowhere.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Tensor | Sequence[Tensor],
        labels: Tensor | None = None,
        loss: LossFunction | None = None,
    ) -> None:
        self._survey = Survey(copy.deepcopy(model), example)
        self.rows = (example,) if isinstance(example, Tensor) else tuple(example)
        self.candidates: list[Candidate] = [one for one in self._survey.candidates() if one.works]
        if not self.candidates:
            raise CutError(
                f"{type(model).__name__} can be cut nowhere", todo="`cutlayer cuts` says why, place by place"
            )
        self.parameters = sum(p.numel() for p in model.parameters())
        self.whole = copy.deepcopy(model)
        self._hollow = _hollow(self._survey.model, self.rows)
        self._loss = loss or nn.CrossEntropyLoss()
        rows = len(self.rows[0])
        self._label = TensorSpec.of(torch.zeros(rows, dtype=torch.long) if labels is None else labels)

    @cached_property
    def chain(self) -> Chain:
        """The network in pieces from place to place, without numbers if shapes alone tell the FLOPs."""
        hollow = self._chain(self._hollow)
        try:
            known = hollow.counted(_FEW)
        except Exception:  # a layer may do to data what shapes alone do not allow
            return self._chain(self.whole)
        real = self._chain(self.whole)
        same = all(
            (a.forward, a.backward, a.infer) == (b.forward, b.backward, b.infer)
            for a, b in zip(known, real.counted(_FEW), strict=True)
        )
        return hollow if same else real

    def _chain(self, model: nn.Module) -> Chain:
        splits = self._survey.split([one.name for one in self.candidates])
        split, modules = splits[0], build_pieces(model, *splits)
        specs = (TensorSpec.of(rows) for rows in self.rows)
        given = dict(zip(split.course.trace.inputs, specs, strict=True))
        return Chain(
            modules, list(map(split.names, split.inputs)), list(map(split.names, split.outputs)), given
        )

    def counter(self, place: Place) -> Counts:
        """Return what knows the FLOPs of the segments of ``place``."""
        names = [one.name for one in self.candidates]
        marks = [0, *(names.index(cut) + 1 for cut in place.cuts), len(self.chain)]
        return Stretches(self.chain, dict(zip(_NAMES[place.topology], pairwise(marks), strict=True)))

    def find(self, name: str) -> Candidate:
        """Return the place called ``name``.

        Raises:
            CutError: It is no place where the network can be cut.
        """
        for one in self.candidates:
            if one.name == name:
                return one
        raise CutError(
            "the network cannot be cut there", cut=name, todo=nearest(name, [c.name for c in self.candidates])
        )

    def place(self, topology: str, cut: str) -> Place | None:
        """Return ``topology`` with its first cut at ``cut``; None where nothing is left for the parties behind it.

        U-shaped, the client's tail is the last layer that computes. In a multi-hop chain the second cut halves what
        is left.
        """
        if topology not in TOPOLOGIES:
            raise StudyError(f"there is no topology {topology!r}", todo=nearest(topology, TOPOLOGIES))
        if topology == "vanilla":
            return Place(topology, (cut,))
        share = self.find(cut).flops_share
        later = self.candidates[[one.name for one in self.candidates].index(cut) + 1 :]
        if topology == "u_shaped":
            fitting = [one for one in later if share < one.flops_share < 1.0][-1:]
        else:
            halfway = (1.0 + share) / 2
            fitting = sorted(
                (one for one in later if share < one.flops_share < 1.0),
                key=lambda one: abs(one.flops_share - halfway),
            )[:1]
        for second in fitting:
            if self._survey.refusal((cut, second.name), _ROLES[topology]) is None:
                return Place(topology, (cut, second.name))
        return None

    def graph(
        self,
        place: Place,
        clients: int,
        codecs: Choice = None,
        *,
        shared: bool = True,
        real: bool = False,
        alone: bool = False,
    ) -> SplitGraph:
        """Return the graph of a place.

        Args:
            place: Where it is cut.
            clients: How many.
            codecs: How what crosses is written.
            shared: Where labels are in a vanilla or multi-hop graph: sent along by the clients, or the server's own.
            real: With the network's numbers in it, to be trained; else shapes alone.
            alone: With a small classifier at the client, by whose loss it learns without a gradient from the server.
        """
        splits = self._survey.split(place.cuts)
        model = copy.deepcopy(self._survey.model) if real else self._hollow
        modules = build_pieces(model, *splits)
        training = splits[0]
        pieces = [
            _Piece(module, training.names(i), training.names(o))
            for module, i, o in zip(modules, training.inputs, training.outputs, strict=True)
        ]
        inputs, results = training.course.trace.inputs, training.names(training.results)
        roles, names = _ROLES[place.topology], _NAMES[place.topology]
        segments = _segments(pieces, inputs, names, roles)
        last = roles[-1]
        holder = "client" if last == "client" or shared else last
        losses = [Loss(role=last, prediction=f"{names[-1]}:{results[0]}", function=self._loss)]
        if alone:
            segments.insert(
                1, _classifier(segments[0], self._crossing(place.cuts[0])[0], self._classes, real)
            )
            losses.append(Loss(role="client", prediction="own", function=self._loss, name="own"))
        graph = SplitGraph(
            roles=self._roles(roles, inputs, holder, clients),
            segments=segments,
            losses=losses,
            shares=() if holder == last else (Share("y", holder, last),),
            name=place.topology,
        )
        return _with_specs(graph, self._fields(inputs)).with_codecs(codecs)

    def _fields(self, inputs: Sequence[str]) -> dict[str, TensorSpec]:
        names = ("x",) if len(inputs) == 1 else inputs
        return {name: TensorSpec.of(rows) for name, rows in zip(names, self.rows, strict=True)}

    def _roles(self, roles: Sequence[str], inputs: Sequence[str], holder: str, clients: int) -> list[Role]:
        found = []
        for role in dict.fromkeys(roles):
            fields = dict(self._fields(inputs)) if role == "client" else {}
            if role == holder:
                fields["y"] = self._label
            crowd = tuple(f"client-{i}" for i in range(clients)) if role == "client" else (role,)
            found.append(Role(role, crowd, fields))
        return found

    def learns_alone(self, place: Place, shared: bool) -> bool:
        """Return whether clients of ``place`` can learn from a small classifier of their own: one tensor, one label."""
        fits = len(self._crossing(place.cuts[0])) == 1 and self._classes > 0
        return fits and shared and place.topology != "u_shaped"

    def _crossing(self, cut: str) -> list[tuple[int, ...]]:
        return list(self.find(cut).tensors.values())

    @cached_property
    def _classes(self) -> int:
        """How many outputs a row has; 0 where they are no row of numbers."""
        course = self._survey.training
        result = course.measured.specs[self._survey.split([self.candidates[0].name])[0].results[0]]
        return result.shape[1] if len(result.shape) == 2 else 0

    def activations(self, rows: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return what would cross at each place, flattened [B, ...], of ``rows`` at the present weights."""
        names = [one.name for one in self.candidates]
        split = self._survey.split(names)[1]
        model = copy.deepcopy(self._survey.model).eval()
        modules = build_pieces(model, *self._survey.split(names))
        values = dict(zip(split.course.trace.inputs, rows, strict=True))
        found: dict[str, Tensor] = {}
        wanted = [set(split.names(i)) for i in split.inputs]
        with torch.no_grad():
            for number, name in enumerate(names):
                module = modules[number].eval()
                made = module(*(values[i] for i in split.names(split.inputs[number])))
                outputs = made if isinstance(made, tuple) else (made,)
                values.update(zip(split.names(split.outputs[number]), outputs, strict=True))
                later = set().union(*wanted[number + 1 :])
                values = {key: value for key, value in values.items() if key in later}
                crossing = [v for v in values.values() if v.is_floating_point() and len(v) == len(rows[0])]
                if crossing:
                    found[name] = torch.cat([v.flatten(1) for v in crossing], dim=1)
        return found


@dataclass(frozen=True)
class _Piece:
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class _Classifier(nn.Module):
    """Means over all but the features, then one linear layer: [B, C, ...] or [B, L, D] -> [B, classes]."""

    def __init__(self, shape: tuple[int, ...], classes: int, device: str) -> None:
        super().__init__()
        self._sequence = len(shape) == 2
        self.linear = nn.Linear(shape[-1] if self._sequence else shape[0], classes, device=device)

    def forward(self, z: Tensor) -> Tensor:
        """Return logits [B, classes] of what would cross."""
        if self._sequence:
            z = z.mean(1)
        elif z.dim() > 2:
            z = z.flatten(2).mean(2)
        logits: Tensor = self.linear(z)
        return logits


def _classifier(head: Segment, shape: tuple[int, ...], classes: int, real: bool) -> Segment:
    module = _Classifier(shape, classes, "cpu" if real else "meta")
    return Segment("own", "client", module, (f"head:{head.outputs[0]}",))


def _segments(
    pieces: Sequence[_Piece], inputs: Sequence[str], names: Sequence[str], roles: Sequence[str]
) -> list[Segment]:
    source = {inputs[0]: "x"} if len(inputs) == 1 else {name: name for name in inputs}
    segments = []
    for piece, name, role in zip(pieces, names, roles, strict=True):
        segments.append(
            Segment(name, role, piece.module, tuple(source[value] for value in piece.inputs), piece.outputs)
        )
        source.update({value: f"{name}:{value}" for value in piece.outputs})
    return segments


def _with_specs(graph: SplitGraph, fields: Mapping[str, TensorSpec]) -> SplitGraph:
    """Let the graph know the shapes of what crosses, by sending shapes alone through it."""
    values: dict[Ref, Tensor] = {}
    weights = (t for s in graph.segments.values() for t in s.module.parameters())
    device = next(weights, torch.zeros(())).device
    for name in graph.order:
        segment = graph.segments[name]
        module = segment.module
        inputs = [
            values[ref] if isinstance(ref, Ref) else _empty(fields[ref], device) for ref in graph.wiring[name]
        ]
        training = module.training
        with torch.no_grad():
            made = module.eval()(*inputs)
        module.train(training)
        for output, tensor in zip(segment.outputs, made if isinstance(made, tuple) else (made,), strict=True):
            values[Ref(name, output)] = tensor
            graph.specs[Ref(name, output)] = TensorSpec.of(tensor)
    graph.cuts = tuple(
        cut if cut.kind == "label" else replace(
            cut,
            specs=tuple(graph.specs[Ref(cut.producer, t)] for t in cut.tensors),
            returns_gradient=tuple(graph.needs_gradient(Ref(cut.producer, t)) for t in cut.tensors),
        )
        for cut in graph.cuts
    )  # fmt: skip
    return graph


def _empty(spec: TensorSpec, device: torch.device) -> Tensor:
    return torch.zeros((2, *spec.shape), dtype=spec.dtype, device=device)


def _hollow(model: nn.Module, rows: Sequence[Tensor]) -> nn.Module:
    """Return a copy of ``model`` without numbers; the model itself, where shapes alone do not go through it."""
    hollow = without_data(model)
    try:
        with torch.no_grad():
            hollow(*(tensor[:_FEW].to("meta") for tensor in rows))
    except Exception:  # a layer may do to data what shapes alone do not allow
        return model
    return hollow
