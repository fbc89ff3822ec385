"""How copies of a role's state go out, come back and become one again: what schedules with rounds are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..errors import StudyError, nearest
from ..graph.split_graph import SplitGraph
from .actions import Action, Op, copy_of
from .calendar import Batch, Calendar
from .steps import Step, data_roles, evaluation_step

__all__ = [
    "advance",
    "averager_of",
    "client_roles",
    "hand_out",
    "lend",
    "measure",
    "own",
    "return_",
    "server_roles",
]


def client_roles(graph: SplitGraph) -> tuple[str, ...]:
    """Return the roles that have segments and many parties.

    Raises:
        StudyError: There is none, so there is nobody to work at the same time.
    """
    found = tuple(r.name for r in graph.roles.values() if len(r.parties) > 1 and graph.segments_of(r.name))
    if not found:
        raise StudyError(
            "this schedule is for several clients of one role, and no role of the graph has several parties",
            todo="use RoundRobin(), which goes with any graph",
        )
    return found


def server_roles(graph: SplitGraph) -> tuple[str, ...]:
    """Return the roles that have segments and one party, which serves all turns."""
    return tuple(r.name for r in graph.roles.values() if len(r.parties) == 1 and graph.segments_of(r.name))


def averager_of(graph: SplitGraph, named: str = "") -> str:
    """Return the party that averages clients' states: the one named, or a server, one without raw input if possible.

    Raises:
        StudyError: There is no such party, or it is one of the clients.
    """
    single = [role for role in graph.roles.values() if len(role.parties) == 1]
    known = [role.parties[0] for role in single]
    if named and named not in known:
        raise StudyError(f"{named!r} cannot average the clients' states", todo=nearest(named, known))
    if not known:
        raise StudyError(
            "there is no party to average the clients' states",
            todo="give one role a single party, e.g. a server",
        )
    inputs = data_roles(graph, labels=False)
    return named or min(single, key=lambda role: role.name in inputs).parties[0]


def lend(graph: SplitGraph, roles: Iterable[str], turn: int, step: int, averager: str) -> Iterator[Action]:
    """Yield how the turn's parties get copies of the state of ``roles``: of their own, or from the averager."""
    for role in roles:
        party, what = graph.turns[turn][role], copy_of(role, str(turn))
        if len(graph.roles[role].parties) == 1:
            yield Action(step, party, Op.FORK, what)
        else:
            yield Action(step, averager, Op.COPY, what, party)
            yield Action(step, party, Op.TAKE, what, averager)


def return_(
    graph: SplitGraph, roles: Iterable[str], turn: int, step: int, averager: str, weight: int
) -> Iterator[Action]:
    """Yield how the turn's copies come back and are added, with ``weight``, to the average that is under way."""
    for role in roles:
        party, what = graph.turns[turn][role], copy_of(role, str(turn))
        if len(graph.roles[role].parties) > 1:
            yield Action(step, party, Op.GIVE, what, averager)
            yield Action(step, averager, Op.TAKE, what, party)
            party = averager
        yield Action(step, party, Op.MERGE, f"{what}*{weight}")


def hand_out(graph: SplitGraph, roles: Iterable[str], step: int, averager: str) -> Iterator[Action]:
    """Yield how, at the end, every party of ``roles`` gets the average as its own."""
    for role in roles:
        for turn, parties in enumerate(graph.turns):
            yield from lend(graph, [role], turn, step, averager)
            yield Action(step, parties[role], Op.KEEP, copy_of(role, str(turn)))


def own(graph: SplitGraph, roles: Iterable[str]) -> Iterator[Action]:
    """Yield that each party of ``roles`` has a state of its own."""
    for role in roles:
        for party in graph.roles[role].parties:
            yield Action(0, party, Op.OWN, role)


def advance(graph: SplitGraph, private: Iterable[str], step: int, averager: str) -> Iterator[Action]:
    """Yield that learning rates move on by an epoch, where the states are: at servers, the averager or everybody."""
    private = set(private)
    for name in graph.order:
        role = graph.roles[graph.segments[name].role]
        if not any(p.requires_grad for p in graph.segments[name].module.parameters()):
            continue
        holders = role.parties if role.name in private or len(role.parties) == 1 else (averager,)
        for party in holders:
            yield Action(step, party, Op.ADVANCE, name)


def measure(
    graph: SplitGraph,
    calendar: Calendar,
    epoch: int,
    split: str,
    step: int,
    lent: frozenset[str],
    averager: str,
) -> Iterator[Action | Step]:
    """Yield how each turn that has rows of ``split`` measures: with copies of the states ``lent``, dropped after it."""
    scored: dict[str, None] = {}
    for turn, parties in enumerate(graph.turns):
        batches = calendar.batches(turn, split, epoch)
        if not batches:
            continue
        yield from lend(graph, sorted(lent), turn, step, averager)
        for number in range(batches):
            batch = Batch(split, turn, epoch, number)
            yield evaluation_step(graph, turn, step, batch, copies=lent)
        for role in sorted(lent):
            yield Action(step, parties[role], Op.DROP, copy_of(role, str(turn)))
        scored.update({parties[role]: None for role in graph.label_roles})
    for party in scored:
        yield Action(step, party, Op.EVALUATE, f"{split}/{epoch}")
