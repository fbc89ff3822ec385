"""An autoencoder at home: a decoder beside what crosses a cut, whose loss no other party has a part in.

Gupta & Raskar 2018 (arXiv 1810.06060), algorithm 3: a client's layers up to the cut are an encoder, a decoder at the
same client makes the input again from the activations, and the weighted loss of that joins what comes back over the
cut. Rows without a label teach encoder and decoder alone.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torch import nn

from ..codecs import EXACT
from ..errors import GraphError, nearest
from .parts import Cut, Loss, LossFunction, Ref, Segment
from .remembering import remembered

if TYPE_CHECKING:
    from .split_graph import SplitGraph

__all__ = ["check_reconstructions", "roles_at_home", "taught_at_home", "with_decoder"]


def with_decoder(
    graph: SplitGraph,
    decoder: nn.Module,
    *,
    alpha: float = 1.0,
    role: str = "client",
    field: str = "x",
    function: LossFunction | None = None,
    name: str = "decoder",
) -> SplitGraph:
    """Return ``graph`` with a decoder at ``role``, which makes the field again from what crosses the cut there.

    Its loss, ``alpha`` times the mean squared error, is added to the gradient that comes back. Decoder and
    reconstruction never leave; the rest of the graph stays as it is, over the same modules.

    Args:
        graph: Any configuration in which ``role`` sends activations.
        decoder: Called with the tensors that cross, in order; returns rows in the shape of the field. It is copied.
        alpha: The weight of its loss beside the graph's other losses.
        role: Whose raw field it is.
        field: What is made again.
        function: ``function(reconstruction, field)``; the mean squared error unless given.
        name: The segment's name; the loss is ``reconstruction`` for ``decoder``, else ``reconstruction-name``.

    Raises:
        GraphError: The role sends no activations or lacks the field, or the decoder returns another shape.
    """
    from .split_graph import SplitGraph

    cut = _encoded(graph, role)
    segment = Segment(name, role, copy.deepcopy(decoder), tuple(f"{cut.producer}:{t}" for t in cut.tensors))
    loss = Loss(
        role=role,
        prediction=name,
        target=field,
        function=function or nn.MSELoss(),
        weight=alpha,
        name="reconstruction" if name == "decoder" else f"reconstruction-{name}",
        reconstructs=True,
    )
    codecs = {c.name: c.codec for c in graph.cuts if c.codec != EXACT}
    codecs |= {c.backward_name: c.return_codec for c in graph.cuts if c.return_codec != EXACT}
    made = SplitGraph(
        roles=graph.roles.values(),
        segments=[*graph.segments.values(), segment],
        losses=[*graph.losses.values(), loss],
        shares=graph.shares,
        example=graph.example,
        name=graph.name,
        codecs=codecs or None,
    )
    _check_shape(made, loss)
    return made.with_defences({c.name: c.defences for c in graph.cuts if c.defences})


def check_reconstructions(graph: SplitGraph) -> None:
    """Refuse a loss that makes an input again in which another role has a part.

    Raises:
        GraphError: Names the loss, and the segment or the field.
    """
    for loss in graph.losses.values():
        if not loss.reconstructs:
            continue
        if loss.target not in graph.roles[loss.role].fields:
            raise GraphError(
                f"loss {loss.name!r} makes the field {loss.target!r} again, which role {loss.role!r} does not hold",
                todo=nearest(loss.target, list(graph.roles[loss.role].fields)),
            )
        behind = _behind(graph, loss)
        if not any(loss.target in graph.wiring[name] for name in behind):
            raise GraphError(
                f"loss {loss.name!r} makes the field {loss.target!r} again, which nothing behind it reads",
                todo="a field that is to be predicted from others is a label: leave reconstructs out",
            )
        for name in behind:
            role = graph.segments[name].role
            if role != loss.role:
                raise GraphError(
                    f"loss {loss.name!r} of role {loss.role!r} makes {loss.target!r} again with segment {name!r} of "
                    f"role {role!r}: encoder and decoder stay at home",
                    todo=f"let the decoder read what role {loss.role!r} itself makes, before it crosses a cut",
                )


@remembered(64)
def taught_at_home(graph: SplitGraph) -> frozenset[str]:
    """Return the segments that rows without labels teach: encoders and decoders."""
    return frozenset(
        name for loss in graph.losses.values() if loss.reconstructs for name in _behind(graph, loss)
    )


@remembered(64)
def roles_at_home(graph: SplitGraph) -> tuple[str, ...]:
    """Return the roles that have a decoder, so a use for rows without labels."""
    return tuple(dict.fromkeys(loss.role for loss in graph.losses.values() if loss.reconstructs))


def _behind(graph: SplitGraph, loss: Loss) -> set[str]:
    """Return the segments whose outputs a loss's prediction is made of, that one included."""
    found = {loss.prediction.partition(":")[0]}
    for name in reversed(graph.order):
        if name in found:
            found |= {ref.segment for ref in graph.wiring[name] if isinstance(ref, Ref)}
    return found


def _encoded(graph: SplitGraph, role: str) -> Cut:
    """Return the first cut over which ``role`` sends activations."""
    if role not in graph.roles:
        raise GraphError(f"the graph has no role {role!r}", todo=nearest(role, list(graph.roles)))
    found = [cut for cut in graph.cuts_from(role) if cut.kind == "activation"]
    if not found:
        raise GraphError(
            f"role {role!r} sends no activations, so there is nothing to decode",
            todo="name the role of the clients, which hold the raw field",
        )
    return found[0]


def _check_shape(graph: SplitGraph, loss: Loss) -> None:
    made = graph.specs.get(Ref(loss.prediction, "out"))
    wanted = graph.roles[loss.role].fields[loss.target]
    if made is not None and wanted is not None and made.shape != wanted.shape:
        raise GraphError(
            f"the decoder's rows are not in the shape of the field {loss.target!r}",
            got=str(made),
            expected=str(wanted),
            todo="let its last layer return as many numbers, and reshape them (nn.Unflatten)",
        )
