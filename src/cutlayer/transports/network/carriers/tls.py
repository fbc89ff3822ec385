"""Mutual TLS by itself: the carrier that costs least; only TLS 1.3, only certificates of the study."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator

from cutlayer.errors import IdentityError
from cutlayer.keys.credentials import Credentials
from cutlayer.transports.network.carriers.meanings import Cause, Unreachable
from cutlayer.transports.network.carriers.reaching import parts_of, reach
from cutlayer.transports.network.carriers.tls_line import TlsLine
from cutlayer.transports.network.envelopes import Lane, greeting
from cutlayer.transports.network.lines import LineBroken, Listening
from cutlayer.transports.network.settings import NetworkSettings

__all__ = ["TlsListener", "dial_tls"]

_PROTOCOL = "cutlayer/1"
_NO_TLS = {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"}
_FROM_IPV4 = "::ffff:"
_MOST_NEW = 256
"""Connections that have shown no certificate yet; beyond that the oldest of them is closed."""


class _Stream(ssl.SSLSocket):
    """A TLS socket that is closed when the other side hung up before the handshake; Python leaves that one open."""

    def getpeername(self) -> object:
        """Return the other side's address; without one there is nothing to shake hands with."""
        try:
            return super().getpeername()
        except OSError:
            self.close()
            raise


def dial_tls(credentials: Credentials, address: str, host: str, settings: NetworkSettings) -> TlsLine:
    """Return a line to ``address``; see `cutlayer.transports.network.lines.Carrier`."""

    def words(error: Exception | None) -> str:
        return _cause_of(error).words(address, host)

    try:
        connection = reach(address, settings.connect_s)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(connection.close)
            stream = _context(credentials, server=False).wrap_socket(connection)
            on_failure.callback(stream.close)
            _check_host(stream, credentials, host)
            on_failure.pop_all()
            return TlsLine(stream, address, words)
    except Unreachable as error:
        raise LineBroken(error.cause.words(address, host)) from error
    except OSError as error:
        raise LineBroken(words(error)) from error


class TlsListener:
    """Accepts connections and gives each a thread, in which it shows its certificate and is served."""

    def __init__(self, listening: Listening) -> None:
        self._context = _context(listening.credentials, server=True)
        self._listening = listening
        try:
            self._listener = _listen_at(*parts_of(listening.address))
        except (OSError, OverflowError, Unreachable) as error:
            raise listening.refused(error) from error
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._new: dict[socket.socket, None] = {}
        self._lines: set[TlsLine] = set()
        self._leaving: set[TlsLine] = set()
        self._threads: set[threading.Thread] = set()
        self._stopped = False
        self._accepting = threading.Thread(target=self._accept, name="cutlayer-listen", daemon=True)
        self._accepting.start()

    def stop(self) -> None:
        """Listen no more, end every line."""
        self._stopped = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        with self._lock:
            new, lines, threads = list(self._new), [*self._lines, *self._leaving], list(self._threads)
        for connection in new:
            _hang_up(connection)
        for line in lines:
            line.cancel()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(5.0)

    def _accept(self) -> None:
        while not self._stopped:
            try:
                connection, address = self._listener.accept()
            except OSError:
                if not self._stopped:
                    self._make_room()  # most likely no descriptor is left
                    threading.Event().wait(0.05)
                continue
            thread = threading.Thread(
                target=self._meet, args=(connection, address), name="cutlayer-line", daemon=True
            )
            with self._lock:
                self._new[connection] = None
                crowded = len(self._new) > _MOST_NEW
            if crowded:
                self._make_room()
            self._begin(thread, connection)

    def _begin(self, thread: threading.Thread, connection: socket.socket) -> None:
        """Start the thread of a connection; where there can be no more threads, there is no connection."""
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self._new.pop(connection, None)
                self._threads.discard(thread)
            connection.close()
            self._make_room()

    def _make_room(self) -> None:
        """Close the connection that has been the longest without showing a certificate."""
        with self._lock:
            oldest = next(iter(self._new), None)
            self._new.pop(oldest, None)  # type: ignore[arg-type]
        if oldest is not None:
            _hang_up(oldest)

    def _meet(self, connection: socket.socket, address: tuple[object, ...]) -> None:
        peer = f"{str(address[0]).removeprefix(_FROM_IPV4)}:{address[1]}"
        try:
            line = self._line(connection, peer)
            if line is None:
                return
            try:
                with self._lock:
                    self._lines.add(line)
                    full = len(self._lines) > self._listening.most
                if full:
                    line.put(lambda: (greeting(Lane.FULL, 0, b""), b""))
                elif not self._stopped:
                    self._listening.serve(line)
            finally:
                self._see_off(line)
        finally:
            with self._lock:
                self._new.pop(connection, None)
                self._threads.discard(threading.current_thread())

    def _see_off(self, line: TlsLine) -> None:
        """Let the other side take what was said, which may last; that takes no place from those who come."""
        with self._lock:
            self._lines.discard(line)
            self._leaving.add(line)
            crowded = len(self._leaving) > self._listening.most
        if crowded:
            line.cancel()
        line.finish()
        with self._lock:
            self._leaving.discard(line)

    def _line(self, connection: socket.socket, peer: str) -> TlsLine | None:
        """Return the line once the other side has shown a certificate of the study."""
        try:
            connection.settimeout(self._listening.settings.hello_s)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = self._context.wrap_socket(connection, server_side=True)
        except (OSError, ValueError) as error:
            if isinstance(error, ssl.SSLCertVerificationError):
                self._listening.on_incident(peer, f"its certificate does not hold: {error.verify_message}")
            connection.close()
            return None
        with self._lock:
            self._new.pop(connection, None)
        if stream.selected_alpn_protocol() != _PROTOCOL:
            stream.close()
            return None
        return TlsLine(stream, peer, lambda error: f"the connection of {peer} broke: {error!r}")


