"""Frames over mutual TLS between two processes: the network transport beside a blocking socket.

One request, one answer of the same size, two processes on this machine, in turns within one run: through
`cutlayer.transports.network`, and through a raw TCP socket with mutual TLS, written by hand for this one
purpose. Both use the same certificates. Medians, and the ratio of the two: 1 is as fast as the socket.

Bar: 16 MB frames at 0.8 of the socket's throughput.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cutlayer.errors import TransportError
from cutlayer.keys.authority import Authority
from cutlayer.keys.credentials import Credentials
from cutlayer.transports import aligned_buffer
from cutlayer.transports.network import Dial, Hub

BAR = 0.8
SIZES = {"4 KB": 4096, "64 KB": 65536, "256 KB": 262144, "4 MB": 4 << 20, "16 MB": 16 << 20}
HOST, GUEST = "server", "hospital"
NAMES = (GUEST, HOST)
Exchange = Callable[[memoryview], None]


def context(folder: Path, server: bool) -> ssl.SSLContext:
    """Return the socket's settings: certificates of the study at both sides."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    made.load_verify_locations(folder / "authority.pem")
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def fill(stream: ssl.SSLSocket, memory: memoryview) -> None:
    """Receive until ``memory`` is full."""
    filled = 0
    while filled < len(memory):
        came = stream.recv_into(memory[filled:])
        if not came:
            raise EOFError
        filled += came


def serve(folder: Path) -> None:
    """Answer every frame with itself, through both; print the ports; end with the standard input."""
    listener = socket.create_server(("127.0.0.1", 0))

    def by_socket() -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = context(folder, server=True).wrap_socket(connection, server_side=True)
        memory = {size: aligned_buffer(size) for size in SIZES.values()}
        head = memoryview(bytearray(8))
        while True:
            try:
                fill(stream, head)
            except (EOFError, OSError):
                return
            frame = memory[int.from_bytes(head, "little")]
            fill(stream, frame)
            stream.sendall(head)
            stream.sendall(frame)

    def by_hub() -> None:
        with contextlib.suppress(TransportError):  # the other side has hung up
            while True:
                hub.transport.send(GUEST, hub.transport.receive(GUEST, float("inf")))

    hub = Hub(
        Credentials.load(folder),
        "127.0.0.1:0",
        NAMES,
        admit=lambda party, hello: b"",
        on_control=lambda party, message: None,
        on_presence=lambda party, incarnation, connected: None,
        on_incident=lambda who, what: print(who, what, file=sys.stderr),
    )
    port = hub.start()
    for work in (by_socket, by_hub):
        threading.Thread(target=work, daemon=True).start()
    print(port, listener.getsockname()[1], flush=True)
    sys.stdin.read()
    os._exit(0)


def through_socket(folder: Path, port: int) -> Exchange:
    """Return what sends a frame through the socket and waits for the answer."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream = context(folder, server=False).wrap_socket(connection, server_hostname=HOST)
    memory = {size: aligned_buffer(size) for size in SIZES.values()}
    head = memoryview(bytearray(8))

    def exchange(frame: memoryview) -> None:
        stream.sendall(len(frame).to_bytes(8, "little"))
        stream.sendall(frame)
        fill(stream, head)
        fill(stream, memory[len(frame)])

    return exchange


def through_dial(dial: Dial) -> Exchange:
    """Return what sends a frame through the network transport and waits for the answer."""

    def exchange(frame: memoryview) -> None:
        dial.transport.send(HOST, frame)
        if len(dial.transport.receive(HOST)) != len(frame):
            sys.exit("an answer of another length came")

    return exchange


def seconds(exchange: Exchange, frame: memoryview, span_s: float) -> list[float]:
    """Return how long each exchange took, for as long as ``span_s``, at least three of them."""
    took: list[float] = []
    end = time.perf_counter() + span_s
    while len(took) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        exchange(frame)
        took.append(time.perf_counter() - began)
    return took


def measure(ours: Exchange, raw: Exchange, rounds: int, span_s: float) -> dict[str, dict[str, float]]:
    """Return the figures of every size."""
    figures = {}
    print(f"{'frame':>8} {'ours ms':>9} {'socket ms':>9} {'ratio':>6}")
    for name, size in SIZES.items():
        frame = aligned_buffer(size)
        frame[:] = os.urandom(size)
        for exchange in (ours, raw):
            seconds(exchange, frame, span_s)
        took: dict[str, list[float]] = {"ours": [], "socket": []}
        for _ in range(rounds):
            took["ours"] += seconds(ours, frame, span_s)
            took["socket"] += seconds(raw, frame, span_s)
        ours_ms, socket_ms = (statistics.median(one) * 1000 for one in took.values())
        figures[name] = {
            "ours_ms": round(ours_ms, 3),
            "socket_ms": round(socket_ms, 3),
            "ratio": round(socket_ms / ours_ms, 3),
            "exchanges": len(took["ours"]),
        }
        print(f"{name:>8} {ours_ms:9.3f} {socket_ms:9.3f} {socket_ms / ours_ms:6.2f}", flush=True)
    return figures


def main() -> int:
    """Measure and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smoke test: little is measured")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve is not None:
        serve(asked.serve)
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder)
        authority = Authority.create(keys / "authority", "throughput")
        for name in NAMES:
            authority.issue(name, keys / name)
        command = [sys.executable, __file__, "--serve", str(keys / HOST)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            if server.stdout is None:
                return 1
            port, socket_port = map(int, server.stdout.readline().split())
            dial = Dial(
                Credentials.load(keys / GUEST),
                f"127.0.0.1:{port}",
                HOST,
                NAMES,
                hello=lambda: b"",
                on_control=lambda message: None,
                on_welcome=lambda answer, new: None,
                on_state=lambda connected, why: None,
            )
            dial.start()
            raw = through_socket(keys / GUEST, socket_port)
            rounds, span_s = (2, 0.05) if asked.quick else (10, 0.5)
            figures = measure(through_dial(dial), raw, rounds, span_s)
            dial.close()
            server.communicate("")
    ratio = figures["16 MB"]["ratio"]
    print(json.dumps({"frames": figures, "ratio_16_mb": ratio, "bar": BAR}))
    return 0 if ratio >= BAR or asked.quick else 1


if __name__ == "__main__":
    sys.exit(main())
