"""Where in the program all parties can go on from, found from what each of them holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..errors import CutlayerError, StudyError
from ..graph.split_graph import SplitGraph
from ..runtime.course import Course
from ..runtime.positions import START, Position
from ..schedules.calendar import Leave
from .messages import Offer
from .remembered import Roster
from .roster import turn_rows

__all__ = ["Agreement"]


class Agreement:
    """Knows the positions of which the parties hold snapshots, and who takes part.

    Args:
        graph: Who takes part in which turn.
        course: Makes the course of the training from the turns' rows and leaves.
        roster: What is remembered of the study; changed here.
        skips: Whether turns of a missing party are left out.

    Attributes:
        positions: By party, the positions of which it holds snapshots.
        rows: The turns' rows, once agreed on.
        course: The course of the training, once agreed on.
    """

    def __init__(
        self,
        graph: SplitGraph,
        course: Callable[[list[dict[str, int]], Sequence[Leave]], Course],
        roster: Roster,
        *,
        skips: bool,
    ) -> None:
        self._graph, self._course_of, self._roster, self._skips = graph, course, roster, skips
        self.positions: dict[str, tuple[Position, ...]] = {party.name: () for party in graph.parties}
        self.rows: list[dict[str, int]] = []
        self.course: Course | None = None
        self._joined: dict[str, Position] = {}
        self._commons = [START]
        self._until: dict[tuple[str, Position], tuple[Course, Position]] = {}

    def reach(self) -> Position:
        """Work out, from what everyone brings and holds, the course and where in it all go on.

        Raises:
            CutlayerError: The parties' rows do not fit together, or there is no such place any more.
        """
        if not self._roster.generation and any(self.positions[name] for name in self.required):
            holders = [name for name in self.required if self.positions[name]]
            raise StudyError(
                "the parties have snapshots of this study, and the host remembers nothing of it",
                got=f"snapshots at {', '.join(holders)}",
                todo="give the host its folder back; to begin the study anew, give all parties new folders",
            )
        offers = {party.name: self._roster.offers.get(party.name, Offer()) for party in self._graph.parties}
        never = [name for name in self._roster.absent if name not in self._roster.offers]
        rows = turn_rows(self._graph, offers, never)
        position, leaves = self._common(self._course_of(rows, self._roster.leaves))
        self.rows, self._roster.leaves = rows, leaves
        self.course = self._course_of(rows, leaves)
        self._commons = [p for p in self._commons if p < position] + [position]
        return position

    def _common(self, before: Course) -> tuple[Position, list[Leave]]:
        """Return the last position of ``before`` that everybody has, and who is on leave from there on."""
        known = {leave.turn for leave in self._roster.leaves if leave.until == Leave(0, 0, 0).until}
        gone = [i for i, turn in enumerate(self._graph.turns) if self.away(turn) and i not in known]
        required = self.required
        found = {START, *(p for name in required for p in self._starts(name))}
        for position in sorted(found, reverse=True):
            if position == START and self._roster.kept:
                break
            if not all(self._has(name, position, before) for name in required):
                continue
            if gone and not before.holders(position).isdisjoint(self._roster.absent):
                continue
            new = [Leave(turn, position.epoch, before.done(position, turn)) for turn in gone]
            return position, [*self._roster.leaves, *new]
        lacking = [name for name in required if not self.positions[name]]
        raise StudyError(
            "the parties have no snapshot in common any more",
            got=f"none at all at {', '.join(lacking)}"
            if lacking
            else "some at each, but none of the same place",
            todo="look for a party whose folder was deleted or damaged, and give it back; "
            "to begin the study anew, give all parties new folders",
        )

    def _starts(self, party: str) -> set[Position]:
        """Return the positions from which the state of ``party`` can be had."""
        return {self._joined.get(party, START), *self.positions[party]}

    def _has(self, party: str, position: Position, course: Course) -> bool:
        """Return whether what ``party`` can go back to is what it had at ``position``."""
        start = max(start for start in {START, *self._starts(party)} if start <= position)
        if start == position:
            return True
        known = self._until.get((party, start))
        if known is None or known[0] is not course:
            known = self._until[party, start] = course, course.until(party, start)
        return position <= known[1]

    def beyond(self, position: Position) -> bool:
        """Return whether anybody who takes part holds a snapshot of a later position."""
        return any(held > position for name in self.required for held in self.positions[name])

    def settle(self, position: Position) -> None:
        """Forget what is behind ``position``: it will be done once more."""
        for name in self.required:
            self.positions[name] = tuple(p for p in self.positions[name] if p <= position)

    def behind_all(self) -> Position | None:
        """Return, when it has moved on, the position behind which nobody will go back; two common ones are kept."""
        if self.course is None:
            return None
        try:
            position, _ = self._common(self.course)
        except CutlayerError:
            return None  # somebody has none any more; it matters when all go back to one
        self._until = {
            key: one
            for key, one in self._until.items()
            if one[0] is self.course and key[1] in {START, *self._starts(key[0])}
        }
        if position <= self._commons[-1]:
            return None
        self._commons.append(position)
        keep = self._commons[-2]
        if self._skips:  # whoever has the state now may not come back
            now = self.course.holders(position)
            others = (p for p in reversed(self._commons) if now.isdisjoint(self.course.holders(p)))
            keep = min(keep, next(others, START))
        self._commons = [p for p in self._commons if p >= keep]
        return keep if keep > START else None

    def welcome(self, parties: Sequence[str], epoch: int) -> None:
        """Let ``parties`` take part from ``epoch`` on."""
        for name in parties:
            self._roster.absent.remove(name)
            self._joined[name] = Position(epoch, 0)
        turns = [index for index, turn in enumerate(self._graph.turns) if not self.away(turn)]
        self._roster.leaves = [
            leave._replace(until=epoch) if leave.turn in turns and leave.until > epoch else leave
            for leave in self._roster.leaves
        ]

    @property
    def required(self) -> list[str]:
        """The parties that take part now."""
        return [party.name for party in self._graph.parties if party.name not in self._roster.absent]

    def away(self, turn: Mapping[str, str]) -> bool:
        """Return whether a party of ``turn`` does not take part now."""
        return not set(self._roster.absent).isdisjoint(turn.values())

    def can_leave_out(self, parties: list[str]) -> bool:
        """Only a party whose role has others can be left out, and never the last of them."""
        for role in self._graph.roles.values():
            left = [name for name in role.parties if name not in self._roster.absent and name not in parties]
            if not left:
                return False
        return True
