"""One step in which many turns train at once: a server works on one batch made of all of theirs."""

from __future__ import annotations

from collections.abc import Iterator

from ..graph.remembering import remembered
from ..graph.split_graph import SplitGraph
from .actions import Action, Op
from .steps import NO_COPIES, Step, Template, in_copy, placed_on_roles

__all__ = ["joint_step"]


def joint_step(
    graph: SplitGraph,
    batches: tuple[tuple[int, str], ...],
    step: int,
    *,
    copies: frozenset[str] = NO_COPIES,
    local: bool = False,
) -> Step:
    """Return one step of several turns: each client's own forward and backward, the server's once for all.

    It takes as many step numbers as there are turns, one for each, and one more, for the work on all.

    Args:
        graph: What is trained.
        batches: Turn, and the name of its batch.
        step: The first turn's step number.
        copies: Roles whose copy with the turn's number is trained, in place of their one state.
        local: Send no gradient back where the sender has a loss of its own to train by.
    """
    turns = tuple(turn for turn, _ in batches)
    return Step(_template(graph, turns, copies, local), step, "+".join(name for _, name in batches))


@remembered(256)
def _template(graph: SplitGraph, turns: tuple[int, ...], copies: frozenset[str], local: bool) -> Template:
    one = {role.name: role.parties[0] for role in graph.roles.values() if len(role.parties) == 1}
    several = _Several(graph, turns, copies)
    actions: list[Action] = []
    for role, op, what, peer in placed_on_roles(graph, "local" if local else "train"):
        if role in one and (peer in one or (not peer and op is not Op.LOAD)):
            actions.append(Action(len(turns), one[role], op, what, one.get(peer, "")))
        elif op is Op.SEND and role in one:
            actions.append(Action(len(turns), one[role], Op.SPLIT, f"{what}*{len(turns)}"))
            actions += several.each(role, op, what, peer)
        elif role in one:
            actions += several.each(role, op, what, peer)
            actions.append(Action(len(turns), one[role], Op.JOIN, f"{what or 'load'}*{len(turns)}"))
        else:
            actions += several.each(role, op, what, peer)
    return tuple(actions)


class _Several:
    """What each of several turns does, at step numbers counted from the first's."""

    def __init__(self, graph: SplitGraph, turns: tuple[int, ...], copies: frozenset[str]) -> None:
        self._graph, self._turns, self._copies = graph, turns, copies

    def each(self, role: str, op: Op, what: str, peer: str) -> Iterator[Action]:
        for number, turn in enumerate(self._turns):
            party = self._graph.turns[turn]
            name = in_copy(what, op, turn, role in self._copies)
            yield Action(number, party[role], op, name, party[peer] if peer else "")
