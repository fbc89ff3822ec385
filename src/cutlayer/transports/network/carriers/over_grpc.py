"""gRPC with mutual TLS: one bidirectional stream of raw bytes a party, for networks that want HTTP/2."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from queue import Empty, SimpleQueue
from typing import Any

import grpc

from cutlayer.keys.credentials import Credentials
from cutlayer.transports.network.carriers.meanings import Cause
from cutlayer.transports.network.envelopes import CONTROL_LIMIT, HEADER, Envelope
from cutlayer.transports.network.lines import Line, LineBroken, Listening, Parcel, Room
from cutlayer.transports.network.settings import NetworkSettings

__all__ = ["GrpcLine", "GrpcListener", "dial_grpc"]

_METHOD = "/cutlayer.Network/Stream"
_LINGER_S = 2.0
_BOTH: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", CONTROL_LIMIT + HEADER.size),
    ("grpc.max_send_message_length", CONTROL_LIMIT + HEADER.size),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


def dial_grpc(credentials: Credentials, address: str, host: str, settings: NetworkSettings) -> GrpcLine:
    """Return a line to ``address``; see `cutlayer.transports.network.lines.Carrier`."""
    connect_ms = int(settings.connect_s * 1000)
    options = [
        *_BOTH,
        ("grpc.ssl_target_name_override", host),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.min_reconnect_backoff_ms", connect_ms),
        ("grpc.initial_reconnect_backoff_ms", connect_ms),
        ("grpc.max_reconnect_backoff_ms", connect_ms),
    ]
    roots = credentials.known_certificate(host) or credentials.authority
    secure = grpc.ssl_channel_credentials(roots, credentials.key, credentials.certificate)
    channel = grpc.secure_channel(address, secure, options)
    line = GrpcLine(address, b"", lambda error: _cause_of(error).words(address, host))
    call = channel.stream_stream(_METHOD)(line.leaving())

    def hang_up() -> None:
        call.cancel()
        channel.close()

    line.begin(call, hang_up, hang_up)
    return line


class GrpcListener:
    """A gRPC server with one method; every stream has a thread of its own."""

    def __init__(self, listening: Listening) -> None:
        credentials, hello_ms = listening.credentials, int(listening.settings.hello_s * 1000)
        options = [
            *_BOTH,
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.server_handshake_timeout_ms", hello_ms),
            ("grpc.max_connection_idle_ms", hello_ms),
            ("grpc.max_metadata_size", 8192),
        ]
        self._server = grpc.server(_ThreadEach(1), options=options, maximum_concurrent_rpcs=listening.most)
        self._server.add_generic_rpc_handlers((_Handler(listening.serve),))
        secure = grpc.ssl_server_credentials(
            [(credentials.key, credentials.certificate)], credentials.authority, True
        )
        try:
            self.port = int(self._server.add_secure_port(listening.address, secure))
        except RuntimeError as error:
            raise listening.refused(error) from error
        self._server.start()

    def stop(self) -> None:
        """Listen no more, end every line."""
        self._server.stop(1.0).wait()


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The one method: a line to be served."""

    def __init__(self, serve: Callable[[Line], None]) -> None:
        self._serve = serve
        self._method = grpc.stream_stream_rpc_method_handler(self._stream)

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of the one method; nothing else is served."""
        return self._method if handler_call_details.method == _METHOD else None

    def _stream(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        shown = context.auth_context().get("x509_pem_cert")
        line = GrpcLine(
            str(context.peer()), bytes(shown[0]) if shown else b"", lambda error: f"its stream broke: {error}"
        )
        line.begin(requests, context.cancel, lambda: None)
        context.add_callback(line.lost)

        def work() -> None:
            try:
                self._serve(line)
            finally:
                line.finish()

        threading.Thread(target=work, name="cutlayer-line", daemon=True).start()
        yield from line.leaving()


class GrpcLine:
    """One stream of gRPC; see `cutlayer.transports.network.lines.Line`."""

    def __init__(self, peer: str, certificate: bytes, broke: Callable[[Exception], str]) -> None:
        self.peer, self.certificate, self._broke = peer, certificate, broke
        self.heard = time.monotonic()
        self._parcels: SimpleQueue[Parcel | None] = SimpleQueue()
        self._beat: Parcel | None = None
        self._beat_s: float | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._left = threading.Event()
        self.over, self.blocks = False, True

    def begin(
        self, messages: Iterator[bytes], hang_up: Callable[[], object], at_end: Callable[[], object]
    ) -> None:
        """Say where messages come from, how the stream is ended at once, and what to do once all has left."""
        self._messages, self._hang_up, self._at_end = messages, hang_up, at_end

    @property
    def stuck(self) -> bool:
        """Not known: the connection is gRPC's."""
        return False

    def put(self, parcel: Parcel | None) -> None:
        """Let an envelope leave; gRPC's own thread takes it from here."""
        self._parcels.put(parcel)

    def flush(self) -> None:
        """Do nothing: what was put leaves by itself."""

    def keep_alive(self, beat: Parcel, every_s: float) -> None:
        """Send ``beat`` whenever nothing else has left for ``every_s`` seconds."""
        self._beat_s = every_s
        self._beat = beat
        self.put(beat)

    def leaving(self) -> Iterator[bytes]:
        """Yield what is to leave, and signs of life."""
        try:
            while True:
                try:
                    parcel = self._parcels.get(timeout=self._beat_s)
                except Empty:
                    parcel = self._beat
                if parcel is None:
                    return
                yield b"".join(parcel())
        finally:
            self._left.set()

    def take(self, room: Room) -> Envelope | None:
        """Wait for the next envelope; see `Line.take`."""
        try:
            message = next(self._messages, None)
        except Exception as error:  # a server's requests end with a bare one when the other side is gone
            self.over = True
            if self._closed and isinstance(error, grpc.RpcError):
                return None
            raise LineBroken(self._broke(error)) from error
        if message is None:
            self.over = True
            return None
        self.heard = time.monotonic()
        came = Envelope.parse(message)
        if not came.payload:
            return came
        memory = room(came._replace(payload=_NO_BYTES), len(came.payload))
        with self._lock:
            if self._closed:
                self.over = True
                return None
            memory[:] = came.payload
        return came._replace(payload=memory)

    def wait(self, until: float) -> None:
        """Do nothing: `take` waits."""

    def ring(self) -> None:
        """Do nothing: nobody but gRPC can wake whoever waits in it."""

    def lost(self) -> None:
        """Note that the other side is gone."""
        self._closed = True
        self.put(None)

    def cancel(self) -> None:
        """End the stream at once."""
        with self._lock:
            self._closed = True
        self.put(None)
        with contextlib.suppress(Exception):
            self._hang_up()

    def finish(self) -> None:
        """Let what was put leave, then end the stream."""
        self.put(None)
        self._left.wait(_LINGER_S)
        self._closed = True
        self._at_end()