def _context(credentials: Credentials, *, server: bool) -> ssl.SSLContext:
    """Return TLS's settings for one side: TLS 1.3, and certificates of the study at both."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _Stream
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the name is a party's, not a machine's: see _check_host
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=credentials.authority.decode())
    context.set_alpn_protocols([_PROTOCOL])
    if server:
        context.num_tickets = 0
    with _as_file(credentials.certificate + b"\n" + credentials.key) as path:
        context.load_cert_chain(path)
    return context


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Yield a path under which OpenSSL can read ``content``; in memory where the system can do that."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("cutlayer")
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as file:  # only its owner may read it
            file.write(content)
            file.flush()
            yield file.name


def _check_host(stream: ssl.SSLSocket, credentials: Credentials, host: str) -> None:
    """Refuse whoever is not the host, though its certificate is one of the study."""
    shown = stream.getpeercert(binary_form=True) or b""
    try:
        name = credentials.verify(ssl.DER_cert_to_PEM_cert(shown).encode())
    except IdentityError as error:
        raise LineBroken(str(error)) from error
    if name != host:
        raise Unreachable(Cause.OTHER_PARTY)
    known = credentials.known_certificate(host)
    if known is not None and ssl.PEM_cert_to_DER_cert(known.decode()) != shown:
        raise Unreachable(Cause.OTHER_CERTIFICATE)
    if stream.selected_alpn_protocol() != _PROTOCOL:
        raise Unreachable(Cause.OTHER_CARRIER)


def _cause_of(error: Exception | None) -> Cause:
    """Return what a failure of the connection means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Cause.FOREIGN
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if reason in _NO_TLS:
            return Cause.NO_TLS
        return Cause.OTHER_CARRIER if "PROTOCOL" in reason else Cause.REFUSED
    if isinstance(error, TimeoutError):
        return Cause.SILENT
    return Cause.REFUSED if error is not None else Cause.BROKE


def _listen_at(name: str, port: int) -> socket.socket:
    """Return a listener; one at ``::`` takes IPv4 too where the system can do both."""
    if ":" not in name:
        return socket.create_server((name, port), backlog=512)
    both = name == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((name, port), family=socket.AF_INET6, backlog=512, dualstack_ipv6=both)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
