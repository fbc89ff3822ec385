"""An HTTP proxy as hospitals have them: it knows CONNECT, passes bytes on, and notes what it could see."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_BLOCK = 1 << 16


@dataclass
class Seen:
    """What the proxy saw.

    Attributes:
        address: Where it listens.
        known: Addresses by the names that only the proxy can look up.
        asked: To where connections were asked for, such as ``server:7443``.
        first: The first bytes that each dialling side sent through.
    """

    address: str
    known: Mapping[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    first: list[bytes] = field(default_factory=list)


@contextlib.contextmanager
def connect_proxy(**known: str) -> Iterator[Seen]:
    """Run a proxy on this machine while the block lasts; it knows the addresses of some names."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen = Seen(f"127.0.0.1:{listener.getsockname()[1]}", known)
        threading.Thread(target=_accept, args=(listener, seen), daemon=True).start()
        yield seen
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, seen: Seen) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, seen), daemon=True).start()


def _serve(client: socket.socket, seen: Seen) -> None:
    with client, contextlib.suppress(OSError):
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += client.recv(1)
        method, target, _ = request.split(b" ", 2)
        seen.asked.append(target.decode())
        host, port = target.decode().split(":")
        if method != b"CONNECT":
            client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")
            return
        try:
            server = socket.create_connection((seen.known.get(host, host), int(port)))
        except OSError:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        with server:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            back.start()
            _pass_on(client, server, seen.first)
            back.join()


def _pass_on(source: socket.socket, target: socket.socket, first: list[bytes] | None = None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_BLOCK):
            if first is not None:
                first.append(data)
                first = None
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
