"""SplitFed: clients work at the same time, and their states are averaged after each round (Thapa et al. 2022)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..errors import StudyError, nearest
from ..graph.reconstruction import roles_at_home
from ..graph.split_graph import SplitGraph
from .actions import Action, Op
from .attendance import Attendance, Share
from .calendar import Batch, Calendar
from .copies import advance, averager_of, client_roles, hand_out, lend, measure, own, return_, server_roles
from .steps import Step

__all__ = ["SplitFed"]


class _Lane(NamedTuple):
    """A turn at work in a round: the groups of batches that it has still to do, and its copies with their weights."""

    turn: int
    groups: deque[tuple[Batch, ...]]
    weights: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class SplitFed(Attendance):
    """Clients train side by side, each with a copy of the clients' part; after each round copies are averaged.

    An average holds weights and buffers; optimizers'
    memory begins anew in each round where there are copies. With one client it is plain split learning.

    Attributes:
        version: 1: clients' and servers' copies are averaged. 2: the clients' are; the server's one state is trained
            by all clients, in a random order. 3 (Gawali et al. 2021): the servers' are, and each client keeps its own.
        weights: What a copy counts in an average: ``"rows"``, as many as it was trained on, or ``"equal"``.
        personal: Clients keep their own, never averaged, in any version.
        at_once: Clients at work at the same time, whose batches take turns at the server; a server holds at most
            as many copies. The next client begins when one is done.
        averager: The party that gets the clients' copies and averages them, which can look at each; a server
            unless named.
    """

    version: Literal[1, 2, 3] = 1
    weights: Literal["rows", "equal"] = "rows"
    personal: bool = False
    at_once: int = 16
    averager: str = ""
    name: str = "splitfed"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version not in (1, 2, 3):
            raise StudyError("SplitFed has the versions 1, 2 and 3", got=repr(self.version))
        if self.weights not in ("rows", "equal"):
            raise StudyError(f"weights={self.weights!r}", todo=nearest(self.weights, ["rows", "equal"]))
        if self.at_once < 1:
            raise StudyError("at least one client works at a time", got=f"at_once={self.at_once}")

    def describe(self) -> str:
        """Return the settings in one line."""
        who = "each client keeps its own state" if self._private else "the clients' states are averaged"
        server = "the server has one state" if self.version == 2 else "the server's copies are averaged"
        words = [f"SplitFed v{self.version}", f"{who} and {server}", self.attendance()]
        words += [f"{self.at_once} at once"]
        words += ["copies count alike"] if self.weights == "equal" else []
        words += [f"averaged by {self.averager}"] if self.averager else []
        return ", ".join([*words, *self.options()])

    def averages(self, graph: SplitGraph) -> str:
        """Return the party that sees and averages the clients' states; empty if each client keeps its own."""
        client_roles(graph)
        return "" if self._private else averager_of(graph, self.averager)

    def epoch(self, graph: SplitGraph, calendar: Calendar, epoch: int) -> Iterator[Action | Step]:
        """Yield the rounds of ``epoch``; then learning rates move on."""
        private, copied = self._roles(graph)
        averager = self.averages(graph)
        if epoch == 0:
            yield from own(graph, sorted(private))
        step = calendar.first_step(epoch)
        for number in range(self.rounds(calendar, epoch)):
            waiting = deque(self.shares(graph, calendar, epoch, number))
            working: list[_Lane] = []
            merged: set[str] = set()
            while waiting or working:
                while waiting and len(working) < self.at_once:
                    lane = self._lane(graph, calendar, epoch, waiting.popleft(), copied)
                    yield from lend(graph, lane.weights, lane.turn, step, averager)
                    working.append(lane)
                for lane in working:
                    batches = lane.groups.popleft()
                    yield self.step_on(graph, lane.turn, step, batches, frozenset(lane.weights))
                    step += len(batches)
                # after the steps of all, so that no client's hand-over keeps the server from another's batch
                for lane in working:
                    if not lane.groups:
                        merged.update(lane.weights)
                        for role, weight in lane.weights.items():
                            yield from return_(graph, [role], lane.turn, step, averager, weight)
                working = [lane for lane in working if lane.groups]
            for role in copied:
                if role in merged:
                    party = graph.roles[role].parties[0] if role in server_roles(graph) else averager
                    yield Action(step, party, Op.AVERAGE, role)
        yield from advance(graph, private, step, averager)

    def evaluation(
        self, graph: SplitGraph, calendar: Calendar, epoch: int, split: str
    ) -> Iterator[Action | Step]:
        """Yield how every client that has rows of ``split`` measures, with the average or its own state."""
        private, _ = self._roles(graph)
        lent = frozenset(client_roles(graph)) - private
        step = calendar.first_step(epoch + 1)
        yield from measure(graph, calendar, epoch, split, step, lent, self.averages(graph))

    def ending(self, graph: SplitGraph, calendar: Calendar, epochs: int) -> Iterator[Action]:
        """Yield how every client gets the last average, after ``epochs`` epochs."""
        private, _ = self._roles(graph)
        shared = [role for role in client_roles(graph) if role not in private]
        yield from hand_out(graph, shared, calendar.first_step(epochs), self.averages(graph))

    def _lane(
        self, graph: SplitGraph, calendar: Calendar, epoch: int, share: Share, copied: Iterable[str]
    ) -> _Lane:
        """Return what a turn does in a round, and what its copies weigh: the rows that each is trained on."""
        groups = deque(self.groups(calendar, share.turn, epoch, share.first, share.end))
        batches = [batch for group in groups for batch in group]
        weights = {}
        for role in copied:
            alone = role in roles_at_home(graph)
            rows = sum(calendar.size(batch) for batch in batches if alone or batch.split == "train")
            if rows:
                weights[role] = rows if self.weights == "rows" else 1
        return _Lane(share.turn, groups, weights)

    @property
    def _private(self) -> bool:
        return self.personal or self.version == 3

    def _roles(self, graph: SplitGraph) -> tuple[frozenset[str], tuple[str, ...]]:
        """Return the roles whose parties keep their own state, and those of which copies are trained."""
        clients, servers = client_roles(graph), server_roles(graph)
        private = frozenset(clients if self._private else ())
        copied = (*(() if self._private else clients), *(() if self.version == 2 else servers))
        return private, copied
