"""One party's part in a study: report, restore, perform, and once more whenever the roll is called."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import torch

from ..data import PartyData
from ..errors import (
    CutlayerError,
    FrameError,
    IdentityError,
    LogError,
    NumericsError,
    RestartError,
    StudyError,
    TransportError,
)
from ..keys.cards import KeyCard
from ..keys.sealing import Sealer
from ..metering.disclosure_log import DisclosureLog
from ..metering.events import Event
from ..metering.run_log import RunLog
from ..runtime.course import Course
from ..runtime.halves import save_half
from ..runtime.party import LocalParty
from ..runtime.positions import START, Position
from ..runtime.snapshots import Snapshot, Snapshots
from ..runtime.training import Progress, Settings, Trainer
from ..schedules.calendar import Batch, Leave
from ..schedules.steps import data_roles
from ..study import Study
from ..transports import Transport
from ..wire import PlainSeal
from .guarded import GuardedTransport
from .matching import matched_positions
from .messages import (
    MOST_POSITIONS,
    Accuse,
    Bye,
    Done,
    Go,
    Held,
    Hello,
    Keep,
    Message,
    Offer,
    Place,
    Ready,
    RollCall,
    Status,
    Stop,
    place,
    read_message,
    written,
)
from .roster import offer_of

__all__ = ["Connection", "Part", "Participant", "Watcher"]

_FINISHED = "finished"


class Connection(Protocol):
    """A party's way to the host and to the others."""

    @property
    def transport(self) -> Transport:
        """What carries frames."""
        ...

    def control(self, message: bytes) -> None:
        """Send a control message to the host."""
        ...

    def begin(self, generation: int) -> None:
        """Take frames of this generation only."""
        ...

    def interrupt(self, error: CutlayerError) -> None:
        """Raise ``error`` out of whatever waits or will wait, until :meth:`begin`."""
        ...


