"""What hub and dial tell gRPC: one method of raw bytes, keepalive, limits; and its failures in words."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc

from cutlayer.keys.credentials import Credentials
from cutlayer.transports.network.envelopes import CONTROL_LIMIT, HEADER
from cutlayer.transports.network.settings import NetworkSettings

__all__ = ["METHOD", "SERVICE", "ThreadEach", "client_channel", "explain", "server_options"]

SERVICE = "cutlayer.Network"
METHOD = f"/{SERVICE}/Stream"

_BOTH: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", CONTROL_LIMIT + HEADER.size),
    ("grpc.max_send_message_length", CONTROL_LIMIT + HEADER.size),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


def server_options(settings: NetworkSettings) -> list[tuple[str, int | str]]:
    """Return the options of a hub's server."""
    return [
        *_BOTH,
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.server_handshake_timeout_ms", int(settings.hello_s * 1000)),
        ("grpc.max_connection_idle_ms", int(settings.hello_s * 1000)),
        ("grpc.max_metadata_size", 8192),
    ]


def client_channel(credentials: Credentials, address: str, host: str, settings: NetworkSettings) -> Any:
    """Return a new channel to ``address``, where only ``host`` is accepted; if its certificate is known, only that."""
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
    return grpc.secure_channel(address, secure, options)


def explain(error: grpc.RpcError, address: str, host: str, was_open: bool = False) -> str:
    """Return what gRPC's failure means and what to do.

    Args:
        error: What gRPC raised.
        address: Where the host should listen.
        host: Its party's name.
        was_open: Whether the stream had been open, so that nothing can be wrong with certificates.
    """
    code, details = error.code(), str(error.details() or "")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return f"{address} serves as many parties as it can; try again later"
    if code == grpc.StatusCode.CANCELLED:
        if not was_open:
            return _SILENT.format(address=address, host=host)
        return f"the stream to the host {host!r} at {address} was silent and was given up"
    if was_open:
        return f"the stream to the host {host!r} at {address} broke ({details})"
    for words, *marks in _MEANINGS:
        if any(mark in details.lower() for mark in marks):
            return words.format(address=address, host=host)
    return f"no stream to {address}: {code.name} {details}"


_SILENT = (
    "{address} does not answer; is the host {host!r} running, and does a firewall let this port through?"
)
_MEANINGS = (
    (
        "what listens at {address} shows a certificate that this study's authority has not signed, or that"
        " has expired; check the address, and compare authority.pem with the host's: `cutlayer keys show`",
        "certificate_verify_failed",
    ),
    (
        "what listens at {address} is a party of this study but not its host {host!r}; check the address",
        "hostname verification",
        "peer name",
    ),
    (
        "the proxy (https_proxy) does not connect to {address}; may it, and is the host {host!r} running?",
        "http proxy returned",
    ),
    (
        "nobody listens at {address}; is the host {host!r} running, and does the address name its port?",
        "connection refused",
    ),
    (
        "the name in {address} is not known; check the spelling and this machine's name service",
        "resolving",
        "resolution",
        "lookup",
    ),
    (
        "what listens at {address} does not speak TLS, so it is no host of cutlayer; check address and port",
        "wrong_version_number",
    ),
    (_SILENT, "timed out", "timeout", "endpoint closing", "handshaker shutdown", "unreachable", "no route"),
    (
        "the host at {address} refused this certificate, or it is no host of cutlayer; check that the"
        " certificate is of this study and has not expired: `cutlayer keys show`",
        "socket closed",
        "connection reset",
        "handshak",
    ),
)


class ThreadEach(futures.ThreadPoolExecutor):
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
