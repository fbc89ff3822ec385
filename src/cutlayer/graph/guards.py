"""What no cut may carry: labels that nobody shares openly, and raw columns as they are, scaled or shifted.

Labels are followed through the wiring. Raw columns are looked for with random rows: the segments run on them,
and each number of what crosses is compared, over the rows, with each raw number of the party.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import GraphError
from ..seeds import stream
from .parts import Ref, Segment, TensorSpec

if TYPE_CHECKING:
    from .split_graph import SplitGraph

__all__ = ["refuse_labels", "refuse_raw", "refuse_raw_columns", "run_segment"]

ROWS = 8
LARGEST = 2**18
"""Numbers a row up to which a field is probed: a picture of 3 x 256 x 256 fits, a volume does not."""
_ROUNDS = 3
_CHUNK = 2**16
_TOLERANCE = 1e-5


def refuse_labels(graph: SplitGraph) -> None:
    """Refuse a graph in which a label, by way of segments of its role, feeds what crosses a cut.

    Raises:
        GraphError: Names the label, the segment that reads it and the output that would cross.
    """
    targets = _labels(graph)
    fed: dict[str, tuple[str, str]] = {}
    for name in graph.order:
        role = graph.segments[name].role
        for ref in graph.wiring[name]:
            if isinstance(ref, str) and ref in targets:
                fed[name] = (ref, name)
            elif isinstance(ref, Ref) and ref.segment in fed and graph.segments[ref.segment].role == role:
                fed[name] = fed[ref.segment]
        away = [ref for ref in _crossing(graph) if ref.segment == name]
        if name in fed and away:
            label, reader = fed[name]
            raise GraphError(
                f"segment {reader!r} reads the label {label!r} of role {role!r}, and {str(away[0])!r}, "
                "which crosses a cut, is made from it: a label must not feed what crosses a cut",
                todo="drop that input; whoever needs the label for a loss gets it openly, with "
                "Share(field, source, target); for an input that is made again at home: Loss(reconstructs=True)",
            )


def refuse_raw_columns(
    graph: SplitGraph, example: Mapping[str, Mapping[str, Tensor]]
) -> frozenset[tuple[str, str]]:
    """Refuse a graph in which a number that crosses a cut is a raw number, as it is or scaled, shifted or negated.

    Random rows in the shape of the example go through the segments. A number that crosses is refused if over
    these rows it equals a raw number, for float fields also up to an affine change (a batch normalisation of
    the records). A field with one number a row is only looked for as it is, since every layer scales it.
    Segments that do not run on random rows are not looked at, nor fields of more than ``LARGEST`` numbers.

    Returns:
        The fields, (role, field), that could not be tried.

    Raises:
        GraphError: Names the field and the output.
    """
    missed: set[tuple[str, str]] = set()
    first = list(_passed_on(graph, example, 0, missed))
    for found in first:
        if all(found in _passed_on(graph, example, i, missed) for i in range(1, _ROUNDS)):
            ref, field = found
            role = graph.segments[ref.segment].role
            raise GraphError(
                f"the output {ref.output!r} of segment {ref.segment!r} passes on columns of the raw field "
                f"{field!r} of role {role!r}, as they are or only scaled, shifted or negated: "
                "a raw field never crosses a cut",
                todo="cut after a layer that mixes the columns (linear, convolution); normalising, cropping or "
                "reordering them is not enough",
            )
    return frozenset(missed)


def refuse_raw(
    graph: SplitGraph, ref: Ref, tensor: Tensor, example: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Refuse an output that crosses a cut and is, on the example, a raw field as a whole."""
    role = graph.segments[ref.segment].role
    if all(graph.segments[name].role == role for name in graph.consumers(ref)):
        return
    for field, raw in example.get(role, {}).items():
        same = raw.numel() == tensor.numel() and raw.numel() > 0
        if same and torch.equal(raw.flatten().to(tensor.dtype), tensor.flatten()):
            raise GraphError(
                f"the output {ref.output!r} of segment {ref.segment!r} is the raw field {field!r} "
                f"of role {role!r}: "
                "a raw field never crosses a cut",
                todo="cut after at least one layer that changes it",
            )


