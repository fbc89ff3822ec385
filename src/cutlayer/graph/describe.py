"""A split graph in words and as a Mermaid flowchart.

The text says all that parties must agree on about places, wiring and shapes, and nothing about the
values of parameters: it is the same on every machine and before and after training, so it can be hashed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.parameter import is_lazy

from ..codecs import EXACT, full_word
from .parts import Cut, Loss, Ref, TensorSpec

if TYPE_CHECKING:
    from .split_graph import SplitGraph

__all__ = ["Size", "count", "crew", "function_name", "mermaid", "size_of", "spec_text", "text", "word"]

SHOWN_PARTIES = 8


@dataclass(frozen=True)
class Size:
    """How large a module is.

    Attributes:
        parameters: Numbers in its parameters.
        trainable: Those of them that are trained.
        buffers: Numbers in its buffers.
        state_bytes: Bytes of parameters and buffers.
    """

    parameters: int = 0
    trainable: int = 0
    buffers: int = 0
    state_bytes: int = 0

    def __add__(self, other: Size) -> Size:
        """Return both together."""
        return Size(
            self.parameters + other.parameters,
            self.trainable + other.trainable,
            self.buffers + other.buffers,
            self.state_bytes + other.state_bytes,
        )


def size_of(module: nn.Module) -> Size:
    """Return the size of ``module``; parameters whose shape is not known yet count as nothing."""
    parameters = [p for p in module.parameters() if not is_lazy(p)]
    buffers = [b for b in module.buffers() if not is_lazy(b)]
    return Size(
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
        sum(b.numel() for b in buffers),
        sum(t.numel() * t.element_size() for t in (*parameters, *buffers)),
    )


def word(name: str) -> str:
    """Return ``name`` as it is if it reads as one word, else quoted."""
    return name if re.fullmatch(r"[\w.:<>-]+", name) else repr(name)


def count(number: int, noun: str) -> str:
    """Return ``1 party`` or ``2 parties``, with thousands separated.

    >>> count(1, "party"), count(1200, "party"), count(3, "cut")
    ('1 party', '1,200 parties', '3 cuts')
    """
    plural = noun if number == 1 else noun[:-1] + "ies" if noun.endswith("ty") else noun + "s"
    return f"{number:,} {plural}"


def spec_text(spec: TensorSpec | None) -> str:
    """Return dtype and shape, or that they are not known."""
    return "shape not known" if spec is None else str(spec)


def crew(parties: Sequence[str]) -> str:
    """Return the names of a role's parties, many of them abbreviated without losing which they are.

    >>> crew(["clinic", "laboratory"])
    'clinic, laboratory'
    >>> crew([f"client-{i}" for i in range(100)])
    'client-0 … client-99'

    Numbered names stand for all between; of many others the middle is replaced by a fingerprint of the list.
    """
    if len(parties) <= SHOWN_PARTIES:
        return ", ".join(parties)
    first = re.fullmatch(r"(.*?)(0|[1-9][0-9]*)", parties[0])
    if first:
        stem, start = first[1], int(first[2])
        if list(parties) == [f"{stem}{start + i}" for i in range(len(parties))]:
            return f"{parties[0]} … {parties[-1]}"
    fingerprint = hashlib.sha256("\n".join(parties).encode()).hexdigest()[:16]
    return f"{parties[0]}, {parties[1]}, … {parties[-1]}; list {fingerprint}"


def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a loss function, the same in every process."""
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__


def text(graph: SplitGraph) -> str:
    """Return roles with parties and fields, segments in order, cuts, losses and shares as plain text."""
    title = (
        f"{graph.name}: {count(len(graph.segments), 'segment')} on {count(len(graph.roles), 'role')}, "
        f"{count(len(graph.parties), 'party')}, {count(len(graph.cuts), 'cut')}"
    )
    blocks = [
        ("Roles", _roles(graph)),
        ("Segments, in the order of execution", _segments(graph)),
        ("Cuts", [_cut(cut) for cut in graph.cuts]),
        ("Losses", [_loss(graph, loss) for loss in graph.losses.values()]),
        ("Labels openly shared", _shares(graph)),
    ]
    lines = [title]
    for heading, block in blocks:
        lines += ["", heading, *(f"  {line}" for line in block or ["none"])]
    return "\n".join(lines) + "\n"


def _roles(graph: SplitGraph) -> list[str]:
    lines = []
    for role in graph.roles.values():
        lines.append(f"{role.name} ({count(len(role.parties), 'party')}: {crew(role.parties)})")
        lines += [f"  field {word(name)}: {spec_text(spec)}" for name, spec in role.fields.items()]
    return lines


