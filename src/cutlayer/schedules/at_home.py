"""Steps on rows without labels: encoder and decoder learn at home, nothing crosses (Gupta & Raskar, algorithm 3)."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph.reconstruction import roles_at_home, taught_at_home
from ..graph.remembering import remembered
from ..graph.split_graph import SplitGraph
from .actions import Action, Op
from .calendar import UNLABELLED, Batch, Calendar
from .steps import NO_COPIES, Roles, Step, Template, in_copy, placed_on_roles

__all__ = ["semi_supervised_step", "unit", "units"]


def units(calendar: Calendar, turn: int, epoch: int) -> int:
    """Return into how many units an epoch of a turn falls: one a batch with labels, or one a batch if none has any."""
    split = "train" if calendar.batches(turn, "train") else UNLABELLED
    return calendar.batches(turn, split, epoch)


def unit(calendar: Calendar, turn: int, epoch: int, number: int) -> list[Batch]:
    """Return the batches of a unit: one with labels, and its share of those without, which are spread evenly."""
    labelled, others = (calendar.batches(turn, split) for split in ("train", UNLABELLED))
    if not labelled:
        return [Batch(UNLABELLED, turn, epoch, number)]
    share = range(others * number // labelled, others * (number + 1) // labelled)
    return [Batch("train", turn, epoch, number), *(Batch(UNLABELLED, turn, epoch, n) for n in share)]


def semi_supervised_step(
    graph: SplitGraph,
    turn: int,
    step: int,
    batches: Sequence[Batch],
    *,
    copies: frozenset[str] = NO_COPIES,
    local: bool = False,
) -> Step:
    """Return a training step for each batch, with labels or without, each with a step number of its own.

    Args:
        graph: What is trained; a role of it has a decoder.
        turn: Who takes part.
        step: The first batch's step number.
        batches: The rows.
        copies: Roles whose copy with the turn's number is trained, in place of their one state.
        local: Send no gradient back where the sender has a loss of its own to train by.
    """
    kinds = tuple("home" if batch.split == UNLABELLED else "local" if local else "train" for batch in batches)
    return Step(_template(graph, turn, kinds, copies), step, "+".join(map(str, batches)))


@remembered(4096)
def _template(graph: SplitGraph, turn: int, kinds: tuple[str, ...], copies: frozenset[str]) -> Template:
    party = graph.turns[turn]
    return tuple(
        Action(number, party[role], op, in_copy(what, op, turn, role in copies), party[peer] if peer else "")
        for number, kind in enumerate(kinds)
        for role, op, what, peer in (_at_home(graph) if kind == "home" else placed_on_roles(graph, kind))
    )


@remembered(64)
def _at_home(graph: SplitGraph) -> Roles:
    """Return what roles with a decoder do with rows that have no label: no action has a peer."""
    taught = [name for name in graph.order if name in taught_at_home(graph)]
    place = {name: graph.segments[name].role for name in taught}
    actions = [(role, Op.LOAD, "", "") for role in roles_at_home(graph)]
    actions += [(place[name], Op.FORWARD, name, "") for name in taught]
    actions += [(loss.role, Op.LOSS, loss.name, "") for loss in graph.losses.values() if loss.reconstructs]
    for name in reversed(taught):
        if name in graph.trainable:
            actions.append((place[name], Op.BACKWARD, name, ""))
        if any(p.requires_grad for p in graph.segments[name].module.parameters()):
            actions.append((place[name], Op.STEP, name, ""))
    return tuple(actions)
