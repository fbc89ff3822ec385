"""At the host: who is there, where all go on from, and what happens when somebody does not come back.

To start and to recover are the same thing. The conductor calls the roll, every party says of which positions it
holds snapshots, the conductor finds the last one that all have in common and says go. It works on what parties say
and on who is connected, with a lock of its own; it touches no tensor and no frame.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import CutlayerError, FrameError, StudyError
from ..graph.split_graph import SplitGraph
from ..runtime.course import Course
from ..runtime.positions import START, Position
from ..schedules.calendar import Leave
from .admission import check_offer, check_parts
from .agreement import Agreement
from .messages import (
    Accuse,
    Bye,
    Done,
    Go,
    Held,
    Hello,
    Keep,
    Message,
    Place,
    Ready,
    RollCall,
    Status,
    Stop,
    place,
    read_hello,
    read_message,
    written,
)
from .remembered import Roster

__all__ = ["Absence", "Conductor", "Line"]

_STRIKES = 3
_MOST_RESTARTS, _RESTARTS_S = 20, 60.0


class Line(Protocol):
    """How the conductor reaches the parties."""

    def control(self, party: str, message: bytes) -> None:
        """Send a control message."""
        ...

    def call_off(self, generation: int) -> None:
        """Drop the frames of earlier generations that are under way."""
        ...

    def drop(self, party: str, reason: str) -> None:
        """End the connection of a party and let it in no more."""
        ...


@dataclass(frozen=True, kw_only=True)
class Absence:
    """What to do when a party does not come back.

    Attributes:
        then: ``"wait"`` for ever, ``"skip"`` its turns, or ``"stop"`` the study.
        after_s: How long to wait before that, in seconds.
        late: Parties that need not be there at the beginning.
    """

    then: str = "wait"
    after_s: float = 60.0
    late: tuple[str, ...] = ()


@dataclass
class _Seat:
    """What the conductor knows of one party."""

    incarnation: bytes = b""
    connected: bool = False
    gone_at: float = 0.0
    hello: Hello | None = None
    ready: bool = False
    done: bool = False
    strikes: int = 0
    accusers: set[str] = field(default_factory=set)
    restarts: list[float] = field(default_factory=list)
    knows: bool = False


class Conductor:
    """Leads one study at its host.

    Args:
        graph: Who takes part.
        host: The party that hosts.
        parts: Digest of each thing to agree on.
        absence: What to do about missing parties.
        course: Makes the course of the training from the turns' rows and leaves.
        note: Called with who and what, for whatever a person at the host should know.
        check_card: Raises an IdentityError if a party's key card does not hold.
        roster: What is remembered of the study if it was begun earlier.
        keep_roster: Called with what is to be remembered, when that changes.
        where: Adds to a status where the study stands.
        answer: What a party that is let in is told: the host's key card.
    """

    def __init__(
        self,
        graph: SplitGraph,
        host: str,
        parts: Mapping[str, str],
        absence: Absence,
        *,
        course: Callable[[list[dict[str, int]], Sequence[Leave]], Course],
        note: Callable[[str, str], None],
        check_card: Callable[[str, Mapping[str, str]], None] = lambda party, card: None,
        roster: Roster | None = None,
        keep_roster: Callable[[Roster], None] = lambda roster: None,
        where: Callable[[Status], Status] = lambda status: status,
        answer: bytes = b"",
    ) -> None:
        self.graph, self.host, self.parts, self.absence = graph, host, dict(parts), absence
        self.running = False
        self.over = threading.Event()
        self._course_of, self._note, self._keep_roster, self._where = course, note, keep_roster, where
        self._roster = roster or Roster(absent=sorted(absence.late))
        self.generation = self._roster.generation + 1
        self._agreement = Agreement(graph, course, self._roster, skips=absence.then == "skip")
        self._seats = {party.name: _Seat(gone_at=time.monotonic()) for party in graph.parties}
        self._line: Line | None = None
        self._answer = answer
        self._check_card = check_card
        self._called_at = time.monotonic()
        self._told_of_snapshots = False
        self._back_to: Position | None = None
        self._lock = threading.RLock()
        if self._roster.finished:
            self.over.set()

    def connect(self, line: Line) -> None:
        """Say how parties are reached; before anybody is let in."""
        self._line = line

    # What the transport reports

    def admit(self, party: str, hello: bytes) -> bytes:
        """Look at what ``party`` says first; return the answer.

        Raises:
            StudyError: It is not on the list, has another study, or comes back with other data.
            FrameError: It is no such message.
            IdentityError: Its key card does not hold.
        """
        try:
            said = read_hello(hello, party)
            with self._lock:
                self._let_in(party, said)
        except CutlayerError as error:
            self._note(party, f"refused: {error}")
            raise
        return self._answer

    def _let_in(self, party: str, said: Hello) -> None:
        seat = self._seats.get(party)
        if seat is None:
            raise StudyError(f"{party!r} is not on this study's list")
        check_parts(party, said.parts, self.host, self.parts)
        self._check_card(party, said.card)
        calendar = self._course_of([dict(said.offer.rows)], ()).calendar
        check_offer(
            party, said.offer, self._roster.offers.get(party), lambda split: calendar.batches(0, split)
        )
        seat.hello = said

    def on_presence(self, party: str, incarnation: bytes, connected: bool) -> None:
        """Note that a party's connection came or went."""
        with self._lock:
            seat = self._seats[party]
            seat.connected = connected
            if not connected:
                seat.gone_at = time.monotonic()
                self._note(party, "has left: all is done" if seat.knows else "connection lost")
                return
            if incarnation == seat.incarnation:
                self._note(party, "connected again")
                return
            again = bool(seat.incarnation)
            seat.incarnation, seat.ready, seat.done = incarnation, False, False
            self._note(party, "restarted" if again else "joined")
            if self._restarts_too_often(seat):
                self._turn_away(party, f"it restarted {_MOST_RESTARTS} times within {_RESTARTS_S:.0f} s")
            elif self._roster.finished:
                self._send(party, Bye())  # it missed the end, or the host was started once more
            elif self.over.is_set():
                return
            elif self.running and party not in self._roster.absent:
                self._call_roll(f"{party} {'restarted' if again else 'joined'}")
            else:
                self._send(party, self._roll_call("welcome"))

    def on_control(self, party: str, text: bytes) -> None:
        """Take a control message of ``party``; what is none is noted, and its sender dropped."""
        try:
            message = read_message(text, party)
            with self._lock:
                self._take(party, message)
        except FrameError as error:
            self._note(party, str(error))
            self._drop(party, error.what)

    def tick(self) -> None:
        """Look after missing parties, and tell everyone how things stand; to be called every second or so."""
        with self._lock:
            if self.over.is_set():
                return
            missing = self._missing
            now = time.monotonic()
            overdue = [m for m in missing if now - self._seats[m].gone_at > self.absence.after_s]
            if not self.running and now - self._called_at > self.absence.after_s:
                overdue += [
                    m for m in self._agreement.required if m not in missing and not self._seats[m].ready
                ]
            if overdue and self.absence.then == "stop":
                self.stop(f"{', '.join(overdue)} did not come back within {self.absence.after_s:g} s")
            elif overdue and self.absence.then == "skip" and self._agreement.can_leave_out(overdue):
                self._roster.absent.extend(overdue)
                self._note(", ".join(overdue), "does not come back: its turns are left out from now on")
                self._call_roll(f"going on without {', '.join(overdue)}")
            if self._told_of_snapshots:
                self._told_of_snapshots = False
                self._let_old_ones_go()
            self._tell_status(missing)

    @property
    def unaware(self) -> list[str]:
        """The parties that have not said yet that they know of the end; empty if it was no good end."""
        with self._lock:
            return [
                name
                for name in self._agreement.required
                if self._roster.finished and not self._seats[name].knows
            ]

    def stop(self, reason: str) -> None:
        """End the study here; everybody keeps their snapshots."""
        with self._lock:
            self._note(self.host, f"the study stops: {reason}")
            self._broadcast(Stop(reason=reason))
            self.over.set()

    def epoch_begins(self, epoch: int) -> None:
        """Let in who has come or come back; called at the host before each epoch, when the roll can be called."""
        with self._lock:
            waiting = [name for name in self._roster.absent if self._seats[name].ready]
            if not waiting or not self.running:
                return
            self._agreement.welcome(waiting, epoch)
            self._call_roll(f"{', '.join(waiting)} joined")

    # What parties say

    def _take(self, party: str, message: Message) -> None:
        seat = self._seats[party]
        match message:
            case Bye() if self._roster.finished:
                seat.knows = True
            case Ready() | Held() | Done() | Accuse() if self.over.is_set():
                pass
            case Ready() if message.generation == self.generation:
                self._agreement.positions[party] = _positions(message.positions)
                seat.ready, seat.done = True, False
                self._go_if_all_are_ready()
            case Held():
                self._agreement.positions[party] = _positions(message.positions)
                self._told_of_snapshots = True
            case Done() if message.generation == self.generation and self.running:
                seat.done = True
                if all(self._seats[name].done for name in self._agreement.required):
                    self._roster.finished = True
                    self._keep_roster(self._roster)
                    self._broadcast(Bye())
                    self.over.set()
            case Accuse() if message.generation == self.generation and self.running:
                self._accused(party, message)
            case Stop():
                self._note(party, f"left: {message.reason}")
            case Ready() | Done() | Accuse():
                pass  # of an earlier generation
            case _:
                raise FrameError(f"{party!r} sent a message that only the host sends", got=message.kind)

    def _accused(self, party: str, message: Accuse) -> None:
        """Somebody sent what must not be: the host sees that itself; of others it hears."""
        self._note(message.sender, f"{party} reports: {message.what}")
        if message.sender not in self._seats or message.sender == party:
            raise FrameError(f"{party!r} accuses nobody that takes part", got=repr(message.sender))
        culprit, accuser = self._seats[message.sender], self._seats[party]
        culprit.accusers.add(party)
        accuser.strikes += 1
        if message.sender != self.host and (party == self.host or len(culprit.accusers) > 1):
            self._turn_away(message.sender, message.what)
        elif accuser.strikes >= _STRIKES:
            self._turn_away(
                party,
                f"it reported {_STRIKES} times what nobody else did, of {message.sender}: {message.what}",
            )
        else:
            self._call_roll(f"{party} could not use what {message.sender} sent")

    def _turn_away(self, party: str, reason: str) -> None:
        """Drop a party for a while; the others go on, or wait for it, as the study says."""
        seat = self._seats[party]
        self._note(self.host, f"{party} is turned away: {reason}")
        seat.connected, seat.gone_at, seat.ready = False, time.monotonic(), False
        seat.strikes = 0
        seat.accusers.clear()
        seat.restarts.clear()
        self._drop(party, reason)
        if self.running and party not in self._roster.absent:
            self._call_roll(f"{party} was turned away")

    def _restarts_too_often(self, seat: _Seat) -> bool:
        now = time.monotonic()
        seat.restarts = [*(at for at in seat.restarts if now - at < _RESTARTS_S), now]
        return len(seat.restarts) > _MOST_RESTARTS

    # Roll call and go

    def _call_roll(self, reason: str, back_to: Position | None = None) -> None:
        self.generation += 1
        self._roster.generation = self.generation
        self._keep_roster(self._roster)
        self.running = False
        self._called_at = time.monotonic()
        for seat in self._seats.values():
            seat.ready = seat.done = False
        self._back_to = back_to
        if self._line is not None:
            self._line.call_off(self.generation)
        self._broadcast(self._roll_call(reason))

    def _roll_call(self, reason: str) -> RollCall:
        there = None if self._back_to is None else place(self._back_to)
        return RollCall(generation=self.generation, reason=reason, back_to=there)

    def _go_if_all_are_ready(self) -> None:
        required = self._agreement.required
        if self.running or not all(self._seats[name].ready for name in required):
            return
        for name, seat in self._seats.items():
            if seat.hello is not None:
                self._roster.offers[name] = seat.hello.offer
        leaves = self._roster.leaves
        try:
            position = self._agreement.reach()
        except CutlayerError as error:
            self._without_who_is_in_the_way(error)
            return
        if self._roster.leaves != leaves and self._agreement.beyond(position) and self._back_to != position:
            # Positions after this one are of another course. Were the new one written down before all have let go
            # of them, a host that dies now would take them, later, for positions of the new course.
            self._roster.leaves = leaves
            self._call_roll("all go back together", back_to=position)
            return
        self._back_to = None
        self._roster.generation = self.generation
        self._keep_roster(self._roster)
        self.running = True
        go = Go(
            generation=self.generation,
            position=place(position),
            rows=[dict(turn) for turn in self._agreement.rows],
            leaves=[(le.turn, le.epoch, le.batches, le.until) for le in self._roster.leaves],
            offers={name: offer for name, offer in self._roster.offers.items() if offer.rows},
            cards={n: s.hello.card for n in required if (s := self._seats[n]).hello is not None},
        )
        self._note(
            self.host, f"all are there: going on from {position}" if position > START else "all are there"
        )
        self._agreement.settle(position)
        for name in required:
            self._send(name, go)
        self._tell_status(self._missing)

    def _without_who_is_in_the_way(self, error: CutlayerError) -> None:
        """Nobody can go on: leave a party out without which the others can, if the study skips; stop otherwise."""
        for name in self._agreement.required if self.absence.then == "skip" else ():
            if name == self.host or not self._agreement.can_leave_out([name]):
                continue
            self._roster.absent.append(name)
            try:
                self._agreement.reach()
            except CutlayerError:
                self._roster.absent.remove(name)
                continue
            self._turn_away(name, str(error))
            self._call_roll(f"going on without {name}")
            return
        self.stop(str(error))

    def _let_old_ones_go(self) -> None:
        """Once all hold later common snapshots, the older ones are needed no more."""
        keep = self._agreement.behind_all() if self.running else None
        if keep is None:
            return
        if not self._roster.kept:
            self._roster.kept = True
            self._keep_roster(self._roster)
        for name in self._agreement.required:
            self._send(name, Keep(position=place(keep)))

    # Small parts

    @property
    def _missing(self) -> list[str]:
        """Who takes part and is not connected."""
        return [name for name in self._agreement.required if not self._seats[name].connected]

    def _tell_status(self, missing: list[str]) -> None:
        connected = [name for name, seat in self._seats.items() if seat.connected]
        waited = max((time.monotonic() - self._seats[m].gone_at for m in missing), default=0.0)
        text = f"waiting for {', '.join(missing)} ({waited:.0f} s)" if missing else ""
        status = self._where(Status(connected=connected, missing=missing, text=text))
        for name in connected:
            self._send(name, status)

    def _broadcast(self, message: Message) -> None:
        for name, seat in self._seats.items():
            if seat.connected:
                self._send(name, message)

    def _send(self, party: str, message: Message) -> None:
        if self._line is not None:
            self._line.control(party, written(message))

    def _drop(self, party: str, reason: str) -> None:
        if self._line is not None and party != self.host:
            self._line.drop(party, reason)


def _positions(places: Sequence[Place]) -> tuple[Position, ...]:
    return tuple(Position(*place) for place in places)
