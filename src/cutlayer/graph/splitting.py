"""Divide the steps of a traced forward at given places: what crosses, and why a place will not do."""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from .measuring import Measured, Spec
from .tracing import Trace, is_free, knows_sizes_only

__all__ = ["Course", "Refusal", "Split", "leaves"]

_MOVES: set[Any] = {
    "chunk", "clone", "contiguous", "cpu", "cuda", "detach", "double", "expand", "expand_as", "flatten",
    "flip", "float", "half", "long", "movedim", "narrow", "permute", "repeat", "reshape", "select", "split",
    "squeeze", "swapaxes", "t", "to", "transpose", "type", "type_as", "unbind", "unflatten", "unsqueeze",
    "view", "view_as",
    operator.getitem, F.pad, torch.cat, torch.chunk, torch.clone, torch.concat, torch.flatten, torch.flip,
    torch.movedim, torch.narrow, torch.permute, torch.reshape, torch.select, torch.split, torch.squeeze,
    torch.stack, torch.swapaxes, torch.t, torch.transpose, torch.unbind, torch.unsqueeze,
    nn.ChannelShuffle, nn.Flatten, nn.Identity, nn.PixelShuffle, nn.PixelUnshuffle, nn.Unflatten,
}  # fmt: skip
"""Steps that move a value about without changing it: raw data stay raw."""


@dataclass(frozen=True, eq=False)
class Course:
    """One mode's forward with all that is known of it.

    Attributes:
        trace: Its steps.
        measured: What the steps make for the example.
        longer: The same for an example with one row more, where a step makes numbers; else ``measured``.
        model: The modules that the steps call.
    """

    trace: Trace
    measured: Measured
    longer: Measured
    model: nn.Module

    @cached_property
    def steps(self) -> tuple[fx.Node, ...]:
        """All steps in order."""
        return tuple(self.trace.graph.nodes)

    @cached_property
    def order(self) -> dict[fx.Node, int]:
        """The number of each step."""
        return {node: i for i, node in enumerate(self.steps)}

    @cached_property
    def raw(self) -> set[fx.Node]:
        """Model inputs, and values that are model inputs moved about."""
        raw = set[fx.Node]()
        for node in self.steps:
            if node.op == "placeholder" or (self.is_move(node) and raw.intersection(leaves(node.args[:1]))):
                raw.add(node)
        return raw

    def is_move(self, node: fx.Node) -> bool:
        """Whether ``node`` moves data about without changing them."""
        kind: Any = node.target
        return (type(self.model.get_submodule(kind)) if node.op == "call_module" else kind) in _MOVES

    @cached_property
    def state(self) -> dict[fx.Node, dict[int, str]]:
        """Parameters, and buffers that training changes, used by each step: identity -> name."""
        tensors: dict[str, Tensor] = dict(self.model.named_parameters(remove_duplicate=False))
        buffers = self.model.named_buffers(remove_duplicate=False)
        tensors.update((n, b) for n, b in buffers if n in self.measured.state)
        found: dict[fx.Node, dict[int, str]] = {}
        for node in self.steps:
            names = {str(n.target) for n in node.all_input_nodes if n.op == "get_attr"}
            inside = f"{node.target}." if node.op == "call_module" else None
            found[node] = {
                id(t): name
                for name, t in tensors.items()
                if name in names or (inside is not None and name.startswith(inside))
            }
        return found


@dataclass(frozen=True)
class Refusal:
    """Why a split will not do, and the cuts (by number) of which one would have to move."""

    reason: str
    cuts: tuple[int, ...]


