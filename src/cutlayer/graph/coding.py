"""Which codec writes what at which cut: from words to the cuts of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..codecs import EXACT, Codec, Like, buffer_name, codec_of, full_word, make_room
from ..errors import GraphError, nearest
from .parts import Cut, Ref

if TYPE_CHECKING:
    from .split_graph import SplitGraph

__all__ = ["Choice", "choose", "codecs_text", "feedback_holder", "reserve"]

Choice = str | Codec | Mapping[str, str | Codec] | None
"""One codec for all cuts, or by cut and direction: ``{"head->server": "int8", "head<-server": "bfloat16"}``."""


def choose(cuts: Iterable[Cut], choice: Choice) -> tuple[Cut, ...]:
    """Return ``cuts`` with their codecs.

    A word alone is meant for every cut, and for the gradients that come back too where the codec is one for both (the
    casts and integers). By name, what is not named crosses exactly.

    Raises:
        StudyError: There is no such codec.
        GraphError: There is no such cut or direction, or the codec cannot write what crosses there.
    """
    cuts = tuple(cuts)
    if choice is None:
        return cuts
    if not isinstance(choice, Mapping):
        codec = codec_of(choice)
        back = codec if codec.both_ways or codec.feedback else EXACT
        forwards = replace(codec, feedback=False)
        chosen = {cut.name: forwards for cut in cuts} | {cut.backward_name: back for cut in cuts}
        return tuple(
            _coded(cut, chosen) if cut.kind == "activation" and any(_written(cut)) else cut for cut in cuts
        )
    chosen = {name: codec_of(word) for name, word in choice.items()}
    _check_names(cuts, chosen)
    return tuple(_coded(cut, chosen) for cut in cuts)


def codecs_text(cuts: Iterable[Cut]) -> str:
    """Return which codec writes what, a line each; empty where all crosses exactly."""
    lines = [(cut.name, cut.codec) for cut in cuts] + [(cut.backward_name, cut.return_codec) for cut in cuts]
    return "\n".join(f"{name}: {full_word(codec)}" for name, codec in lines if codec != EXACT)


def feedback_holder(graph: SplitGraph, cut: Cut, tensor: str) -> str:
    """Return the segment in which is kept what was left out of the gradient of ``tensor``: the first to read it."""
    return next(n for n in graph.consumers(Ref(cut.producer, tensor)) if graph.segments[n].role == cut.target)


def reserve(graph: SplitGraph) -> None:
    """Give segments that write gradients with error feedback a buffer for what is left out."""
    for cut in graph.cuts:
        if not cut.return_codec.feedback:
            continue
        for number, (name, spec, back) in enumerate(
            zip(cut.tensors, cut.specs, cut.returns_gradient, strict=True)
        ):
            if back and spec is not None:
                module = graph.segments[feedback_holder(graph, cut, name)].module
                make_room(module, buffer_name(cut.producer, number), spec.shape)


def _check_names(cuts: Iterable[Cut], chosen: Mapping[str, Codec]) -> None:
    known = [cut.name for cut in cuts if cut.kind == "activation"]
    known += [cut.backward_name for cut in cuts if cut.has_gradient]
    labels = [cut.name for cut in cuts if cut.kind == "label"]
    for name in chosen:
        if name in labels:
            raise GraphError(f"a codec is chosen for {name!r}: labels cross as they are", todo="leave it out")
        if name not in known:
            raise GraphError(f"a codec is chosen for the unknown cut {name!r}", todo=nearest(name, known))


def _coded(cut: Cut, chosen: Mapping[str, Codec]) -> Cut:
    """Return ``cut`` with its codecs, found to be able to write what crosses there."""
    codec = chosen.get(cut.name, EXACT)
    back = chosen.get(cut.backward_name, EXACT) if cut.has_gradient else EXACT
    if codec == EXACT and back == EXACT:
        return cut
    if codec.feedback:
        raise GraphError(
            "error feedback is for gradients: what is left out of one batch's activations is nothing to the next "
            "batch's rows",
            cut=cut.name,
            got=full_word(codec),
            todo=f"choose {codec.word!r} here, or '+feedback' for {cut.backward_name!r}",
        )
    if back.feedback and codec.folds:
        raise GraphError(
            f"error feedback needs a gradient of the same form each time; with {codec.word!r} forwards it comes "
            f"back {codec.returns}",
            cut=cut.backward_name,
            todo=f"choose {back.word!r} without feedback",
        )
    for name, spec, written in zip(cut.tensors, cut.specs, _written(cut), strict=True):
        if spec is None:
            raise GraphError(
                f"a codec needs to know the shape of {name!r}",
                cut=cut.name,
                todo="build the graph with example= rows, or over the data's holdings",
            )
        like = Like((2, *spec.shape), spec.dtype)
        for direction, one, shape in (
            (cut.name, codec, like),
            (cut.backward_name, back, codec.folded(like)),
        ):
            if written and (why := one.misfit(shape)):
                raise GraphError(
                    f"{one.word!r} cannot write {name!r}: {why}",
                    cut=direction,
                    got=str(spec),
                    todo="choose another",
                )
    if not any(_written(cut)):
        raise GraphError("a codec writes floating-point tensors, and none crosses here", cut=cut.name)
    return replace(cut, codec=codec, return_codec=back)


def _written(cut: Cut) -> tuple[bool, ...]:
    """Return which of the tensors that cross are written by a codec; numbers that count or choose stay as they are."""
    return tuple(spec is None or spec.dtype.is_floating_point for spec in cut.specs)
