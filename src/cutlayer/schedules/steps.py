"""The actions of one training step and one evaluation step of a graph, from which schedules are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from ..graph.parts import Cut
from ..graph.split_graph import SplitGraph, Turn
from .actions import Action, Op

__all__ = ["data_roles", "evaluation_step", "hand_over", "training_step"]

Template = tuple[tuple[str, Op, str, str], ...]
"""Actions with roles in place of parties: (role, op, what, peer role)."""


def training_step(graph: SplitGraph, turn: Turn, step: int, batch: str) -> Iterator[Action]:
    """Yield one step: load, forward over the cuts, loss, backward over the cuts, optimizer steps.

    Gradients leave before the sender's own optimizer step, so the receiver need not wait for it.
    """
    return _fill(_training_template(graph), turn, step, batch)


def evaluation_step(graph: SplitGraph, turn: Turn, step: int, batch: str) -> Iterator[Action]:
    """Yield one evaluation step: load, forward without gradients, predictions and labels noted."""
    return _fill(_evaluation_template(graph, with_labels=True), turn, step, batch)


def prediction_step(graph: SplitGraph, turn: Turn, step: int, batch: str) -> Iterator[Action]:
    """Yield one step of joint inference: as in evaluation, but no labels are needed anywhere."""
    return _fill(_evaluation_template(graph, with_labels=False), turn, step, batch)


def hand_over(role: str, giver: str, taker: str, step: int, via: str = "") -> Iterator[Action]:
    """Yield the hand-over of a role's segment state, directly or sealed through the party ``via``."""
    yield Action(step, giver, Op.GIVE, role, taker, via)
    if via:
        yield Action(step, via, Op.RELAY, role, giver, taker)
    yield Action(step, taker, Op.TAKE, role, giver, via)


def data_roles(graph: SplitGraph, *, labels: bool = True) -> tuple[str, ...]:
    """Return the roles that read their own data in a step; without ``labels``, only those that feed segments."""
    fields = {graph.segments[n].role for n in graph.order for r in graph.wiring[n] if isinstance(r, str)}
    if labels:
        fields |= {s.source for s in graph.shares}
        fields |= {loss.role for loss in graph.losses.values() if loss.target in graph.roles[loss.role].fields}
    return tuple(role for role in graph.roles if role in fields)


def _fill(template: Template, turn: Turn, step: int, batch: str) -> Iterator[Action]:
    for role, op, what, peer in template:
        yield Action(step, turn[role], op, what or batch, turn[peer] if peer else "")


@lru_cache(maxsize=64)
def _training_template(graph: SplitGraph) -> Template:
    actions = [(role, Op.LOAD, "", "") for role in data_roles(graph)]
    actions += _forward(graph, Op.FORWARD, labels=True)
    actions += [(loss.role, Op.LOSS, loss.name, "") for loss in graph.losses.values()]
    for name in reversed(graph.order):
        role = graph.segments[name].role
        if name not in graph.trainable:
            continue
        returning = [cut for cut in _cuts_of(graph, name) if cut.has_gradient]
        actions += [(role, Op.RECEIVE, cut.backward_name, cut.target) for cut in returning]
        actions.append((role, Op.BACKWARD, name, ""))
        actions += _returned(graph, name)
        if any(p.requires_grad for p in graph.segments[name].module.parameters()):
            actions.append((role, Op.STEP, name, ""))
    return tuple(actions)


@lru_cache(maxsize=64)
def _evaluation_template(graph: SplitGraph, with_labels: bool) -> Template:
    actions = [(role, Op.LOAD, "", "") for role in data_roles(graph, labels=with_labels)]
    actions += _forward(graph, Op.INFER, labels=with_labels)
    actions += [(loss.role, Op.SCORE, loss.name, "") for loss in graph.losses.values()]
    return tuple(actions)


def _forward(graph: SplitGraph, run: Op, *, labels: bool) -> list[tuple[str, Op, str, str]]:
    """Run the segments in order; each cut's tensors are sent when made and received just before use."""
    actions: list[tuple[str, Op, str, str]] = []
    waiting: dict[str, list[Cut]] = {}
    for cut in graph.cuts:
        if cut.kind == "label" and labels:
            actions.append((cut.source, Op.SEND, cut.name, cut.target))
            waiting.setdefault(cut.target, []).append(cut)
    for name in graph.order:
        role = graph.segments[name].role
        needed = {ref.segment for ref in graph.wiring[name] if not isinstance(ref, str)}
        due = {cut.source for cut in waiting.get(role, []) if cut.producer in needed}
        for cut in [c for c in waiting.get(role, []) if c.source in due]:  # frames of one sender come in order
            actions.append((role, Op.RECEIVE, cut.name, cut.source))
            waiting[role].remove(cut)
        actions.append((role, run, name, ""))
        for cut in _cuts_of(graph, name):
            actions.append((role, Op.SEND, cut.name, cut.target))
            waiting.setdefault(cut.target, []).append(cut)
    for role, cuts in waiting.items():
        actions += [(role, Op.RECEIVE, cut.name, cut.source) for cut in cuts]
    return actions


def _cuts_of(graph: SplitGraph, segment: str) -> list[Cut]:
    return [cut for cut in graph.cuts if cut.kind == "activation" and cut.producer == segment]


def _returned(graph: SplitGraph, name: str) -> list[tuple[str, Op, str, str]]:
    """The gradients that can leave once ``name`` is done: its role's last backward that feeds that cut."""
    role = graph.segments[name].role
    actions = []
    for cut in graph.cuts_into(role):
        if not cut.has_gradient:
            continue
        readers = [c for c in graph.order if graph.segments[c].role == role and _reads(graph, c, cut)]
        if readers and readers[0] == name:  # backward runs in reverse, so the first reader is the last to finish
            actions.append((role, Op.SEND, cut.backward_name, cut.source))
    return actions


def _reads(graph: SplitGraph, segment: str, cut: Cut) -> bool:
    return any(not isinstance(r, str) and r.segment == cut.producer for r in graph.wiring[segment])


def parties_of(turn: Turn | Mapping[str, str]) -> tuple[str, ...]:
    """Return the parties of a turn, each once."""
    return tuple(dict.fromkeys(turn.values()))
