"""Parallel split learning: the clients' activations make one batch, and the server trains on it once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..errors import StudyError, nearest
from ..graph.split_graph import SplitGraph
from .actions import Action, Op
from .attendance import Attendance, Share
from .calendar import Batch, Calendar
from .copies import advance, averager_of, client_roles, hand_out, lend, measure, own, return_
from .joint import joint_step
from .steps import Step

__all__ = ["Parallel"]


@dataclass(frozen=True, kw_only=True)
class Parallel(Attendance):
    """All clients take part in each step; the server runs forward and backward once, over all their rows.

    The loss is the mean over all rows of the step, so a client's part of its gradient is the smaller the more clients
    there are: choose its learning rate accordingly.

    Attributes:
        heads: ``"own"``: each client keeps its own part of the network, as in parallel split learning (Jeon & Kim
            2020). ``"averaged"``: clients' parts are averaged after each round, weighted by rows.
        batches: ``"fixed"``: each client has batches of the study's batch size, until its rows are used up.
            ``"global"``: each step has the study's batch size over all clients, drawn from all rows without
            replacement, so that a client's part of it varies (GPSL, arXiv 2407.15738).
        averager: The party that averages clients' copies; a server unless named.
    """

    heads: Literal["own", "averaged"] = "own"
    batches: Literal["fixed", "global"] = "fixed"
    averager: str = ""
    name: str = "parallel"
    lacks: ClassVar[Mapping[str, tuple[str, str]]] = {
        "accumulate": ("a step is of all clients' batches already", "choose a larger batch_size"),
        "in_flight": ("all clients' batches are on their way at once already", "leave in_flight out"),
        "unlabelled": (
            "between joint steps a client has none of its own",
            "use SplitFed(unlabelled=True), with version=3 where each client is to keep its own part",
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for word, known in ((self.heads, ["own", "averaged"]), (self.batches, ["fixed", "global"])):
            if word not in known:
                raise StudyError(f"Parallel knows no {word!r}", todo=nearest(word, known))

    @property
    def pooled(self) -> bool:
        """Whether batches are drawn over all clients' rows."""
        return self.batches == "global"

    def describe(self) -> str:
        """Return the settings in one line."""
        heads = "each client keeps its own state" if self.heads == "own" else "clients' states are averaged"
        rows = "the batch of all clients is fixed" if self.pooled else "each client's batch is fixed"
        words = ["parallel, one server batch of all clients' rows", heads, rows, self.attendance()]
        words += [f"averaged by {self.averager}"] if self.averager else []
        return ", ".join([*words, *self.options()])

    def averages(self, graph: SplitGraph) -> str:
        """Return the party that sees and averages the clients' states; empty if each client keeps its own."""
        client_roles(graph)
        return averager_of(graph, self.averager) if self.heads == "averaged" else ""

    def most_rows(self, graph: SplitGraph, batch_size: int) -> int:
        """Return how many rows a frame between two parties that serve all turns may have."""
        served = {role.name for role in graph.roles.values() if len(role.parties) == 1}
        joined = any(cut.source in served and cut.target in served for cut in graph.cuts)
        return batch_size * len(graph.turns) if joined and not self.pooled else batch_size

    def steps(self, calendar: Calendar, epoch: int) -> int:
        """Return how many step numbers ``epoch`` takes at most: one for each batch, one for each joined one."""
        return calendar.steps(epoch) + max(
            (calendar.batches(turn, "train", epoch) for turn in range(len(calendar.rows))), default=0
        )

    def epoch(self, graph: SplitGraph, calendar: Calendar, epoch: int) -> Iterator[Action | Step]:
        """Yield the joint steps of ``epoch``; then learning rates move on."""
        private, averager = self._private(graph), self.averages(graph)
        shared = [role for role in client_roles(graph) if role not in private]
        if epoch == 0:
            yield from own(graph, sorted(private))
        step = self._first(calendar, epoch)
        for number in range(self.rounds(calendar, epoch)):
            shares = sorted(
                share
                for share in self.shares(graph, calendar, epoch, number)
                if calendar.rows_of(share.turn, epoch, share.first, share.end)
            )
            for share in shares:
                yield from lend(graph, shared, share.turn, step, averager)
            for index in sorted({n for share in shares for n in range(share.first, share.end)}):
                batches = tuple(self._batches(calendar, epoch, shares, index))
                if batches:
                    made = joint_step(graph, batches, step, copies=frozenset(shared), local=self.local)
                    yield self.bounded(graph, made)
                    step += len(batches) + 1
            for share in shares:
                rows = calendar.rows_of(share.turn, epoch, share.first, share.end)
                yield from return_(graph, shared, share.turn, step, averager, rows)
            for role in shared if shares else ():
                yield Action(step, averager, Op.AVERAGE, role)
        yield from advance(graph, private, step, averager)

    def evaluation(
        self, graph: SplitGraph, calendar: Calendar, epoch: int, split: str
    ) -> Iterator[Action | Step]:
        """Yield how every client that has rows of ``split`` measures, with the average or its own state."""
        lent = frozenset(client_roles(graph)) - self._private(graph)
        step = self._first(calendar, epoch + 1)
        yield from measure(graph, calendar, epoch, split, step, lent, self.averages(graph))

    def ending(self, graph: SplitGraph, calendar: Calendar, epochs: int) -> Iterator[Action]:
        """Yield how every client gets the last average, after ``epochs`` epochs."""
        shared = [role for role in client_roles(graph) if role not in self._private(graph)]
        yield from hand_out(graph, shared, self._first(calendar, epochs), self.averages(graph))

    def _private(self, graph: SplitGraph) -> frozenset[str]:
        return frozenset(client_roles(graph) if self.heads == "own" else ())

    def _first(self, calendar: Calendar, epoch: int) -> int:
        if not calendar.leaves:
            return epoch * self.steps(calendar, 0)
        return sum(self.steps(calendar, earlier) for earlier in range(epoch))

    def _batches(
        self, calendar: Calendar, epoch: int, shares: list[Share], index: int
    ) -> Iterator[tuple[int, str]]:
        for share in shares:
            batch = Batch("train", share.turn, epoch, index)
            if share.first <= index < share.end and calendar.rows_of(share.turn, epoch, index, index + 1):
                yield share.turn, str(batch)