class Split:
    """A course divided after the steps ``places``, in execution order.

    Attributes:
        piece: The piece of each working step.
        needs: For each piece the values that it takes from elsewhere: inputs, tensors and numbers.
        inputs: For each piece the tensors it receives: model inputs first, then in order of making.
        outputs: For each piece the tensors it makes that a later piece or the result uses, likewise.
        results: The tensors that are the model's output.
    """

    def __init__(self, course: Course, places: Sequence[fx.Node]) -> None:
        self.course, self.count = course, len(places) + 1
        steps, self.order = course.steps, course.order
        bounds = [self.order[place] for place in places]
        self.piece: dict[fx.Node, int] = {}
        for node in steps:
            if not is_free(node):
                sources = [self.piece.get(n, 0) for n in node.all_input_nodes if n.op != "get_attr"]
                here = bisect_left(bounds, self.order[node])
                self.piece[node] = max(sources) if sources and self._is_reading(node) else here
        self.results = tuple(leaves(steps[-1].args))
        self.needs: list[list[fx.Node]] = [[] for _ in range(self.count)]
        for node, piece in self.piece.items():
            for source in node.all_input_nodes:
                if self._comes_from_elsewhere(source, piece) and source not in self.needs[piece]:
                    self.needs[piece].append(source)
        pieces = range(self.count)
        self.inputs = [tuple(sorted(self._received(k), key=self.order.__getitem__)) for k in pieces]
        used = {node for values in self.inputs for node in values} | set(self.results)
        self.outputs = [
            tuple(node for node, k in self.piece.items() if k == piece and node in used) for piece in pieces
        ]

    def _is_reading(self, node: fx.Node) -> bool:
        """Whether ``node`` only reads a size, unpacks a tuple or checks; it belongs to what it reads."""
        plain = self.course.measured.plain
        if node.op == "call_module" or node in self.course.measured.changed:
            return False
        if node.target is operator.getitem and node.args[0] in plain:
            return True
        return node in plain and not has_tensors(plain[node])

    def _comes_from_elsewhere(self, source: fx.Node, piece: int) -> bool:
        return source.op == "placeholder" or (source.op != "get_attr" and self.piece[source] != piece)

    def _received(self, piece: int) -> Iterator[fx.Node]:
        return (node for node in self.needs[piece] if node in self.course.measured.specs)

    def names(self, nodes: Sequence[fx.Node]) -> tuple[str, ...]:
        """Return the names of values."""
        return tuple(self.course.trace.names[node] for node in nodes)

    def number(self, piece: int, node: fx.Node) -> Any:
        """Return how ``piece`` can know ``node``, a number or several, without being told; None if it cannot.

        Returns:
            A :class:`Dimension` of a tensor that the piece receives, a :class:`DeviceOf` one, the number
            itself if it is the same for any number of rows, a tuple of these for a size, or what is
            :class:`Computed` from such.
        """
        if not knows_sizes_only(node, self.course.measured.specs.__contains__):
            return None
        here, there = (m.plain[node] for m in (self.course.measured, self.course.longer))
        asked = node.args[1] if len(node.args) == 2 else 0
        known = self._number(piece, here, there, asked if isinstance(asked, int) else 0)
        if known is None and node.op == "call_function" and node.all_input_nodes:
            parts = {
                n: self.number(piece, n) for n in node.all_input_nodes if n in self.course.measured.plain
            }
            if len(parts) == len(node.all_input_nodes) and None not in parts.values():
                return Computed(node, parts)
        return known

    def _number(self, piece: int, here: Any, there: Any, asked: int) -> Any:
        if isinstance(here, tuple):
            both = zip(here, there, strict=True)
            parts = tuple(self._number(piece, a, b, i) for i, (a, b) in enumerate(both))
            return None if any(part is None for part in parts) else parts
        if isinstance(here, torch.device):
            return DeviceOf(self.inputs[piece][0]) if self.inputs[piece] else None
        if not isinstance(here, int | float | str | torch.dtype):
            return None
        if isinstance(here, int) and not isinstance(here, bool):
            for tensor in self.inputs[piece]:
                now, then = (m.specs[tensor].shape for m in (self.course.measured, self.course.longer))
                fitting = [d for d in range(len(now)) if (now[d], then[d]) == (here, there)]
                if fitting:
                    same = asked % len(now)
                    return Dimension(tensor, same if same in fitting else fitting[0])
        return here if here == there else None

    def changed_in(self, piece: int) -> set[fx.Node]:
        """Return the received values that ``piece`` changes in place."""
        changed = self.course.measured.changed
        values = {v for step, k in self.piece.items() if k == piece for v in changed.get(step, ())}
        return values.intersection(self.inputs[piece])

    def state(self, piece: int) -> dict[int, str]:
        """Return parameters, and buffers that training changes, used by ``piece``: identity -> name."""
        found: dict[int, str] = {}
        for step, k in self.piece.items():
            if k == piece:
                found.update(self.course.state[step])
        return found

    def refusal(self, roles: Sequence[str]) -> Refusal | None:
        """Return why this split will not do with ``roles`` (one per piece), or None."""
        checks = (
            self._empty(),
            self._raw(roles),
            self._tied(),
            self._unknown_numbers(),
            self._changed_late(),
        )
        return next((refusal for check in checks for refusal in check), None)

    def _empty(self) -> Iterator[Refusal]:
        for piece in range(self.count):
            cuts = tuple(c for c in (piece - 1, piece) if 0 <= c < self.count - 1)
            steps = [step for step, k in self.piece.items() if k == piece and not self._is_reading(step)]
            if not steps or (piece and all(map(self.course.is_move, steps))):
                first, last = piece == 0, piece == self.count - 1
                where = "before it" if first else "after it" if last else "between the two cuts"
                yield Refusal(f"nothing is computed {where}", cuts)
            elif not self.outputs[piece]:
                yield Refusal(f"piece {piece} makes nothing that is used later", cuts)
            elif not self.inputs[piece]:
                yield Refusal(f"nothing crosses to piece {piece}", cuts)

    def _raw(self, roles: Sequence[str]) -> Iterator[Refusal]:
        for piece in range(1, self.count):
            for value in self.inputs[piece]:
                if value in self.course.raw and roles[piece] != roles[0]:
                    name, made = self.names([value])[0], self.piece.get(value, 0)
                    what = f"the raw input {name!r}" if is_free(value) else f"raw input data, as {name!r},"
                    yield Refusal(f"{what} would cross to {roles[piece]}", tuple(range(made, piece)))

    def _tied(self) -> Iterator[Refusal]:
        owner: dict[int, tuple[int, str]] = {}
        for piece in range(self.count):
            for identity, name in self.state(piece).items():
                if identity in owner:
                    first, other = owner[identity]
                    what = repr(name) if name == other else f"{other!r} and {name!r}, one and the same,"
                    yield Refusal(
                        f"the weights {what} would be used on both sides (pieces {first} and {piece})",
                        tuple(range(first, piece)),
                    )
                owner.setdefault(identity, (piece, name))

    def _unknown_numbers(self) -> Iterator[Refusal]:
        for piece in range(self.count):
            for node in self.needs[piece]:
                if node in self.course.measured.plain and self.number(piece, node) is None:
                    made = self.piece.get(node, 0)
                    name = self.names([node])[0]
                    yield Refusal(f"{name!r}, which is no tensor, would cross", tuple(range(made, piece)))
        for node in self.results:
            if node not in self.course.measured.specs:
                yield Refusal("the model returns something other than tensors", tuple(range(self.count - 1)))

    def _changed_late(self) -> Iterator[Refusal]:
        """Refuse values that cross, are changed in place there, and are then used again elsewhere."""
        for step, values in self.course.measured.changed.items():
            piece, now = self.piece[step], self.order[step]
            received = [
                v
                for v in values
                if v.op != "get_attr"
                and self.piece.get(v, -1) < piece
                and any(self.order[user] >= now for user in v.users)
            ]
            for value in received:
                elsewhere = any(
                    self.order[u] > now and self.piece.get(u, self.count) != piece for u in value.users
                )
                made = self.piece.get(value, 0)
                if made < piece and (elsewhere or len(received) > 1):
                    reason = f"{self.names([value])[0]!r} would cross, be changed in place and be used again"
                    yield Refusal(reason, tuple(range(made, piece)))


@dataclass(frozen=True)
class Dimension:
    """A number that is the size of a tensor's dimension."""

    tensor: fx.Node
    dimension: int


@dataclass(frozen=True)
class Computed:
    """A number that a step computes from others."""

    step: fx.Node
    parts: dict[fx.Node, Any]


@dataclass(frozen=True)
class DeviceOf:
    """The device on which a tensor is."""

    tensor: fx.Node


def has_tensors(value: Any) -> bool:
    """Whether a nest of tuples, as measured, holds a tensor."""
    return isinstance(value, Spec) or (isinstance(value, tuple) and any(map(has_tensors, value)))


def leaves(value: Any) -> Iterator[fx.Node]:
    """Yield the values in a nest of tuples, lists and dicts."""
    if isinstance(value, fx.Node):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from leaves(one)
    elif isinstance(value, tuple | list):
        for one in value:
            yield from leaves(one)
