"""When everything happens: parties at work, frames on their lines, one event after the other; no tensors.

Each party does its own part of a program in order. It computes by itself, what it sends goes over its own line and that
of the receiver, and what it waits for has to arrive. Lines carry one frame at a time, in the order of sending. Between
organisations all dial the host, and what two others send each other goes through it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from ..errors import StudyError

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
        for name, value in (("mbit", self.mbit), ("up_mbit", self.up_mbit or self.mbit)):
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
        return (self.up_mbit or self.mbit) * 1e6 / 8 / self.overhead

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
        self._out: defaultdict[str, float] = defaultdict(float)
        self._in: defaultdict[str, float] = defaultdict(float)
        self._mail: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)

    @property
    def end(self) -> float:
        """When the last party is done."""
        return max(self.clock.values(), default=0.0)

    def perform(self, moves: Iterable[Move]) -> float:
        """Do all ``moves``, each party its own in their order, and return when the last is done.

        Raises:
            StudyError: Somebody waits for what nobody sends.
        """
        todo: defaultdict[str, deque[Move]] = defaultdict(deque)
        for move in moves:
            todo[move.party].append(move)
        ready = [(self.clock[party], party) for party in todo]
        heapq.heapify(ready)
        waiting: dict[tuple[str, str], str] = {}
        while ready:
            now, party = heapq.heappop(ready)
            queue = todo[party]
            move = queue[0]
            if move.kind == "receive" and not self._mail[move.peer, party]:
                waiting[move.peer, party] = party
                continue
            queue.popleft()
            self.clock[party] = done = self._do(move, now)
            woken = waiting.pop((party, move.peer), None) if move.kind == "send" else None
            if woken is not None:
                heapq.heappush(ready, (max(self.clock[woken], now), woken))
            if queue:
                heapq.heappush(ready, (done, party))
        if waiting:
            (sender, party), *_ = waiting
            raise StudyError(
                "the program cannot go on",
                party=party,
                got=f"it waits for a frame of {sender} that is never sent",
            )
        return self.end

    def _do(self, move: Move, now: float) -> float:
        """Do one thing and return when the party goes on."""
        if move.kind == "work":
            self.worked[move.party] += move.amount
            return now + move.amount
        if move.kind == "receive":
            return max(now, self._mail[move.peer, move.party].popleft())
        self._mail[move.party, move.peer].append(self._arrival(move, now))
        return now

    def _arrival(self, move: Move, now: float) -> float:
        """Return when what is sent ``now`` is there."""
        if not self.hub or self.hub in (move.party, move.peer):
            return self._carried(move.party, move.peer, move.amount, now)
        there = self._carried(move.party, self.hub, move.amount, now)
        return self._carried(self.hub, move.peer, move.amount, there)

    def _carried(self, sender: str, receiver: str, size: float, now: float) -> float:
        """Return when ``size`` bytes are at the other end; both lines are taken until they have passed."""
        mine, theirs = self.lines.get(sender), self.lines.get(receiver)
        out = size / mine.up if mine else 0.0
        into = size / theirs.down if theirs else 0.0
        start = max(now, self._out[sender])
        self._out[sender] = start + out
        latency = (mine.latency_s if mine else 0.0) + (theirs.latency_s if theirs else 0.0)
        begins = max(start + latency, self._in[receiver])
        self._in[receiver] = begins + into
        return max(begins + into, start + latency + out)
