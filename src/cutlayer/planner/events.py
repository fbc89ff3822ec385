"""When everything happens: parties at work, frames on their lines, one event after the other; no tensors.

Each party does its own part of a program in order. It computes by itself, what it sends goes over its own line and that
of the receiver, and what it waits for has to arrive. Frames of several connections share a line (see `carrying`).
Between organisations all dial the host, and what two others send each other goes through it.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple

from ..errors import StudyError
from .carrying import Agenda, Carried, Pipe, carry

__all__ = ["Line", "Move", "Timeline"]

Kind = Literal["work", "send", "receive"]


class Move(NamedTuple):
    """One thing that a party does.

    Attributes:
        party: Who.
        kind: Work for ``amount`` seconds, send ``amount`` bytes, or wait for what ``peer`` sends next.
        amount: Seconds or bytes.
        peer: To or from whom.
    """

    party: str
    kind: Kind
    amount: float = 0.0
    peer: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A party's line to the others.

    Attributes:
        mbit: Megabits a second that it receives.
        latency_ms: Milliseconds from its end to the middle of the network, or back; a frame between two parties takes
            both lines' latency.
        up_mbit: Megabits a second that it sends; as many as it receives unless given.
        overhead: What the line carries for each byte of a frame: 52 bytes of IPv4 and TCP in packets of 1,500, and
            31 of TLS 1.3 and HTTP/2 in records of 16 KB, unless given.
    """

    mbit: float = 100.0
    latency_ms: float = 10.0
    up_mbit: float | None = None
    overhead: float = 1500 / 1448 * (1 + 31 / 16384)

    def __post_init__(self) -> None:
        for name, value in (
            ("mbit", self.mbit),
            ("up_mbit", self.mbit if self.up_mbit is None else self.up_mbit),
        ):
            if not value > 0:
                raise StudyError(f"a line of {name}={value} carries nothing", expected="a number above 0")
        if not self.overhead >= 1:
            raise StudyError(
                "a line carries at least the frames", got=f"overhead={self.overhead}", expected="1 or more"
            )
        if not self.latency_ms >= 0:
            raise StudyError("latency is a time", got=f"latency_ms={self.latency_ms}", expected="0 or more")

    @property
    def down(self) -> float:
        """Bytes of frames a second that it receives."""
        return self.mbit * 1e6 / 8 / self.overhead

    @property
    def up(self) -> float:
        """Bytes of frames a second that it sends."""
        return (self.mbit if self.up_mbit is None else self.up_mbit) * 1e6 / 8 / self.overhead

    @property
    def latency_s(self) -> float:
        """Seconds to the middle of the network."""
        return self.latency_ms / 1e3

    def scaled(self, factor: float) -> Line:
        """Return the line of somebody whose rates are ``factor`` times these."""
        up_mbit = None if self.up_mbit is None else self.up_mbit * factor
        return replace(self, mbit=self.mbit * factor, up_mbit=up_mbit)


@dataclass
class Timeline:
    """Performs moves and knows where the time went; moves of a later epoch go on where the last ended.

    Attributes:
        lines: Each party's line; a party without one is reached at once.
        hub: The party that hosts the study, through which all frames between others go; none if empty.
        clock: When each party is done with what it was given, in seconds.
        worked: How long each was computing.
    """

    lines: Mapping[str, Line] = field(default_factory=dict)
    hub: str = ""
    clock: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    worked: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def __post_init__(self) -> None:
        self._agenda = Agenda()
        self._todo: defaultdict[str, deque[Move]] = defaultdict(deque)
        self._mail: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)
        self._waiting: set[tuple[str, str]] = set()
        self._out: dict[str, Pipe] = {}
        self._in: dict[str, Pipe] = {}

    @property
    def end(self) -> float:
        """When the last party is done."""
        return max(self.clock.values(), default=0.0)

    def perform(self, moves: Iterable[Move]) -> float:
        """Do all ``moves``, each party its own in their order, and return when the last is done.

        Raises:
            StudyError: Somebody waits for what nobody sends.
        """
        for move in moves:
            self._todo[move.party].append(move)
        for party in self._todo:
            self._agenda.at(self.clock[party], partial(self._go, party))
        self._agenda.run()
        self._todo.clear()
        if self._waiting:
            sender, party = min(self._waiting)
            raise StudyError(
                "the program cannot go on",
                party=party,
                got=f"it waits for a frame of {sender} that is never sent",
            )
        return self.end

    def _go(self, party: str, now: float) -> None:
        """Do what a party does from ``now`` on, until it computes or waits."""
        todo = self._todo[party]
        while todo:
            move = todo[0]
            if move.kind == "receive":
                mail = self._mail[move.peer, party]
                if not mail:
                    self._waiting.add((move.peer, party))
                    break
                now = max(now, mail.popleft())
            todo.popleft()
            if move.kind == "send":
                self._send(party, move.peer, move.amount, now)
            elif move.kind == "work":
                self.worked[party] += move.amount
                now += move.amount
                self._agenda.at(now, partial(self._go, party))
                break
        self.clock[party] = now

    def _send(self, sender: str, receiver: str, size: float, now: float) -> None:
        """Let a frame go, through the host if neither is that."""
        flow, arrived = (sender, receiver), partial(self._arrived, sender, receiver)
        last = Carried(flow, size, arrived)
        if not self.hub or self.hub in flow:
            carry(self._agenda, last, self._pipe(sender), self._pipe(receiver, into=True), now)
            return
        go_on = partial(carry, self._agenda, last, self._pipe(self.hub), self._pipe(receiver, into=True))
        first = Carried(flow, size, go_on)
        carry(self._agenda, first, self._pipe(sender), self._pipe(self.hub, into=True), now)

    def _arrived(self, sender: str, receiver: str, now: float) -> None:
        self._mail[sender, receiver].append(now)
        if (sender, receiver) in self._waiting:
            self._waiting.remove((sender, receiver))
            self._agenda.at(max(now, self.clock[receiver]), partial(self._go, receiver))

    def _pipe(self, party: str, *, into: bool = False) -> Pipe:
        """Return a direction of a party's line."""
        pipes = self._in if into else self._out
        if party not in pipes:
            line = self.lines.get(party)
            rate = math.inf if line is None else line.down if into else line.up
            pipes[party] = Pipe(rate, 0.0 if line is None else line.latency_s)
        return pipes[party]
