"""Who takes part in a round: all, a sample, or those who are quick enough; drawn from the study's seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ..errors import StudyError, nearest
from ..graph.split_graph import SplitGraph
from ..seeds import generator
from .calendar import Calendar
from .step_options import StepOptions

__all__ = ["Attendance", "Share"]


class Share(NamedTuple):
    """What one turn does in a round: training batches ``first``, ``first + 1``, … before ``end``.

    Attributes:
        turn: The turn.
        first: Its first batch.
        end: The batch behind its last.
    """

    turn: int
    first: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Attendance(StepOptions):
    """Settings of schedules in which clients work at the same time.

    Attributes:
        round: Batches of a client from one round to the next; 0 means an epoch of its own data.
        sample: How many clients take part in a round: a number (an int), or a share of all (a float up to 1.0).
        speeds: Batches a second of parties; 1.0 where nothing is said. They are stated, not measured, so
            that the order of work is the same everywhere and at any time.
        deadline: Seconds a round may last by these speeds; None for as long as it takes.
        late: What becomes of a client that is not done by then: ``"drop"``: it sits this round out; ``"wait"``: the
            others wait for it; ``"partial"``: it does as many batches as there is time for.
    """

    round: int = 0
    sample: float = 1.0
    speeds: Mapping[str, float] = field(default_factory=dict)
    deadline: float | None = None
    late: Literal["drop", "wait", "partial"] = "wait"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.round < 0:
            raise StudyError("a round has at least one batch", got=str(self.round), todo="0 means an epoch")
        whole = isinstance(self.sample, int)
        if isinstance(self.sample, bool) or not (self.sample >= 1 if whole else 0 < self.sample <= 1):
            raise StudyError(
                "sample is a number of clients or a share of them",
                got=repr(self.sample),
                expected="a whole number of 1 or more, or a float above 0.0 and up to 1.0",
            )
        for party, speed in self.speeds.items():
            if not (math.isfinite(speed) and speed > 0):
                raise StudyError("a speed is batches a second, above 0", party=party, got=repr(speed))
        if self.deadline is not None and not self.deadline > 0:
            raise StudyError("a deadline is a number of seconds above 0", got=repr(self.deadline))
        if self.late not in ("drop", "wait", "partial"):
            raise StudyError(f"late={self.late!r}", todo=nearest(self.late, ["drop", "wait", "partial"]))

    def rounds(self, calendar: Calendar, epoch: int) -> int:
        """Return the number of rounds in ``epoch``."""
        most = max((self.units(calendar, turn, epoch) for turn in range(len(calendar.rows))), default=0)
        return -(-most // (self.round or max(most, 1)))

    def shares(self, graph: SplitGraph, calendar: Calendar, epoch: int, number: int) -> list[Share]:
        """Return who does what in round ``number`` of ``epoch``, in a random order of clients.

        The draw does not depend on who has data, so that a client that leaves changes nothing for the others.

        Raises:
            StudyError: A speed is stated of a party that the graph does not have.
        """
        names = {party.name for party in graph.parties}
        for party in self.speeds:
            if party not in names:
                raise StudyError(
                    f"a speed is stated of the unknown party {party!r}", todo=nearest(party, names)
                )
        turns = len(calendar.rows)
        order = generator(calendar.seed, "attendance", epoch, number).permutation(turns).tolist()
        shares = []
        for turn in order[: self._sampled(turns)]:
            has = self.units(calendar, turn, epoch)
            first, end = number * self.round, min(has, (number + 1) * self.round) if self.round else has
            end = min(end, first + self._in_time(graph, turn, end - first))
            if end > first:
                shares.append(Share(turn, first, end))
        return shares

    def _sampled(self, turns: int) -> int:
        return min(turns, self.sample if isinstance(self.sample, int) else math.ceil(self.sample * turns))

    def _in_time(self, graph: SplitGraph, turn: int, batches: int) -> int:
        """Return how many of ``batches`` the turn does by the deadline."""
        if self.deadline is None or self.late == "wait":
            return batches
        able = int(self.deadline * self.speed(graph, turn) * (1 + 1e-9))
        return batches if able >= batches else able if self.late == "partial" else 0

    def speed(self, graph: SplitGraph, turn: int) -> float:
        """Return the batches a second of a turn: those of its slowest party of which a speed is stated, else 1.0."""
        stated = [self.speeds[party] for party in graph.turns[turn].values() if party in self.speeds]
        return min(stated, default=1.0)

    def attendance(self) -> str:
        """Return these settings as words."""
        words = ["a round is " + (f"{self.round} batches of each client" if self.round else "an epoch")]
        if self.sample != 1.0 or isinstance(self.sample, int):
            words.append(
                f"{self.sample} clients a round"
                if isinstance(self.sample, int)
                else f"{self.sample:g} of the clients"
            )
        if self.deadline is not None:
            words.append(f"deadline {self.deadline:g} s, late ones {self.late}")
        if self.speeds:
            words.append("speeds " + ", ".join(f"{p} {s:g}" for p, s in sorted(self.speeds.items())))
        return ", ".join(words)