def run_segment(segment: Segment, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Return what ``segment`` makes of ``inputs`` in evaluation mode, without gradients.

    Raises:
        GraphError: It cannot run on them, or returns other than one tensor for each of its outputs.
    """
    training = segment.module.training
    segment.module.eval()
    try:
        with torch.no_grad():
            result = segment.module(*inputs)
    except Exception as error:
        shapes = ", ".join(str(TensorSpec.of(t)) for t in inputs)
        raise GraphError(
            f"segment {segment.name!r} cannot run on its inputs {shapes}: {error}",
            todo="check the shapes of the data fields and the layers before this segment",
        ) from error
    finally:
        segment.module.train(training)
    outputs = result if isinstance(result, tuple) else (result,)
    if len(outputs) != len(segment.outputs) or not all(isinstance(t, Tensor) for t in outputs):
        raise GraphError(
            f"segment {segment.name!r} must return one tensor for each of its outputs",
            got=f"{len(outputs)} values",
            expected=f"{len(segment.outputs)} ({', '.join(segment.outputs)})",
        )
    return outputs


def _labels(graph: SplitGraph) -> set[str]:
    """Return the fields that losses want predicted; an input that is made again at home is none of them."""
    return {loss.target for loss in graph.losses.values() if not loss.reconstructs}


def _crossing(graph: SplitGraph) -> list[Ref]:
    """Return the outputs that a segment on another role reads."""
    refs = (Ref(name, output) for name in graph.order for output in graph.segments[name].outputs)
    return [
        ref
        for ref in refs
        if any(graph.segments[c].role != graph.segments[ref.segment].role for c in graph.consumers(ref))
    ]


def _passed_on(
    graph: SplitGraph,
    example: Mapping[str, Mapping[str, Tensor]],
    index: int,
    missed: set[tuple[str, str]],
) -> Iterator[tuple[Ref, str]]:
    """Yield the outputs that cross and the fields of which they pass on columns, for one set of random rows."""
    generator = torch.Generator().manual_seed(stream(0, "raw columns", index))
    drawn = {role: {n: _random(rows, generator) for n, rows in of.items()} for role, of in example.items()}
    targets = _labels(graph)
    values: dict[Ref, Tensor] = {}
    for ref in _crossing(graph):
        role = graph.segments[ref.segment].role
        own = {name: field for name, field in drawn.get(role, {}).items() if name not in targets}
        small = {name: f for name, f in own.items() if len(f) and 0 < f[0].numel() <= LARGEST}
        missed |= {(role, name) for name in own if name not in small}
        if not small:
            continue
        try:
            with torch.random.fork_rng(devices=[]):
                _run(graph, ref.segment, drawn, values)
        except GraphError:  # not every model takes any number of rows or any values
            missed |= {(role, name) for name in small}
            continue
        if len(values[ref]) != ROWS:
            missed |= {(role, name) for name in small}
            continue
        for name, raw in small.items():
            if _contains(values[ref], raw):
                yield ref, name


def _random(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Return random rows like ``rows`` [B, ...]: normal numbers, positive like them; else their values, mixed."""
    if rows.is_floating_point():
        drawn = torch.randn(ROWS, *rows.shape[1:], generator=generator, dtype=torch.float64)
        positive = rows.numel() > 0 and bool((rows >= 0).all()) and bool(rows.any())
        return (drawn.abs() if positive else drawn).to(rows)
    if not len(rows):
        return rows
    chosen = torch.randint(len(rows), (ROWS, *rows.shape[1:]), generator=generator)
    return rows.gather(0, chosen.to(rows.device))


def _run(
    graph: SplitGraph, name: str, fields: Mapping[str, Mapping[str, Tensor]], values: dict[Ref, Tensor]
) -> None:
    """Run segment ``name`` and, before it, those that it reads and that have not run."""
    segment = graph.segments[name]
    if Ref(name, segment.outputs[0]) in values:
        return
    inputs = []
    for ref in graph.wiring[name]:
        if isinstance(ref, Ref):
            _run(graph, ref.segment, fields, values)
        inputs.append(values[ref] if isinstance(ref, Ref) else fields[segment.role][ref])
    outputs = run_segment(segment, inputs)
    values.update({Ref(name, output): t for output, t in zip(segment.outputs, outputs, strict=True)})


def _contains(made: Tensor, raw: Tensor) -> bool:
    """Return whether a column of ``made`` [B, ...] is one of ``raw`` [B, ...], both flattened for each row."""
    continuous = raw.is_floating_point()
    made, raw = made.reshape(ROWS, -1).cpu().double(), raw.reshape(ROWS, -1).cpu().double()
    if not continuous:
        known = {column.tobytes() for column in _varying(raw).T.contiguous().numpy()}
        return any(column.tobytes() in known for column in _varying(made).T.contiguous().numpy())
    affine = raw.shape[1] > 1
    wanted = _standard(_varying(raw), affine)
    wanted = wanted[:, wanted[0].argsort()].contiguous()
    for start in range(0, made.shape[1], _CHUNK):
        columns = _standard(_varying(made[:, start : start + _CHUNK]), affine)
        if _meets(columns, wanted) or _meets(-columns, wanted):
            return True
    return False


def _varying(columns: Tensor) -> Tensor:
    """Return the columns of [B, C] that are finite and not constant."""
    return columns[:, columns.isfinite().all(0) & (columns != columns[:1]).any(0)]


def _standard(columns: Tensor, affine: bool) -> Tensor:
    """Return the columns of [B, C] with mean 0 and norm 1, so that affine changes up to sign do not show."""
    if not affine:
        return columns
    centred = columns - columns.mean(0)
    scaled: Tensor = centred / centred.square().sum(0).sqrt().clamp_min(1e-300)
    return scaled


def _meets(columns: Tensor, wanted: Tensor) -> bool:
    """Return whether a column of [B, C] is near one of ``wanted`` [B, R], which are sorted by their first number."""
    if not columns.numel() or not wanted.numel():
        return False
    key = wanted[0].contiguous()
    low = torch.searchsorted(key, (columns[0] - _TOLERANCE).contiguous())
    high = torch.searchsorted(key, (columns[0] + _TOLERANCE).contiguous())
    while bool((low < high).any()):
        left = (low < high).nonzero().flatten()
        columns, low, high = columns[:, left], low[left], high[left]
        if bool(((columns - wanted[:, low]).abs() <= _TOLERANCE).all(0).any()):
            return True
        low = low + 1
    return False