class Watcher(Protocol):
    """Is told what a person would like to see."""

    def progress(self, now: Progress, sent_bytes: int) -> None:
        """Training moved on, and so many bytes left this process so far; at most ten times a second."""
        ...

    def status(self, now: Status) -> None:
        """The host said who is there."""
        ...

    def event(self, event: Event) -> None:
        """An event was written to this party's log: an epoch ended, metrics were measured."""
        ...

    def note(self, what: str) -> None:
        """Something happened that happens seldom."""
        ...


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which part in which study.

    Attributes:
        study: The study.
        party: Who this is.
        host: Who relays.
        data: This party's records; None where it holds none.
        folder: Where its log, disclosure log, snapshots and in the end its half of the network lie.
        every: Training steps from one snapshot to the next.
    """

    study: Study
    party: str
    host: str
    data: PartyData | None
    folder: Path
    every: int = 200


class Participant:
    """Performs one party's part.

    Args:
        part: Which.
        sealer: Its seals.
        watcher: Who is shown what happens.
        on_epoch: Called before each epoch with its number.

    Raises:
        LogError: The folder cannot be used, or belongs to another party.
    """

    def __init__(
        self,
        part: Part,
        sealer: Sealer,
        watcher: Watcher,
        on_epoch: Callable[[int], None] = lambda epoch: None,
    ) -> None:
        study = part.study
        self.part, self.sealer, self.watcher = part, sealer, watcher
        self._offer = offer_of(part.data, study.digest)
        self.hello = written(Hello(parts=study.parts, offer=self._offer, card=sealer.card.to_json()))
        """What the host wants to know first."""
        self.connection: Connection | None = None
        self._on_epoch = on_epoch
        self._inbox: SimpleQueue[Message | CutlayerError] = SimpleQueue()
        self._lock = threading.Lock()
        self._called = -1
        self._held: list[Position] = []
        self._keep_from = START
        self._proved: list[dict[str, int]] = []
        self._disclosed = DisclosureLog(part.folder, part.party, study=study.digest)
        self._log = _ShownLog(part.folder, watcher)
        study.begin(self._log, study.beginning([part.party], _holdings_text(part), "", part.host))
        self._snapshots = Snapshots(part.folder, background=True, on_disk=self._on_disk)
        self._trainer: Trainer | None = None

    def meet_host(self, answer: bytes) -> None:
        """Look at the key card with which the host answers a hello.

        Raises:
            IdentityError: It is none, or its certificate is revoked or not the one that is known of the host.
        """
        try:
            card = json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise IdentityError(
                f"{self.part.host!r} did not show a key card",
                party=self.part.party,
                got=f"{len(answer)} bytes",
            ) from error
        self.sealer.check(self.part.host, card)

    def on_control(self, text: bytes) -> None:
        """Take a message of the host; called by the connection, in a thread of its own."""
        try:
            message = read_message(text, self.part.host)
        except FrameError as error:
            self.fail(error)
            return
        match message:
            case Status():
                self.watcher.status(message)
            case Keep():
                self._keep_from = max(self._keep_from, Position(*message.position))
            case RollCall():
                with self._lock:
                    self._called = max(self._called, message.generation)
                    self._interrupt(
                        RestartError("the roll is called", party=self.part.party, got=message.reason)
                    )
                self._inbox.put(message)
            case Stop():
                self.fail(
                    StudyError(
                        f"the study stops: {message.reason}",
                        party=self.part.party,
                        todo="everything up to the last snapshot is kept; start again to go on",
                    )
                )
            case _:
                self._inbox.put(message)

    def fail(self, error: CutlayerError) -> None:
        """End this party's part with ``error``; may be called by any thread."""
        with self._lock:
            self._called = 2**63
            self._interrupt(error)
        self._inbox.put(error)

    def run(self) -> Path:
        """Take part until all are done; return the folder with what came out.

        Raises:
            CutlayerError: Whatever ended it; it can be started again in the same folder.
        """
        try:
            while True:
                match self._inbox.get():
                    case CutlayerError() as error:
                        raise error
                    case RollCall() as call:
                        self._report(call)
                    case Go() as go:
                        self._perform(go)
                    case Bye():
                        self._note_the_end()
                        self._say(Bye())
                        return self.part.folder
        finally:
            self._close()

    @property
    def finished(self) -> bool:
        """Whether this party has heard, in an earlier process, that all is done: nobody may be there any more."""
        path = self.part.folder / _FINISHED
        return path.exists() and path.read_text(encoding="utf-8").strip() == self.part.study.digest

    def leave(self) -> Path:
        """End this party's part without anybody; return its folder."""
        self._close()
        return self.part.folder

    def _note_the_end(self) -> None:
        try:
            (self.part.folder / _FINISHED).write_text(f"{self.part.study.digest}\n", encoding="utf-8")
        except OSError as error:
            self.watcher.note(f"cannot note that all is done: {error.strerror}")

    # The parts of it

    def _report(self, call: RollCall) -> None:
        """Say which snapshots there are."""
        if call.reason:
            self.watcher.note(f"roll call: {call.reason}")
        try:
            self._snapshots.wait()
        except LogError as error:
            self.watcher.note(str(error))
        with self._lock:
            self._held = list(self._snapshots.held())
        self._say(Ready(generation=call.generation, positions=self._places()))

    def _perform(self, go: Go) -> None:
        """Go on from where the host says, to the end or the next roll call."""
        with self._lock:
            if go.generation < self._called:
                return
            self._connected().begin(go.generation)
        position = Position(*go.position)
        guarded = GuardedTransport(self._connected().transport, self.part.host, self.sealer, self._disclosed)
        try:
            cards = {name: KeyCard.from_json(card) for name, card in go.cards.items()}
            self.sealer.meet(cards, go.generation)
            trainer = self._trainer_at(position, go, guarded)
            trainer.train(position)
            self._snapshots.wait()
            self._write_half(trainer)
        except RestartError:
            return
        except TransportError as error:
            if not error.sender:
                raise
            self.watcher.note(f"{error.sender} has ended; waiting until it is back")
            return  # the roll is called when it is back, or when all go on without it
        except (FrameError, NumericsError) as error:
            sender = error.sender or (guarded.heard if isinstance(error, FrameError) else "")
            if not sender:
                raise
            self.watcher.note(str(error))
            where = f" at cut {error.cut}, step {error.step}" if error.cut else ""
            self._say(Accuse(generation=go.generation, sender=sender, what=f"{type(error).__name__}{where}"))
            return
        self._say(Held(positions=self._places()))
        self._say(Done(generation=go.generation))

    def _trainer_at(self, position: Position, go: Go, guarded: GuardedTransport) -> Trainer:
        """Return a trainer with this party as it was at ``position``."""
        part, study = self.part, self.part.study
        self._check(go)
        if go.rows != self._proved:
            study.prove(go.rows)
            self._proved = go.rows
        course = study.course(go.rows, [Leave(*leave) for leave in go.leaves])
        snapshot = self._snapshot_at(position)
        trainer = self._trainer = _PartTrainer(self, course, study.settings)
        absent = {
            leave.turn for leave in course.calendar.leaves if leave.epoch <= position.epoch < leave.until
        }
        relayed = bool(getattr(study.schedule, "handover", "") == "server")
        party = LocalParty(
            part.party,
            next(p.role for p in study.graph.parties if p.name == part.party),
            trainer.shared,
            guarded,
            # Between clients the transport seals already; only what a relay of the program passes on needs more.
            self.sealer if relayed else PlainSeal(party=part.party),
            part.data.splits if part.data is not None else {},
            matched_positions(study.graph, part.data, go.offers, absent, guarded, self.sealer),
        )
        trainer.place({part.party: party})
        trainer.restore(snapshot)
        before, now = snapshot.memory.get("threads", torch.get_num_threads()), torch.get_num_threads()
        if before != now:
            self.watcher.note(
                f"!! this party computed with {before} threads before and now with {now}: the last bits will differ; "
                f"start it with --threads {before} to have the same"
            )
        party.away = party.away or (not snapshot.memory and position > START)
        self.watcher.note(f"begin at {position}" if position == START else f"go on from {position}")
        return trainer

    def _check(self, go: Go) -> None:
        """Refuse a host that says what cannot be, or what is not so of this party."""
        part, turns = self.part, self.part.study.graph.turns
        wrong = ""
        if len(go.rows) != len(turns) or any(leave[0] >= len(turns) for leave in go.leaves):
            wrong = "speaks of turns that the study has not"
        elif go.offers.get(part.party, Offer()) != self._offer and self._offer.rows:
            wrong = "says that this party brought other data than it did"
        elif self._held and Position(*go.position) < min(self._held[0], self._keep_from):
            wrong = f"wants to go back to {Position(*go.position)}, before which it had snapshots deleted"
        elif part.host not in go.cards:
            wrong = "does not show its own key card"
        if wrong:
            raise StudyError(f"the host {wrong}", party=part.party, todo="ask who runs the host")
        self._check_rows(go.rows)

    def _check_rows(self, rows: list[dict[str, int]]) -> None:
        """Refuse a host that says of one's own turns what is not so."""
        part = self.part
        own = {s: len(r) for s, r in part.data.splits.items()} if part.data is not None else {}
        roles = data_roles(part.study.graph)
        for turn, said in zip(part.study.graph.turns, rows, strict=True):
            members = {turn[role] for role in roles}
            alone = members == {part.party}  # where rows are shared, those count that all have
            fits = all(n == own.get(s) if alone else n <= own.get(s, 0) for s, n in said.items())
            if part.party in members and not fits:
                raise StudyError(
                    "the host tells of other rows than this party brought",
                    party=part.party,
                    got=f"{said}",
                    expected=f"{own}",
                )

    def _snapshot_at(self, position: Position) -> Snapshot:
        """Return the newest snapshot at or before ``position``; what came after it will be done once more."""
        self._snapshots.rewind(position)
        with self._lock:
            self._held = [held for held in self._held if held <= position]
            last = self._held[-1] if self._held else None
        return (
            Snapshot(position=position)
            if last is None
            else replace(self._snapshots.load(last), position=position)
        )

    def _write_half(self, trainer: Trainer) -> None:
        """Write this party's part of the network."""
        part = self.part
        live = trainer.parties[part.party].live
        segments = {name: segment.weights() for name, segment in live.items()}
        save_half(part.folder / "model", part.study.graph, part.party, segments)

    def _on_disk(self, position: Position) -> None:
        """A snapshot is safe: the host may count on it."""
        with self._lock:
            self._held = sorted({*self._held, position})
            held = Held(positions=self._places())
        if self.connection is not None:
            self.connection.control(written(held))

    def _places(self) -> list[Place]:
        return [place(held) for held in self._held[-MOST_POSITIONS:]]

    def let_old_ones_go(self) -> None:
        """Delete the snapshots that nobody will go back to."""
        with self._lock:
            keep = max((held for held in self._held if held <= self._keep_from), default=START)
            old = any(held < keep for held in self._held)
            self._held = [held for held in self._held if held >= keep]
        if old:
            self._snapshots.forget(self._keep_from)

    def where(self, status: Status) -> Status:
        """Return ``status`` with where this party stands."""
        trainer = self._trainer
        if trainer is None:
            return status
        now, turns = trainer.progress, self.part.study.graph.turns
        turn = turns[Batch.parse(now.batch).turn] if now.batch else {}
        crowded = {r.name for r in self.part.study.graph.roles.values() if len(r.parties) > 1}
        names = [party for role, party in turn.items() if role in crowded] or list(
            dict.fromkeys(turn.values())
        )
        return status.model_copy(
            update={"turn": names, "epoch": now.epoch, "step": now.step, "steps": now.steps}
        )

    @property
    def sent_bytes(self) -> int:
        """Bytes of the frames that left this process."""
        return self._disclosed.sent_bytes

    def _say(self, message: Message) -> None:
        self._connected().control(written(message))

    def _connected(self) -> Connection:
        if self.connection is None:
            raise StudyError("this party has no connection yet", party=self.part.party)
        return self.connection

    def _interrupt(self, error: CutlayerError) -> None:
        if self.connection is not None:
            self.connection.interrupt(error)

    def _close(self) -> None:
        try:
            self._snapshots.wait()
        except LogError as error:
            self.watcher.note(str(error))
        self._log.close()
        self.watcher.note(f"disclosure log closed; its head is {self._disclosed.close()}")


