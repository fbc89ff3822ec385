"""Who reads a line: its own thread, or whoever waits for a frame, who then need not be woken."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from cutlayer.transports.network.envelopes import Envelope
from cutlayer.transports.network.lines import Line, Room

__all__ = ["Inbox", "Reading", "Ready"]

Inbox = SimpleQueue["memoryview | None"]
"""Where a party's frames wait; None: look again, something has changed."""
Ready = tuple[Inbox, "memoryview | None"]
"""An inbox and what shall be put into it."""

_REST_S = 0.01
"""After a receiver has read for itself, how soon the line's own thread takes over unless another one comes."""
_MOST_REST_S = 0.05
"""Likewise, where receivers have read for themselves again and again: each time that thread looks, it holds them up."""


class Reading:
    """The turns in which a line is read: by the thread in `run`, or by receivers in `lead`.

    To hand a frame from one thread to another costs more than to read it, so a receiver that waits reads
    for itself, whatever comes. The line's own thread rests meanwhile, and a little longer, since the next
    receiver is mostly near.

    Args:
        line: What is read.
        room: Where payloads go.
        take: Told each envelope; returns what is ready for whom, or raises.
    """

    def __init__(self, line: Line, room: Room, take: Callable[[Envelope], Ready | None]) -> None:
        self._line, self._room, self._take = line, room, take
        self._turn = threading.Lock()
        self._leader = threading.Lock()
        self._wanted = self._resting_long = False
        self._led = 0.0
        self._back = threading.Event()
        self._over = False
        self._failure: BaseException | None = None
        self._ready: Ready | None = None

    def run(self) -> None:
        """Read until the line ends.

        Raises:
            CutlayerError: Whatever was wrong with what came, or with the line.
        """
        try:
            while not self._over:
                with self._turn:
                    while not self._over and not self._wanted:
                        self._once(math.inf)
                    self._settle()
                self._rest()
        finally:
            self._over = True
            self._settle()
        if self._failure is not None:
            raise self._failure

    def lead(self, inbox: Inbox, until: float) -> None:
        """Read until there is something in ``inbox`` or the line has ended; at once if another receiver reads.

        Args:
            inbox: What the caller waits for.
            until: When to stop waiting, in seconds of `time.monotonic`.
        """
        if self._line.blocks or not self._leader.acquire(blocking=False):
            return
        try:
            self._wanted = True
            if not self._turn.acquire(blocking=False):
                self._line.ring()
                self._turn.acquire()
            try:
                self._read_for(inbox, until)
            finally:
                self._led, self._wanted = time.monotonic(), False
                self._turn.release()
        finally:
            self._leader.release()
        if self._resting_long or self._over:
            self._back.set()

    def end(self) -> None:
        """Let nobody read on."""
        self._over = True
        self._back.set()

    def _read_for(self, inbox: Inbox, until: float) -> None:
        try:
            while inbox.empty() and not self._over and time.monotonic() < until:
                self._once(until)
                if self._ready is not None:
                    self._settle()
        except Exception as error:  # for the line's own thread to report
            self._failure, self._over = error, True

    def _once(self, until: float) -> None:
        """Take what has come; if nothing has, hand over what is ready and wait."""
        line = self._line
        if line.blocks:
            self._settle()
        envelope = line.take(self._room)
        if self._ready is not None:
            self._settle()
        if envelope is not None:
            self._ready = self._take(envelope)
        elif line.over:
            self._over = True
        else:
            line.wait(until)

    def _settle(self) -> None:
        """Put what is ready where it belongs: last, since whoever it wakes wants the interpreter at once."""
        ready, self._ready = self._ready, None
        if ready is not None:
            ready[0].put(ready[1])

    def _rest(self) -> None:
        """Wait while receivers read."""
        rested = 0
        while not self._over and (self._wanted or time.monotonic() - self._led < _REST_S):
            self._resting_long = rested > 10 and self._wanted
            if self._resting_long and self._wanted:
                self._back.wait()
                rested = 0
            else:
                self._back.wait(min(_REST_S * (1 + rested), _MOST_REST_S))
                rested += 1
            self._back.clear()
        self._resting_long = False
