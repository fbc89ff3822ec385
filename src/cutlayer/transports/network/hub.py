"""The listening side: the host, through which all parties reach each other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

from cutlayer.errors import CutlayerError, IdentityError, TransportError, nearest
from cutlayer.keys.credentials import Credentials
from cutlayer.transports.base import aligned_buffer
from cutlayer.transports.network.carriers import carrier_of
from cutlayer.transports.network.end import NetworkTransport
from cutlayer.transports.network.envelopes import (
    CONTROL_LIMIT,
    FIRST,
    Envelope,
    Lane,
    Violation,
    greeting,
)
from cutlayer.transports.network.guests import Guest, Visit
from cutlayer.transports.network.lines import Line, LineBroken, Listener, Listening, next_of
from cutlayer.transports.network.link import Stream
from cutlayer.transports.network.reading import Ready
from cutlayer.transports.network.settings import NetworkSettings

__all__ = ["Hub"]

_STREAMS_EACH = 4
_MOST_UNCONFIRMED = 10_000
_LONGEST_REFUSAL = 4000


class Hub:
    """Listens, knows the parties by their certificates, relays between them, and is the host's end.

    The callbacks come from threads of the hub; they should only note what came, and not wait.

    Args:
        credentials: The host's.
        address: Where to listen, ``name:port``; port 0 takes any that is free.
        names: All parties of the study, in the order that all of them are given.
        admit: Asked whether a party may come in, with the opaque words of its hello; returns an
            opaque answer or raises a CutlayerError, whose message the party is told.
        on_control: Told each party's control messages. A CutlayerError from it drops the party.
        on_presence: Told a party, the incarnation of its process, and whether it is connected.
        on_incident: Told who (a party or an address) did what it must not do.
        allowed: Whether frames from one party to another are relayed; all are by default.
        settings: Limits and times.

    Raises:
        TransportError: If the host is not among the names.
    """

    def __init__(
        self,
        credentials: Credentials,
        address: str,
        names: Sequence[str],
        *,
        admit: Callable[[str, bytes], bytes],
        on_control: Callable[[str, bytes], None],
        on_presence: Callable[[str, bytes, bool], None],
        on_incident: Callable[[str, str], None],
        allowed: Callable[[str, str], bool] | None = None,
        settings: NetworkSettings | None = None,
    ) -> None:
        self._credentials, self._address, self._names = credentials, address, tuple(names)
        self.party = credentials.party
        if self.party not in self._names:
            raise TransportError("no such party", got=repr(self.party), todo=nearest(self.party, self._names))
        self._admit, self._on_control = admit, on_control
        self._on_presence, self._on_incident = on_presence, on_incident
        self._allowed = allowed or (lambda source, target: True)
        self._settings = settings or NetworkSettings()
        self._place = self._names.index(self.party)
        self._guests = {
            name: Guest(name, place, self._settings)
            for place, name in enumerate(self._names)
            if name != self.party
        }
        self._incarnation = os.urandom(16)
        self._generation = 0
        self._dropped_any = False
        self.transport = NetworkTransport(
            self.party, self._names, lambda name: self._guests[name].link, self._say_closed, self._settings
        )
        self._visits: set[Visit] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="cutlayer-hub", daemon=True)
        self._listener: Listener | None = None

    # --- what the host calls ---------------------------------------------------------------------

    def start(self) -> int:
        """Begin to listen; return the port.

        Raises:
            TransportError: If the address cannot be listened at.
        """
        listening = Listening(
            credentials=self._credentials,
            address=self._address,
            settings=self._settings,
            most=2 * len(self._names) + 16,
            serve=self._serve,
            on_incident=self._on_incident,
        )
        self._listener = carrier_of(self._settings).listen(listening)
        self._watcher.start()
        return self._listener.port

    @property
    def present(self) -> frozenset[str]:
        """The parties that are connected."""
        return frozenset(name for name, guest in self._guests.items() if guest.link.stream is not None)

    def control(self, party: str, message: bytes) -> None:
        """Send a control message to ``party``; it is kept until there is a stream.

        Raises:
            TransportError: If there is no such party or the message is too long.
        """
        if len(message) > CONTROL_LIMIT:
            raise TransportError(
                "a control message is too long",
                got=f"{len(message)} bytes",
                expected=f"at most {CONTROL_LIMIT}",
            )
        guest = self._guest(party)
        if guest.link.unconfirmed > _MOST_UNCONFIRMED and not guest.refusal():
            self._on_incident(party, "it does not confirm what it is sent")
            self.drop(party, "it does not confirm what it is sent")
        guest.link.post(Lane.CONTROL, self._place, guest.place, 0, message)

    def call_off(self, generation: int) -> None:
        """Drop what is under way of generations before ``generation``; the host's own end goes on as it is."""
        for guest in self._guests.values():
            guest.link.begin(generation)

    def begin(self, generation: int) -> None:
        """Go on with the frames of ``generation``; drop those of older ones everywhere."""
        self._generation = generation
        self.call_off(generation)
        self.transport.begin(generation)

    def interrupt(self, error: CutlayerError) -> None:
        """Raise ``error`` from whatever waits in the host's own transport, until `begin`."""
        self.transport.interrupt(error)

    def drop(self, party: str, reason: str) -> None:
        """End the stream of ``party``, tell it why, and refuse it for a while: see `Guest.refuse`."""
        guest = self._guest(party)
        self._dropped_any = True
        guest.refuse(reason)
        stream = guest.link.stream
        if stream is not None:
            stream.end(_refused(guest.refusal()))

    def close(self, grace_s: float = 2.0) -> None:
        """Send what is left, for at most ``grace_s``, then end all streams. Closing twice does nothing."""
        self.transport.close()
        until = time.monotonic() + grace_s
        links = [guest.link for guest in self._guests.values()]
        while time.monotonic() < until and any(link.stream and not link.idle for link in links):
            time.sleep(0.01)
        if self._listener is None or self._stopped.is_set():
            return
        self._stopped.set()
        for link in links:
            if link.stream is not None:
                link.stream.end()
        self._listener.stop()
        self._watcher.join()

    # --- streams ---------------------------------------------------------------------------------

    def _serve(self, line: Line) -> None:
        """Serve one line until it is over."""
        visit = Visit(line)
        with self._lock:
            self._visits.add(visit)
        try:
            self._welcome(visit)
            if visit.guest is not None and visit.stream is not None:
                self._read(visit.guest, visit.stream)
        finally:
            self._left(visit)

    def _welcome(self, visit: Visit) -> None:
        """Answer the hello; the visit has a stream if the party may come in."""
        who = visit.line.peer
        try:
            who = visit.party = self._credentials.verify(visit.certificate)
            guest = self._guests.get(who)
            if guest is None:
                raise IdentityError(f"{who!r} does not take part in this study as a party that joins")
            self._only_the_latest(visit)
            hello = next_of(visit.line, _memory)
            if hello is None:
                return
            if hello.lane != Lane.HELLO or len(hello.payload) < 32:
                raise Violation("the stream did not begin with a hello")
            self._enter(visit, guest, hello)
        except LineBroken:
            return
        except CutlayerError as error:
            self._on_incident(who, str(error))
            visit.say(_refused(str(error)))

    def _only_the_latest(self, visit: Visit) -> None:
        """End older lines of the same party that have not come in: their process has given them up, most likely."""
        with self._lock:
            older = [
                other
                for other in self._visits
                if other.party == visit.party and other.stream is None and other is not visit
            ]
        older.sort(key=lambda other: other.began)
        for other in older[:-_STREAMS_EACH]:
            other.line.cancel()

    def _enter(self, visit: Visit, guest: Guest, hello: Envelope) -> None:
        incarnation, words = bytes(hello.payload[:16]), bytes(hello.payload[32:])
        with guest.lock:  # who was admitted last is who comes in last
            refusal = guest.refusal(incarnation)
            if refusal:
                return visit.say(_refused(refusal))
            try:
                answer = self._admit(guest.name, words)
            except CutlayerError as error:
                return visit.say(_refused(str(error)))
            began = guest.incarnation is not None
            new = guest.enter(incarnation)
            if new and began:
                self.transport.forget(guest.name)
            welcome = greeting(Lane.WELCOME, guest.link.received, self._incarnation + answer)
            visit.line.put(lambda: (welcome, b""))
            visit.stream = guest.link.attach(0 if new else hello.ack, visit.line)
            visit.guest = guest
            self._on_presence(guest.name, incarnation, True)
        visit.line.flush()
        return None

    def _read(self, guest: Guest, stream: Stream) -> None:
        try:
            guest.link.read(
                stream,
                lambda envelope, size: self._room(guest, envelope, size),
                lambda envelope: self._deliver(guest, envelope),
            )
        except (_Dropped, LineBroken):
            pass
        except CutlayerError as error:
            self._on_incident(guest.name, str(error))
            self.drop(guest.name, str(error))
        except Exception as error:
            self._on_incident(guest.name, f"its stream broke: {error!r}")
            self.drop(guest.name, "its stream broke")
        finally:
            stream.end()

    def _left(self, visit: Visit) -> None:
        with self._lock:
            self._visits.discard(visit)
        guest, stream = visit.guest, visit.stream
        if guest is None or stream is None:
            return
        with guest.lock:
            if guest.link.detach(stream) and guest.incarnation is not None:
                self._on_presence(guest.name, guest.incarnation, False)

    # --- envelopes -------------------------------------------------------------------------------

    def _check(self, guest: Guest, envelope: Envelope) -> None:
        if self._dropped_any:  # else nobody that has come in is refused
            refusal = guest.refusal()
            if refusal:
                raise _Dropped(refusal)
        if envelope.source != guest.place:
            raise Violation("it sent in another party's name", got=f"place {envelope.source}")

    def _room(self, guest: Guest, envelope: Envelope, size: int) -> memoryview:
        """Return where a chunk goes that ``guest`` begins to send, if it may."""
        self._check(guest, envelope)
        if envelope.target == self._place:
            return self.transport.room(guest.name, envelope, size)
        self._addressee(guest, envelope)
        if envelope.generation >= self._generation:
            guest.chunks.where(envelope.target, envelope, size)
        return aligned_buffer(size)

    def _deliver(self, guest: Guest, envelope: Envelope) -> Ready | None:
        self._check(guest, envelope)
        if envelope.lane == Lane.DATA:
            return self._pass_on(guest, envelope)
        if envelope.lane == Lane.CONTROL:
            guest.pace.take_message(len(envelope.payload))
            self._on_control(guest.name, bytes(envelope.payload))
        elif envelope.lane == Lane.CLOSED:
            guest.pace.take(len(self._names))
            if envelope.generation <= guest.closed:
                return None
            guest.closed = envelope.generation
            self.transport.end_of(guest.name, envelope.generation)
            for other in self._guests.values():
                if other is not guest:
                    other.link.post(Lane.CLOSED, guest.place, other.place, envelope.generation)
        elif envelope.lane != Lane.VOID:
            raise Violation("an envelope of an unknown lane came", got=str(envelope.lane))
        return None

    def _pass_on(self, guest: Guest, envelope: Envelope) -> Ready | None:
        if envelope.target == self._place:
            return self.transport.deliver(guest.name, envelope)
        target = self._addressee(guest, envelope)
        size = len(envelope.payload)
        if envelope.generation < self._generation:
            guest.link.consume(guest.place, size, envelope.flags & FIRST)
            return None
        start = guest.chunks.place(envelope.target, envelope)
        target.link.relay(envelope, start + size == envelope.total, guest.link)
        return None

    def _addressee(self, guest: Guest, envelope: Envelope) -> Guest:
        """Return for whom a frame is that ``guest`` sends to somebody else than the host, if it may."""
        if envelope.target >= len(self._names) or envelope.target == guest.place:
            raise Violation("a frame for nobody came", got=f"place {envelope.target}")
        target = self._guests[self._names[envelope.target]]
        if not self._allowed(guest.name, target.name):
            raise Violation(f"it may not send frames to {target.name!r} in this study")
        return target

    def _say_closed(self) -> None:
        for guest in self._guests.values():
            guest.link.post(Lane.CLOSED, self._place, guest.place, self.transport.generation)

    # --- watching --------------------------------------------------------------------------------

    def _watch(self) -> None:
        """End streams that say no hello, are silent, or whose certificate is no longer good."""
        pause_s = min(0.5, self._settings.silence_s / 4)
        while not self._stopped.wait(pause_s):
            with self._lock:
                visits = list(self._visits)
            for visit in visits:
                self._look_at(visit, time.monotonic())

    def _look_at(self, visit: Visit, now: float) -> None:
        settings = self._settings
        if visit.stream is None or visit.guest is None:
            if now - visit.began > settings.hello_s:
                self._on_incident(visit.line.peer, f"said no hello within {settings.hello_s:g} s")
                visit.line.cancel()
            return
        link, silent_s = visit.guest.link, now - visit.stream.heard
        if silent_s > link.patience_s or (visit.stream.ended and now > visit.stream.ended + 2):
            if not visit.stream.ended:
                link.gave_up(visit.stream)
            visit.line.cancel()
            self._left(visit)
        elif now - visit.checked > settings.recheck_s:
            visit.checked = now
            try:
                self._credentials.verify(visit.certificate)
            except IdentityError as error:
                self._on_incident(visit.guest.name, str(error))
                visit.stream.end(_refused(str(error)))

    def _guest(self, party: str) -> Guest:
        if party not in self._guests:
            raise TransportError(
                "no such party", party=self.party, got=repr(party), todo=nearest(party, tuple(self._guests))
            )
        return self._guests[party]


class _Dropped(Exception):
    """Something came from a party that was dropped before."""


def _refused(why: str) -> bytes:
    return greeting(Lane.REFUSED, 0, why[:_LONGEST_REFUSAL].encode(errors="replace"))


def _memory(envelope: Envelope, size: int) -> memoryview:
    return memoryview(bytearray(size))
