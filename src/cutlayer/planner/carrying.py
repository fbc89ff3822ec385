"""Frames on their way over lines, which those who send at the same time share, piece by piece.

Between each two parties there is a connection of its own, and a line carries a piece of each in turn, as TCP does: none
waits until another is through. A piece is what a connection sends at once, a window of TCP's: a frame that is no larger
goes in one, behind those that came before. No frame is carried in more than `_PIECES` pieces, so that it does not take
long to go through large ones. Congestion controls that pace, as BBR does, spread what they send; that is left out.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

__all__ = ["Agenda", "Carried", "Pipe", "carry"]

_PIECE_BYTES, _PIECES = 65_536, 4

Act = Callable[[float], None]
"""What is done at a time; it is told the time."""


class Agenda:
    """What is to be done when, in the order of time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Act]] = []
        self._numbers = itertools.count()

    def at(self, when: float, act: Act) -> None:
        """Do ``act`` at ``when``; of several at one time, that first which was said first."""
        heapq.heappush(self._heap, (when, next(self._numbers), act))

    def run(self) -> None:
        """Do all that there is to do."""
        while self._heap:
            when, _, act = heapq.heappop(self._heap)
            act(when)


@dataclass
class Carried:
    """A frame on its way.

    Attributes:
        flow: From whom to whom; what is of one flow stays in order.
        size: Bytes.
        arrived: Called when the last byte is there.
        missing: Pieces that are not there yet.
    """

    flow: tuple[str, str]
    size: float
    arrived: Act
    missing: int = 0


@dataclass
class Pipe:
    """One direction of a line.

    Attributes:
        rate: Bytes of frames a second.
        latency_s: Seconds that it takes on top.
    """

    rate: float = math.inf
    latency_s: float = 0.0
    _waiting: dict[tuple[str, str], deque[_Piece]] = field(default_factory=dict)
    _turns: deque[tuple[str, str]] = field(default_factory=deque)
    _busy: bool = False
    _free_at: float = 0.0

    def put(self, agenda: Agenda, piece: _Piece, now: float) -> None:
        """Let a piece wait for its turn."""
        flow = piece.frame.flow
        if flow not in self._waiting:
            self._waiting[flow] = deque()
            self._turns.append(flow)
        self._waiting[flow].append(piece)
        if not self._busy:
            self._begin(agenda, max(now, self._free_at))

    def _begin(self, agenda: Agenda, now: float) -> None:
        """Let the next piece through; its first byte is at the next pipe long before its last."""
        piece = self._waiting[self._turns.popleft()].popleft()
        self._busy = True
        done = max(now + piece.size / self.rate, piece.ready)
        agenda.at(done, partial(self._end, agenda, piece))
        if piece.then is not None:
            late = self.latency_s + piece.then.latency_s
            follows = _Piece(piece.frame, piece.size, done + late, None)
            agenda.at(now + late, partial(piece.then.put, agenda, follows))

    def _end(self, agenda: Agenda, piece: _Piece, now: float) -> None:
        self._busy, self._free_at = False, now
        flow = piece.frame.flow
        if self._waiting[flow]:
            self._turns.append(flow)
        else:
            del self._waiting[flow]
        if self._turns:
            self._begin(agenda, now)
        if piece.then is None:
            piece.frame.missing -= 1
            if not piece.frame.missing:
                piece.frame.arrived(now)


class _Piece(NamedTuple):
    """Part of a frame.

    Attributes:
        frame: Whose.
        size: Bytes.
        ready: When its last byte is where it waits; it cannot be through before.
        then: Where it goes on to.
    """

    frame: Carried
    size: float
    ready: float
    then: Pipe | None


def carry(agenda: Agenda, frame: Carried, out: Pipe, into: Pipe, now: float) -> None:
    """Let ``frame`` go at ``now``: over the sender's pipe, both latencies, and the receiver's pipe."""
    count = min(max(math.ceil(frame.size / _PIECE_BYTES), 1), _PIECES)
    frame.missing = count
    for _ in range(count):
        out.put(agenda, _Piece(frame, frame.size / count, now, into), now)
