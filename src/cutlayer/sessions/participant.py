"""One party's part in a study: report, restore, perform, and once more whenever the roll is called."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

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
from ..runtime.positions import Position
from ..schedules.calendar import Batch
from .guarded import GuardedTransport
from .keeping import Keeping
from .messages import (
    Accuse,
    Bye,
    Done,
    Go,
    Held,
    Hello,
    Keep,
    Message,
    Ready,
    RollCall,
    Status,
    Stop,
    read_message,
    written,
)
from .orders import check_go
from .part import Connection, Part, Watcher
from .part_training import PartTrainer, begun_log
from .roster import offer_of

__all__ = ["Connection", "Part", "Participant", "Watcher"]

_FINISHED = "finished"


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
        self._proved: list[dict[str, int]] = []
        self._disclosed = DisclosureLog(part.folder, part.party, study=study.digest)
        self._log = begun_log(part, watcher)
        self._keeping = Keeping(part.folder, self._tell_held)
        self._trainer: PartTrainer | None = None

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
                self._keeping.keep_from(Position(*message.position))
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
                        self._keeping.keep_the_last()
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
        self._keeping.keep_the_last()
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
            self._keeping.snapshots.wait()
        except LogError as error:
            self.watcher.note(str(error))
        self._keeping.look()
        if call.back_to is not None and not self._keeping.is_gone(Position(*call.back_to)):
            self._keeping.back_to(Position(*call.back_to))
        self._say(Ready(generation=call.generation, positions=self._keeping.places))

    def _perform(self, go: Go) -> None:
        """Go on from where the host says, to the end or the next roll call."""
        with self._lock:
            if go.generation < self._called:
                return
            self._connected().begin(go.generation)
        guarded = GuardedTransport(self._connected().transport, self.part.host, self.sealer, self._disclosed)
        try:
            cards = {name: KeyCard.from_json(card) for name, card in go.cards.items()}
            self.sealer.meet(cards, go.generation)
            trainer = self._trainer_for(go, guarded)
            trainer.train(Position(*go.position))
            self._keeping.snapshots.wait()
            trainer.write_half()
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
        self._tell_held()
        self._say(Done(generation=go.generation))

    def _trainer_for(self, go: Go, guarded: GuardedTransport) -> PartTrainer:
        """Return a trainer with this party as it was where the host says that all go on."""
        check_go(go, self.part, self._offer, gone=self._keeping.is_gone(Position(*go.position)))
        if go.rows != self._proved:
            self.part.study.prove(go.rows)
            self._proved = go.rows
        trainer = self._trainer = PartTrainer(
            self.part, go, self._log, self._keeping, self.watcher,
            sent_bytes=lambda: self.sent_bytes, on_epoch=self._on_epoch,
        )  # fmt: skip
        trainer.seat(guarded, self.sealer)
        return trainer

    def _tell_held(self) -> None:
        """One more snapshot is safe: the host may count on it."""
        if self.connection is not None:
            self.connection.control(written(Held(positions=self._keeping.places)))

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
            self._keeping.snapshots.wait()
        except LogError as error:
            self.watcher.note(str(error))
        self._log.close()
        self.watcher.note(f"disclosure log closed; its head is {self._disclosed.close()}")
