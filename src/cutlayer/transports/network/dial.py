"""The dialling side: every party but the host."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

from cutlayer.errors import CutlayerError, IdentityError, TransportError, nearest
from cutlayer.keys.credentials import Credentials
from cutlayer.transports.network.carriers import carrier_of
from cutlayer.transports.network.carriers.meanings import Cause, Unreachable
from cutlayer.transports.network.carriers.reaching import reach
from cutlayer.transports.network.end import NetworkTransport
from cutlayer.transports.network.envelopes import CONTROL_LIMIT, Envelope, Lane, Violation, greeting
from cutlayer.transports.network.lines import Line, LineBroken, next_of
from cutlayer.transports.network.link import Link, Stream
from cutlayer.transports.network.reading import Ready
from cutlayer.transports.network.settings import NetworkSettings

__all__ = ["Dial"]

_NO_HUB = bytes(16)
_SUSPECT_BEATS = 2.5
"""After how many beats without a sign of life it is tried whether there is a way."""
_ENDING_S = 15.0
"""How long the threads may take to end: one may be looking up a name, which nothing interrupts."""


class Dial:
    """A party's connection to the host: dialled, and dialled again whenever it breaks, until refused.

    The callbacks come from threads of the connection; they should only note what came.

    Args:
        credentials: Whose end it is, and what proves it.
        address: Where the host listens, ``name:port``.
        host: The party that must listen there.
        names: All parties of the study, in the order that all of them are given.
        hello: Asked for the opaque words that begin every stream.
        on_control: Told each control message of the host.
        on_welcome: Told the host's answer to a hello, and whether its process is a new one.
        on_state: Told whether a stream is open and, if not, why.
        settings: Limits and times.

    Raises:
        TransportError: If the host or this party is not among the names.
    """

    def __init__(
        self,
        credentials: Credentials,
        address: str,
        host: str,
        names: Sequence[str],
        *,
        hello: Callable[[], bytes],
        on_control: Callable[[bytes], None],
        on_welcome: Callable[[bytes, bool], None],
        on_state: Callable[[bool, str], None],
        settings: NetworkSettings | None = None,
    ) -> None:
        self._credentials, self._address, self._host = credentials, address, host
        self._names = tuple(names)
        for name in (host, credentials.party):
            if name not in self._names:
                raise TransportError("no such party", got=repr(name), todo=nearest(name, self._names))
        self._hello, self._on_control = hello, on_control
        self._on_welcome, self._on_state = on_welcome, on_state
        self._settings = settings or NetworkSettings()
        self._place, self._host_place = self._names.index(credentials.party), self._names.index(host)
        self._incarnation, self._hub = os.urandom(16), _NO_HUB
        self._link = Link(self._settings)
        self.transport = NetworkTransport(
            credentials.party, self._names, lambda _: self._link, self._say_closed, self._settings
        )
        self._stopped = threading.Event()
        self._carrier = carrier_of(self._settings)
        self._line: Line | None = None
        self._gave_up = self._open = False
        self._told: set[str] = set()
        self._threads = [
            threading.Thread(target=work, name=f"cutlayer-dial-{credentials.party}", daemon=True)
            for work in (self._run, self._watch)
        ]

    def start(self) -> None:
        """Begin to dial, in the background."""
        for thread in self._threads:
            thread.start()

    def control(self, message: bytes) -> None:
        """Send a control message to the host; it is kept until there is a stream.

        Raises:
            TransportError: If it is too long.
        """
        if len(message) > CONTROL_LIMIT:
            raise TransportError(
                "a control message is too long",
                got=f"{len(message)} bytes",
                expected=f"at most {CONTROL_LIMIT}",
            )
        self._link.post(Lane.CONTROL, self._place, self._host_place, 0, message)

    def begin(self, generation: int) -> None:
        """Go on with the frames of ``generation``; drop those of older ones."""
        self._link.begin(generation)
        self.transport.begin(generation)

    def interrupt(self, error: CutlayerError) -> None:
        """Raise ``error`` from whatever waits in the transport, until `begin`."""
        self.transport.interrupt(error)

    def close(self, grace_s: float = 2.0) -> None:
        """Send what is left, for at most ``grace_s``, then hang up. Closing twice does nothing.

        A thread that does not end within 15 s is left to end with the process.
        """
        self.transport.close()
        until = time.monotonic() + grace_s
        while self._link.stream is not None and not self._link.idle and time.monotonic() < until:
            time.sleep(0.01)
        self._stopped.set()
        line = self._line
        if line is not None:
            line.cancel()
        until = time.monotonic() + _ENDING_S
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))

    # --- within ----------------------------------------------------------------------------------

    def _say_closed(self) -> None:
        self._link.post(Lane.CLOSED, self._place, self._host_place, self.transport.generation)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._visit()
                self._tell(False, self._why_ended())
            except LineBroken as error:
                self._tell(False, self._why_ended() if self._gave_up else self._why_broken(error))
            except IdentityError as error:
                self.transport.interrupt(error)
                self._tell(False, str(error))
                return
            except CutlayerError as error:
                self._tell(False, str(error))
            except Exception as error:  # the one thread that dials must not end unheard
                self._tell(False, f"the stream broke: {error!r}")
            self._stopped.wait(self._settings.pause_s)

    def _why_ended(self) -> str:
        """Return in words why no more came, though the line did not break."""
        if self._gave_up:
            return (Cause.GIVEN_UP if self._open else Cause.SILENT).words(self._address, self._host)
        if not self._open:
            return Cause.REFUSED.words(self._address, self._host)
        return f"the host {self._host!r} ended the stream"

    def _why_broken(self, error: LineBroken) -> str:
        """Return in words why the line broke; once it was open, certificates are not the reason."""
        if not self._open:
            return str(error)
        return f"{Cause.BROKE.words(self._address, self._host)} ({error.__cause__ or error})"

    def _visit(self) -> None:
        """Open a stream and read from it until it ends."""
        self._gave_up = False
        line = self._carrier.dial(self._credentials, self._address, self._host, self._settings)
        stream: Stream | None = None
        try:
            self._line = line
            if self._stopped.is_set():
                return
            hello = greeting(Lane.HELLO, self._link.received, self._incarnation + self._hub + self._hello())
            line.put(lambda: (hello, b""))
            line.flush()
            answer = next_of(line, _memory)
            if answer is None:
                return
            stream = self._welcomed(answer, line)
            line.flush()
            self._tell(True, "")
            self._link.read(stream, self._room, self._deliver)
        finally:
            self._line = None
            if stream is not None:
                self._link.detach(stream)
            line.cancel()
            line.finish()

    def _welcomed(self, envelope: Envelope, line: Line) -> Stream:
        self._check_refused(envelope)
        if envelope.lane == Lane.FULL:
            raise LineBroken(Cause.FULL.words(self._address, self._host))
        if envelope.lane != Lane.WELCOME or len(envelope.payload) < 16:
            raise Violation("the host did not answer the hello", party=self.transport.party)
        hub, answer = bytes(envelope.payload[:16]), bytes(envelope.payload[16:])
        new = hub != self._hub
        if new and self._hub != _NO_HUB:
            self._link.reset()
            for name in self._names:
                self.transport.forget(name)
        self._hub = hub
        self._on_welcome(answer, new)
        return self._link.attach(envelope.ack, line)

    def _check_refused(self, envelope: Envelope) -> None:
        if envelope.lane == Lane.REFUSED:
            raise IdentityError(
                f"the host refuses this party: {bytes(envelope.payload).decode(errors='replace')}",
                party=self.transport.party,
            )

    def _source_of(self, envelope: Envelope) -> str:
        if envelope.source >= len(self._names) or envelope.source == self._place:
            raise Violation("an envelope of an unknown party came", got=f"place {envelope.source}")
        return self._names[envelope.source]

    def _room(self, envelope: Envelope, size: int) -> memoryview:
        return self.transport.room(self._source_of(envelope), envelope, size)

    def _deliver(self, envelope: Envelope) -> Ready | None:
        source = self._source_of(envelope)
        if envelope.lane == Lane.DATA:
            return self.transport.deliver(source, envelope)
        if envelope.lane == Lane.CONTROL:
            self._on_control(bytes(envelope.payload))
        elif envelope.lane == Lane.CLOSED:
            self.transport.end_of(source, envelope.generation)
        elif envelope.lane != Lane.VOID:
            self._check_refused(envelope)
            raise Violation("an envelope of an unknown lane came", got=str(envelope.lane))
        return None

    def _watch(self) -> None:
        """Give up streams on which nothing comes."""
        silence_s = self._settings.silence_s
        while not self._stopped.wait(min(0.25, silence_s / 4)):
            line, stream = self._line, self._link.stream
            if line is None:
                continue
            if time.monotonic() - line.heard > self._link.patience_s:
                if stream is not None:
                    self._link.gave_up(stream)
                self._gave_up = True
                line.cancel()
            elif self._is_left_behind(line):
                self._gave_up = True
                line.cancel()

    def _is_left_behind(self, line: Line) -> bool:
        """Return whether a new connection gets through while the kernel still waits to try the old one again.

        After some seconds in the dark it waits seconds more, since it doubles its pauses.
        """
        if time.monotonic() - line.heard < _SUSPECT_BEATS * self._settings.beat_s or not line.stuck:
            return False
        heard = line.heard
        try:
            reach(self._address, self._settings.connect_s).close()
        except Unreachable:
            return False
        return line.heard == heard and line.stuck

    def _tell(self, connected: bool, why: str) -> None:
        """Tell the state, and each reason why there is no stream only once until there is one."""
        self._open = connected
        if connected:
            self._told.clear()
        elif self._stopped.is_set() or why in self._told:
            return
        else:
            self._told.add(why)
        self._on_state(connected, why)


def _memory(envelope: Envelope, size: int) -> memoryview:
    return memoryview(bytearray(size))