def _segments(graph: SplitGraph) -> list[str]:
    lines = []
    for name in graph.order:
        segment, size = graph.segments[name], size_of(graph.segments[name].module)
        reads = ", ".join(_input(graph, ref) for ref in graph.wiring[name])
        makes = ", ".join(
            f"{word(output)} {spec_text(graph.specs.get(Ref(name, output)))}" for output in segment.outputs
        )
        lines.append(f"{name} on {segment.role}")
        lines.append(f"  reads {reads}")
        lines.append(f"  makes {makes}")
        lines.append(
            f"  holds {size.parameters:,} parameters ({size.trainable:,} trained), {size.buffers:,} buffers"
        )
    return lines


def _input(graph: SplitGraph, ref: Ref | str) -> str:
    if isinstance(ref, str):
        return f"field {word(ref)}"
    return (
        ref.segment if len(graph.segments[ref.segment].outputs) == 1 else f"{ref.segment}:{word(ref.output)}"
    )


def _cut(cut: Cut) -> str:
    tensors = ", ".join(
        f"{word(name)} {spec_text(spec)}{'' if back or cut.kind == 'label' else ' (no gradient)'}"
        for name, spec, back in zip(cut.tensors, cut.specs, cut.returns_gradient, strict=True)
    )
    back = f"; gradient back from {cut.target} to {cut.source}" if cut.has_gradient else "; no gradient back"
    written = f", written as {full_word(cut.codec)}" if cut.codec != EXACT else ""
    back += f", written as {full_word(cut.return_codec)}" if cut.return_codec != EXACT else ""
    kept = f"; defended by {', then '.join(map(str, cut.defences))}" if cut.defences else ""
    return f"{word(cut.name)}: {cut.kind} from {cut.source} to {cut.target}: {tensors}{written}{back}{kept}"


def _loss(graph: SplitGraph, loss: Loss) -> str:
    return (
        f"{loss.name} on {loss.role}: {function_name(loss.function)} of {word(loss.prediction)} "
        f"and field {word(loss.target)}, weight {repr(float(loss.weight)).removesuffix('.0')}"
        f"{', made again at home' if loss.reconstructs else ''}"
    )


def _shares(graph: SplitGraph) -> list[str]:
    return [f"{word(share.field)} from {share.source} to {share.target}" for share in graph.shares]


def mermaid(graph: SplitGraph) -> str:
    """Return a Mermaid flowchart: a box for each role, cuts with shapes, shared labels dashed."""
    ids = _Ids()
    lines = ["flowchart LR"]
    for role in graph.roles.values():
        many = f" · {count(len(role.parties), 'party')}" if len(role.parties) > 1 else ""
        lines.append(f'  subgraph {ids("role", role.name)}["{_quoted(role.name + many)}"]')
        for name, spec in role.fields.items():
            lines.append(
                f'    {ids("field", role.name, name)}[("{_quoted(name)}<br/>{_quoted(spec_text(spec))}")]'
            )
        for segment in graph.segments_of(role.name):
            lines.append(f'    {ids("segment", segment.name)}["{_quoted(segment.name)}"]')
        for loss in graph.losses.values():
            if loss.role == role.name:
                lines.append(f'    {ids("loss", loss.name)}(("{_quoted(loss.name)}"))')
        lines.append("  end")
    return "\n".join([*lines, *_edges(graph, ids)]) + "\n"


class _Ids:
    """Gives each thing a short name that Mermaid accepts."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], str] = {}

    def __call__(self, *key: str) -> str:
        return self._known.setdefault(key, f"{key[0][0]}{len(self._known)}")


def _edges(graph: SplitGraph, ids: _Ids) -> list[str]:
    lines = []
    for name in graph.order:
        role = graph.segments[name].role
        for ref in graph.wiring[name]:
            if isinstance(ref, str):
                lines.append(f"  {ids('field', role, ref)} --> {ids('segment', name)}")
            elif graph.segments[ref.segment].role == role:
                lines.append(f"  {ids('segment', ref.segment)} --> {ids('segment', name)}")
            else:
                back = ", gradient back" if graph.needs_gradient(ref) else ""
                label = _quoted(spec_text(graph.specs.get(ref)) + back)
                lines.append(f'  {ids("segment", ref.segment)} ==>|"{label}"| {ids("segment", name)}')
    for loss in graph.losses.values():
        lines.append(f"  {ids('segment', loss.prediction.partition(':')[0])} --> {ids('loss', loss.name)}")
        if loss.target in graph.roles[loss.role].fields:
            lines.append(f"  {ids('field', loss.role, loss.target)} --> {ids('loss', loss.name)}")
    for share in graph.shares:
        label = _quoted(f"label {share.field} {spec_text(graph.roles[share.source].fields[share.field])}")
        for loss in graph.losses.values():
            if (loss.target, loss.role) == (share.field, share.target):
                source, target = ids("field", share.source, share.field), ids("loss", loss.name)
                lines.append(f'  {source} -. "{label}" .-> {target}')
    return lines


def _quoted(label: str) -> str:
    """Return ``label`` for use between the quotes of Mermaid, where no character of it means anything."""
    special = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "\\": "#92;", "`": "#96;"}
    return "".join(special.get(c, c) if c.isprintable() else " " for c in label)
