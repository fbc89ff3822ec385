"""Which defences stand at which cut: from words to the cuts of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import GraphError, nearest
from ..privacy import Defence, Place, defences_of
from .parts import Cut, Ref

if TYPE_CHECKING:
    from .split_graph import SplitGraph

__all__ = ["Defences", "defences_text", "defend", "label_field", "place_of", "raw_numbers"]

Defences = (
    str | Defence | Iterable[str | Defence] | Mapping[str, str | Defence | Iterable[str | Defence]] | None
)
"""Defences for every cut where they fit, or by cut: ``{"head->server": ["nopeek:0.1"]}``."""


def defend(graph: SplitGraph, cuts: Iterable[Cut], choice: Defences) -> tuple[Cut, ...]:
    """Return ``cuts`` with their defences.

    Raises:
        StudyError: There is no such defence.
        GraphError: There is no such cut, or the defence cannot stand there.
    """
    cuts = tuple(cuts)
    if choice is None:
        return tuple(replace(cut, defences=()) for cut in cuts)
    at = [cut for cut in cuts if cut.kind == "activation"]
    if isinstance(choice, Mapping):
        by_name = {name: cut for cut in at for name in (cut.name, cut.backward_name)}
        chosen: dict[str, tuple[Defence, ...]] = {}
        for name, words in choice.items():
            if name not in by_name:
                raise GraphError(
                    f"a defence is chosen for the unknown cut {name!r}",
                    todo=nearest(name, [cut.name for cut in at]),
                )
            cut, defences = by_name[name], defences_of(words)
            for defence in defences:
                if why := defence.misfit(place_of(graph, cut)):
                    raise _misfit(defence, cut, why)
            chosen[cut.name] = chosen.get(cut.name, ()) + defences
    else:
        chosen = _wherever_they_fit(graph, at, defences_of(choice))
    return tuple(replace(cut, defences=chosen.get(cut.name, ())) for cut in cuts)


def defences_text(cuts: Iterable[Cut]) -> str:
    """Return which defences stand where, a line each; empty where there are none."""
    return "\n".join(f"{cut.name}: {defence}" for cut in cuts for defence in cut.defences)


def place_of(graph: SplitGraph, cut: Cut) -> Place:
    """Return what a defence may ask of a cut."""
    label = label_field(graph, cut)
    shared = {(share.field, share.source) for share in graph.shares}
    holders = [
        side
        for side, role in (("source", cut.source), ("target", cut.target))
        if label in graph.roles[role].fields
    ]
    return Place(
        cut=cut.name,
        shape=cut.specs[0].shape if cut.specs[0] is not None else None,
        raw=_raw(graph, cut),
        labels=holders[0] if holders else "",
        sent_labels=(label, cut.source) in shared,
        gradient=cut.has_gradient,
        numbers=raw_numbers(graph, cut),
    )


def raw_numbers(graph: SplitGraph, cut: Cut) -> tuple[str, ...]:
    """Return the fields of floating-point numbers, or of a type unknown, that what crosses is made of at the sender."""
    fields = graph.roles[cut.source].fields
    return tuple(
        n for n in _raw(graph, cut) if (spec := fields.get(n)) is None or spec.dtype.is_floating_point
    )


def _raw(graph: SplitGraph, cut: Cut) -> tuple[str, ...]:
    """Return the fields of the sender that what crosses is made of, at the sender alone."""
    found, behind = dict[str, None](), {cut.producer}
    for name in reversed(graph.order):
        if name not in behind or graph.segments[name].role != cut.source:
            continue
        for ref in graph.wiring[name]:
            if isinstance(ref, Ref):
                behind.add(ref.segment)
            else:
                found[ref] = None
    return tuple(found)


def label_field(graph: SplitGraph, cut: Cut) -> str:
    """Return the label of the first loss that what crosses leads to."""
    ahead = {cut.producer}
    for name in graph.order:
        if any(isinstance(ref, Ref) and ref.segment in ahead for ref in graph.wiring[name]):
            ahead.add(name)
    for loss in graph.losses.values():
        if not loss.reconstructs and loss.prediction.partition(":")[0] in ahead:
            return loss.target
    return ""


def _wherever_they_fit(
    graph: SplitGraph, cuts: Iterable[Cut], defences: tuple[Defence, ...]
) -> dict[str, tuple[Defence, ...]]:
    chosen: dict[str, tuple[Defence, ...]] = {}
    for defence in defences:
        why = {cut.name: defence.misfit(place_of(graph, cut)) for cut in cuts}
        fits = [name for name, reason in why.items() if not reason]
        if not fits:
            name, reason = next(iter(why.items()))
            raise _misfit(defence, next(cut for cut in cuts if cut.name == name), reason or "")
        for name in fits:
            chosen[name] = (*chosen.get(name, ()), defence)
    return chosen


def _misfit(defence: Defence, cut: Cut, why: str) -> GraphError:
    return GraphError(
        f"{defence.word!r} cannot stand at this cut: {why}", cut=cut.name, todo="choose another"
    )
