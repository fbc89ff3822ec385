"""Micro-batches: several batches on their way at once, and one optimizer step for all of them."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator

from ..graph.remembering import remembered
from ..graph.split_graph import SplitGraph
from .actions import Action, Op
from .steps import NO_COPIES, Roles, Step, Template, in_copy, placed_on_roles

__all__ = ["micro_step"]


def micro_step(
    graph: SplitGraph,
    turn: int,
    step: int,
    batches: tuple[str, ...],
    in_flight: int,
    *,
    copies: frozenset[str] = NO_COPIES,
    local: bool = False,
) -> Step:
    """Return one optimizer step over several batches, each with a step number of its own.

    Every party does what it can: the next batch's forward while it waits for the last one's gradient (Huang et al.
    2019, GPipe), a backward as soon as there is one to do (1F1B, Narayanan et al. 2019).

    Args:
        graph: What is trained.
        turn: Who takes part.
        step: The first batch's step number.
        batches: Names of the batches.
        in_flight: Batches that a party may have begun and not finished.
        copies: Roles whose copy with the turn's number is trained, in place of their one state.
        local: Send no gradient back where the sender has a loss of its own to train by.
    """
    template = _template(graph, turn, len(batches), in_flight, copies, local)
    return Step(template, step, "+".join(batches))


@remembered(1024)
def _template(
    graph: SplitGraph, turn: int, count: int, in_flight: int, copies: frozenset[str], local: bool
) -> Template:
    party = graph.turns[turn]
    actions = placed_on_roles(graph, "local" if local else "train")
    return tuple(
        Action(number, party[role], op, in_copy(what, op, turn, role in copies), party[peer] if peer else "")
        for number, (role, op, what, peer) in _Pipeline(actions, count, in_flight).order()
    )


class _Pipeline:
    """Finds an order in which roles do the same actions for several batches: in each tick, each role one that it can.

    No batch overtakes another. A role first begins as many as may be in flight, as far as it need not wait for
    anybody; else it does what belongs to the oldest batch.
    """

    def __init__(self, actions: Roles, count: int, in_flight: int) -> None:
        self._lists: dict[str, list[tuple[str, Op, str, str]]] = defaultdict(list)
        for action in actions:
            self._lists[action[0]].append(action)
        self._alone = {  # actions before a role first waits for another
            role: next((i for i, action in enumerate(own) if action[1] is Op.RECEIVE), len(own))
            for role, own in self._lists.items()
        }
        self._count, self._in_flight = count, in_flight
        self._done = {role: [0] * count for role in self._lists}
        self._arrived: dict[tuple[str, str], deque[tuple[int, str]]] = defaultdict(deque)

    def order(self) -> Iterator[tuple[int, tuple[str, Op, str, str]]]:
        """Yield the batch's number and the action."""
        left = sum(map(len, self._lists.values())) * self._count
        while left:
            sent = []
            for role in self._lists:
                number = self._next(role)
                if number is None:
                    continue
                _, op, what, peer = self._lists[role][self._done[role][number]]
                self._done[role][number] += 1
                left -= 1
                if op is Op.SEND:
                    sent.append((role, peer, number, what))
                elif op is Op.RECEIVE:
                    self._arrived[peer, role].popleft()
                elif op is Op.STEP and number + 1 < self._count:
                    op = Op.ACCUMULATE
                yield number, (role, op, what, peer)
            for sender, receiver, number, what in sent:
                self._arrived[sender, receiver].append((number, what))

    def _next(self, role: str) -> int | None:
        """Return for which batch the role does something now."""
        able = [number for number in range(self._count) if self._can(role, number)]
        begun = [number for number in able if self._done[role][number] < self._alone[role]]
        return next(iter(begun or able), None)

    def _can(self, role: str, number: int) -> bool:
        """Whether the role's next action for a batch can be done now."""
        actions, done = self._lists[role], self._done[role]
        if done[number] == len(actions) or (number and done[number] >= done[number - 1]):
            return False
        before = number - self._in_flight
        if not done[number] and before >= 0 and done[before] < len(actions):
            return False
        _, op, what, peer = actions[done[number]]
        arrived = self._arrived[peer, role]
        return op is not Op.RECEIVE or (bool(arrived) and arrived[0] == (number, what))
