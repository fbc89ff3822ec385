"""The configurations of split learning by name, each one call that returns a :class:`SplitGraph`.

Vepakomma, Gupta, Swedish, Raskar 2018, "Split learning for health" (arXiv 1812.00564) draws them;
all are built from the same parts, so a configuration of one's own is a handful of
:class:`~cutlayer.graph.parts.Segment` and :class:`~cutlayer.graph.parts.Loss` in a
:class:`~cutlayer.graph.split_graph.SplitGraph`.

Who fills a role is said by ``clients`` or ``parties``: the holdings that ``cutlayer.data`` returns
(then fields, shapes and label holders are read off the data), or names, with ``example`` rows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from ..errors import CutError, GraphError, nearest
from .coding import Choice
from .cutting import Pieces, cut_module
from .merge import merge_module
from .parts import Loss, LossFunction, Placement, Role, Segment, Share, TensorSpec
from .placements import Named, Places, as_placement
from .split_graph import SplitGraph

__all__ = [
    "cut_segments", "extended_vanilla", "multi_hop", "multi_task", "u_shaped", "vanilla", "vertical",
]  # fmt: skip

CutWord = str | float


Clients = Places | Sequence[str] | int
Example = Tensor | Mapping[str, Tensor] | None


def vanilla(
    model: nn.Module,
    cut: CutWord,
    *,
    clients: Clients = 1,
    example: Example = None,
    loss: LossFunction | None = None,
    server: str = "server",
    codecs: Choice = None,
) -> SplitGraph:
    """Client up to the cut, server the rest and the loss (Gupta & Raskar 2018, algorithm 1).

    Where the data gives the labels to the server they stay there. Where clients hold them, each batch's
    labels are sent to the server, which the disclosure statement says; use :func:`u_shaped` to keep them.

    Args:
        model: Any module; it is copied, not changed.
        cut: Where: a module's name (``"layer2"``), or a share of the forward FLOPs (``0.1``).
        clients: The data's holdings (or their ``parties``), the clients' names, or how many clients.
        example: Rows of ``x`` (or ``{field: rows}``) where ``clients`` carries no data.
        loss: ``loss(prediction, label)``; cross-entropy unless given.
        server: The server's name.
        codecs: How what crosses is written, ``"int8"`` or ``{"head->server": "int8"}``; as it is unless said.

    Raises:
        CutError: The model cannot be cut there; names the nearest cut that works.
        GraphError: An argument is of another kind than it should be.
    """
    roles = ("client", "server")
    return _chain("vanilla", model, _cuts(cut, "vanilla", 1), roles, clients, example, loss, server, codecs)


def u_shaped(
    model: nn.Module,
    cuts: tuple[CutWord, CutWord],
    *,
    clients: Clients = 1,
    example: Example = None,
    loss: LossFunction | None = None,
    server: str = "server",
    codecs: Choice = None,
) -> SplitGraph:
    """Client head, server body, client tail: neither records nor labels leave the client.

    Arguments as in :func:`vanilla`; ``cuts`` are the ends of head and body.
    """
    return _chain(
        "u_shaped",
        model,
        _cuts(cuts, "u_shaped", 2),
        ("client", "server", "client"),
        clients,
        example,
        loss,
        server,
        codecs,
    )


def multi_hop(
    model: nn.Module,
    cuts: Sequence[CutWord],
    *,
    clients: Clients = 1,
    hops: Sequence[str] | None = None,
    example: Example = None,
    loss: LossFunction | None = None,
    server: str = "server",
    codecs: Choice = None,
) -> SplitGraph:
    """Client to hop to hop to server ("Tor-like"): each owns some layers and sees only its neighbours.

    Arguments as in :func:`vanilla`; ``cuts`` has one cut more than there are ``hops`` (by default
    ``hop-1``, ``hop-2``, …).
    """
    places = _cuts(cuts, "multi_hop")
    middle = tuple(hops) if hops is not None else tuple(f"hop-{i + 1}" for i in range(len(places) - 1))
    if len(middle) != len(places) - 1:
        raise GraphError(
            "multi_hop needs one hop between two cuts", got=f"{len(places)} cuts, {len(middle)} hops"
        )
    roles = ("client", *middle, "server")
    return _chain("multi_hop", model, places, roles, clients, example, loss, server, codecs)


def vertical(
    bottoms: Mapping[str, nn.Module],
    top: nn.Module,
    *,
    parties: Places | None = None,
    merge: str | nn.Module = "concat",
    example: Mapping[str, Tensor] | None = None,
    loss: LossFunction | None = None,
    server: str = "server",
    codecs: Choice = None,
) -> SplitGraph:
    """Parties with other columns of the same people; the server merges their activations and holds the labels.

    Args:
        bottoms: One module for each role, ``{"radiology": …, "laboratory": …}``; each reads field ``x``.
        top: What the server does with the merged activation.
        parties: The data's holdings; without, each role is one party of the same name.
        merge: ``concat``, ``sum``, ``mean`` or a module called with all activations in order.
        example: Rows of ``x`` by role, where ``parties`` carries no data.
        loss: Cross-entropy unless given.
        server: The server's role.
        codecs: As in :func:`vanilla`.
    """
    builder = _Builder("vertical", parties, example, codecs)
    segments = builder.bottoms(bottoms)
    segments.append(Segment("merge", server, merge_module(merge), tuple(bottoms)))
    segments.append(Segment("top", server, _copy(top, "top"), ("merge",)))
    roles = [builder.role(r, ("x",)) for r in bottoms] + [builder.role(server, ("y",))]
    return builder.graph(roles, segments, [_loss(server, "top", loss)])


def extended_vanilla(
    bottoms: Mapping[str, nn.Module],
    middle: nn.Module,
    top: nn.Module,
    *,
    parties: Places | None = None,
    merge: str | nn.Module = "concat",
    example: Mapping[str, Tensor] | None = None,
    loss: LossFunction | None = None,
    worker: str = "worker",
    server: str = "server",
    codecs: Choice = None,
) -> SplitGraph:
    """The merged activations are first worked on by another client, then by the server with the labels.

    Arguments as in :func:`vertical`; ``worker`` is the client that merges and runs ``middle``.
    """
    builder = _Builder("extended_vanilla", parties, example, codecs)
    segments = builder.bottoms(bottoms)
    segments.append(Segment("merge", worker, merge_module(merge), tuple(bottoms)))
    segments.append(Segment("middle", worker, _copy(middle, "middle"), ("merge",)))
    segments.append(Segment("top", server, _copy(top, "top"), ("middle",)))
    roles = [builder.role(r, ("x",)) for r in bottoms]
    roles += [builder.role(worker, ()), builder.role(server, ("y",))]
    return builder.graph(roles, segments, [_loss(server, "top", loss)])


def multi_task(
    bottoms: Mapping[str, nn.Module],
    tops: Mapping[str, nn.Module],
    *,
    parties: Places | None = None,
    merge: str | nn.Module = "concat",
    example: Mapping[str, Tensor] | None = None,
    losses: Mapping[str, LossFunction] | None = None,
    weights: Mapping[str, float] | None = None,
    codecs: Choice = None,
) -> SplitGraph:
    """The merged activations feed several servers, each with its own labels and loss.

    The gradient at a cut is the sum of the tasks' gradients, each with its weight.

    Args:
        bottoms: One module for each role with data.
        tops: One module for each server role; each server merges what it receives.
        parties: The data's holdings; without, each role is one party of the same name.
        merge: As in :func:`vertical`; a module with parameters is copied for each server.
        example: Rows of ``x`` by role, where ``parties`` carries no data.
        losses: Loss function by server; cross-entropy unless given.
        weights: Weight of each server's loss; 1 unless given.
        codecs: As in :func:`vanilla`.
    """
    for server in (*(losses or {}), *(weights or {})):
        if server not in tops:
            raise GraphError(f"no server of this graph is named {server!r}", todo=nearest(server, list(tops)))
    builder = _Builder("multi_task", parties, example, codecs)
    segments = builder.bottoms(bottoms)
    placed: list[Loss] = []
    for server, top in tops.items():
        segments.append(Segment(f"merge-{server}", server, merge_module(merge), tuple(bottoms)))
        segments.append(Segment(f"top-{server}", server, _copy(top, "top"), (f"merge-{server}",)))
        function, weight = (losses or {}).get(server), (weights or {}).get(server, 1.0)
        placed.append(_loss(server, f"top-{server}", function, weight=weight, name=f"loss-{server}"))
    roles = [builder.role(r, ("x",)) for r in bottoms] + [builder.role(s, ("y",)) for s in tops]
    return builder.graph(roles, segments, placed)


def cut_segments(pieces: Pieces, names: Sequence[str], roles: Sequence[str]) -> list[Segment]:
    """Return the pieces of a cut module as segments ``names`` on ``roles``.

    The model's first input reads the data field ``x`` if it is the only one; several inputs read the
    fields that are named as the model's ``forward`` names them.
    """
    source: dict[str, str] = (
        {pieces.inputs[0]: "x"} if len(pieces.inputs) == 1 else {name: name for name in pieces.inputs}
    )
    segments = []
    origins = pieces.parameter_names()
    for piece, name, role, origin in zip(pieces.pieces, names, roles, origins, strict=True):
        inputs = tuple(source[value] for value in piece.inputs)
        segments.append(Segment(name, role, piece.module, inputs, piece.outputs, origin))
        source.update({value: f"{name}:{value}" for value in piece.outputs})
    return segments


def _copy(module: nn.Module, what: str) -> nn.Module:
    return copy.deepcopy(_module(module, what))


_PIECE_NAMES = {2: ("head", "top"), 3: ("head", "body", "tail")}


def _chain(
    name: str,
    model: nn.Module,
    cuts: tuple[CutWord, ...],
    roles: tuple[str, ...],
    clients: Clients,
    example: Example,
    loss: LossFunction | None,
    server: str,
    codecs: Choice,
) -> SplitGraph:
    """Cut ``model`` into a chain of pieces on ``roles``; the last piece computes the loss."""
    roles = tuple(server if r == "server" else r for r in roles)
    model = _module(model, "model")
    builder = _Builder(name, _clients(clients, example, server), None, codecs)
    fields = builder.example_of("client", tuple(dict.fromkeys(roles)))
    rows = tuple(tensor for field, tensor in fields.items() if field != "y")
    pieces = cut_module(model, cuts, rows, roles=roles)
    names = _PIECE_NAMES.get(len(roles)) if name != "multi_hop" else None
    names = names or ("head", *(f"hop-{i}" for i in range(1, len(roles) - 1)), "top")
    last = roles[-1]
    # Without data the labels are where the loss is, except in vanilla, where clients send them along.
    labels = builder.holder("y") or ("client" if name == "vanilla" else last)
    inputs = tuple(field for field in fields if field != "y")
    placed = [
        builder.role(r, (*(inputs if r == "client" else ()), *(("y",) if r == labels else ())))
        for r in dict.fromkeys(roles)
    ]
    shares = [] if labels == last else [Share("y", labels, last)]
    losses = [_loss(last, f"{names[-1]}:{pieces.results[0]}", loss)]
    return builder.graph(placed, cut_segments(pieces, names, roles), losses, shares)


def _loss(
    role: str, prediction: str, function: LossFunction | None, *, weight: float = 1.0, name: str = "loss"
) -> Loss:
    return Loss(
        role=role, prediction=prediction, function=function or nn.CrossEntropyLoss(), weight=weight, name=name
    )


def _clients(clients: Clients, example: Example, server: str) -> Placement:
    if isinstance(clients, str):
        raise GraphError(
            "clients= is one word", got=repr(clients), todo=f"several names: clients=({clients!r},)"
        )
    if isinstance(clients, int) and not isinstance(clients, bool):
        names = tuple(f"client-{i}" for i in range(clients))
    elif isinstance(clients, Sequence) and all(isinstance(name, str) for name in clients):
        names = tuple(name for name in clients if isinstance(name, str))
    else:
        return as_placement(clients, "clients=")
    if not names:
        raise GraphError("a configuration needs at least one client", got=f"clients={clients!r}")
    if example is None:
        raise GraphError(
            "the shapes at the cut are not known",
            todo="give clients= the holdings of your data (cutlayer.data), or example= a few rows of x",
        )
    fields = {"x": example} if isinstance(example, Tensor) else dict(example)
    return Named({"client": names, server: (server,)}, {"client": fields})


def _module(model: object, what: str) -> nn.Module:
    """Return ``model`` if it is a module, else say what it is."""
    if isinstance(model, nn.Module):
        return model
    known = isinstance(model, type) or callable(model)
    name = getattr(model, "__name__", type(model).__name__)
    raise GraphError(
        f"{what} is not a torch.nn.Module",
        got=f"the {'class' if isinstance(model, type) else 'function'} {name}" if known else repr(model),
        todo=f"call it: {name}(...)" if known else "give a module, such as nn.Sequential(...)",
    )


def _cuts(cuts: object, name: str, count: int = 0) -> tuple[CutWord, ...]:
    """Return the places of configuration ``name``, ``count`` of them or (0) one or more."""
    several = isinstance(cuts, Sequence) and not isinstance(cuts, str)
    words = tuple(cuts) if isinstance(cuts, Sequence) and several else (cuts,)
    valid = all(isinstance(word, str | int | float) for word in words) and len(words) > 0
    if valid and several == (count != 1) and len(words) == (count or len(words)):
        return words
    wanted = {1: "one cut: a module's name or a share of the FLOPs", 2: "two cuts: cuts=('layer1', 'layer3')"}
    raise CutError(
        f"{name} takes {wanted.get(count, 'a tuple of cuts: cuts=(' + repr('layer1') + ',)')}",
        got=repr(cuts),
        todo="one cut: vanilla; two, the last part back at the client: u_shaped; more parties in a row: multi_hop",
    )


class _Builder:
    """Collects what a configuration says and what the data knows about its roles."""

    def __init__(
        self, name: str, people: Places | None, example: Mapping[str, Tensor] | None, codecs: Choice
    ) -> None:
        self.name, self.codecs = name, codecs
        placement = (
            people if people is None or isinstance(people, Named) else as_placement(people, "parties=")
        )
        self.placement = placement
        self.rows: dict[str, Mapping[str, Tensor]] = {}
        if placement is not None:
            self.rows = {role: placement.example(role) for role in placement.roles}
        elif example is not None:
            self.rows = {role: {"x": rows} for role, rows in example.items()}

    def holder(self, field: str) -> str | None:
        """Return the role whose data has ``field``."""
        return next((role for role, rows in self.rows.items() if field in rows), None)

    def example_of(self, role: str, used: Iterable[str]) -> Mapping[str, Tensor]:
        """Return the example rows of ``role``, which the data must know."""
        if role not in self.rows or not self.rows[role]:
            raise GraphError(
                f"the data has no role {role!r} with fields",
                got=", ".join(self.rows) or "no roles",
                expected=", ".join(used),
                todo="name the roles of the data as the configuration does",
            )
        return self.rows[role]

    def bottoms(self, bottoms: Mapping[str, nn.Module]) -> list[Segment]:
        """Return one segment for each role that holds data, named like the role."""
        if not bottoms:
            raise GraphError("no party has a bottom module", todo="give {role: module}")
        return [Segment(role, role, _copy(module, role), ("x",)) for role, module in bottoms.items()]

    def role(self, name: str, fields: tuple[str, ...]) -> Role:
        """Return role ``name``: its parties and fields as the data knows them, else ``fields``, unseen."""
        parties: tuple[str, ...] = (name,)
        if self.placement is not None and name in self.placement.roles:
            parties = self.placement.roles[name]
        known = self.rows.get(name, {})
        specs: dict[str, TensorSpec | None] = {field: TensorSpec.of(rows) for field, rows in known.items()}
        if self.placement is None or isinstance(self.placement, Named):
            specs = {field: specs.get(field) for field in (*specs, *fields)}
        return Role(name, parties, specs)

    def graph(
        self, roles: list[Role], segments: list[Segment], losses: list[Loss], shares: Iterable[Share] = ()
    ) -> SplitGraph:
        """Build the graph, with the example where the data gives one; a role named twice is one role."""
        merged: dict[str, Role] = {}
        for role in roles:
            known = merged.get(role.name, role)
            merged[role.name] = Role(role.name, role.parties, {**known.fields, **role.fields})
        return SplitGraph(
            roles=merged.values(),
            segments=segments,
            losses=losses,
            shares=shares,
            example=self.rows or None,
            name=self.name,
            codecs=self.codecs,
        )