class _PartTrainer(Trainer):
    """A trainer of one party, whose snapshots the host is told of."""

    def __init__(self, participant: Participant, course: Course, settings: Settings) -> None:
        super().__init__(
            course,
            settings,
            participant._log,
            participant._snapshots,
            every=participant.part.every,
            timeout_s=math.inf,
            on_progress=lambda now: participant.watcher.progress(now, participant.sent_bytes),
            wary=True,
        )
        self._participant = participant

    def _epoch(self, epoch: int, first: int) -> None:
        if not first:
            self._participant._on_epoch(epoch)
        super()._epoch(epoch, first)

    def _memory(self) -> dict[str, Any]:
        return super()._memory() | {"threads": torch.get_num_threads()}

    def _keep(self, position: Position) -> None:
        self._participant.let_old_ones_go()
        try:
            super()._keep(position)
        except LogError as error:
            self._participant.watcher.note(
                f"{error}. Training goes on, and would go back further after a crash"
            )


class _ShownLog(RunLog):
    """A run's log whose events are shown, too."""

    def __init__(self, folder: Path, watcher: Watcher) -> None:
        super().__init__(folder, append=True)
        self._watcher = watcher

    def write(self, event: Event) -> None:
        super().write(event)
        self._watcher.event(event)


def _holdings_text(part: Part) -> str:
    if part.data is None:
        return f"{part.party} holds no records"
    rows = ", ".join(f"{split} {len(records)}" for split, records in part.data.splits.items())
    return f"{part.party} holds {rows} rows"