_NO_BYTES = memoryview(b"")


def _cause_of(error: Exception) -> Cause:
    """Return what gRPC's failure means."""
    if not isinstance(error, grpc.RpcError):
        return Cause.BROKE
    code, details = error.code(), str(error.details() or "").lower()
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Cause.FULL
    if code == grpc.StatusCode.CANCELLED:
        return Cause.SILENT
    for cause, *marks in _MARKS:
        if any(mark in details for mark in marks):
            return cause
    return Cause.BROKE


_MARKS = (
    (Cause.FOREIGN, "certificate_verify_failed"),
    (Cause.OTHER_PARTY, "hostname verification", "peer name"),
    (Cause.PROXY, "http proxy returned"),
    (Cause.NOBODY, "connection refused"),
    (Cause.UNKNOWN_NAME, "resolving", "resolution", "lookup"),
    (Cause.NO_TLS, "wrong_version_number"),
    (Cause.OTHER_CARRIER, "alpn", "application protocol"),
    (
        Cause.SILENT,
        "timed out",
        "timeout",
        "endpoint closing",
        "handshaker shutdown",
        "unreachable",
        "no route",
    ),
    (Cause.REFUSED, "socket closed", "connection reset", "handshak"),
)


class _ThreadEach(futures.ThreadPoolExecutor):
    """Runs every stream in a thread of its own, which does not keep the process from ending."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        """Run ``fn`` in a new thread."""
        future: futures.Future[Any] = futures.Future()

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, name="cutlayer-stream", daemon=True).start()
        return future
