"""Frames over mutual TLS between two processes: the network transport beside a blocking socket.

Two processes on this machine, in turns within one run: through `cutlayer.transports.network`, and through a TCP socket
with mutual TLS that is written by hand for this one purpose, blocking, into memory that is used again. Both use
the same certificates, and the same cipher, which is told. One request and one answer of the same size; and a stream of
frames of 16 MB one way, with a short answer at its end. Medians of rounds; the ratio is the median of the ratios within
each round, and 1 is as fast as the socket. Beside it the processor time that both processes spent on an exchange:
where it is twice the time that passed, both cores were at work all the time, and nothing but less work can help.

Ends with 1 if frames of 16 MB have less than 0.8 of the socket's throughput, there and back.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
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
from typing import IO

import grpc
import measuring

from cutlayer.errors import TransportError
from cutlayer.keys.authority import Authority
from cutlayer.keys.credentials import Credentials
from cutlayer.transports import aligned_buffer
from cutlayer.transports.network import Dial, Hub

BAR = 0.8
SIZES = {"4 KB": 4096, "64 KB": 65536, "256 KB": 262144, "4 MB": 4 << 20, "16 MB": 16 << 20}
JUDGED = "16 MB"
HOST, GUEST = "server", "hospital"
NAMES = (GUEST, HOST)
NOTHING, ITSELF, SHORT = range(3)
"""What a frame's first byte asks for: no answer, the same frame, or one of `SHORT_BYTES`."""
SHORT_BYTES = 4096
Through = tuple[Callable[[memoryview], None], Callable[[int], None]]
"""What sends a frame, and what receives one that has so many bytes."""


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


def spent_s() -> float:
    """Return the processor seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# --- the process that answers ------------------------------------------------------------------------


def answer_by_socket(listener: socket.socket, folder: Path) -> None:
    """Answer every frame as it asks."""
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream = context(folder, server=True).wrap_socket(connection, server_side=True)
    memory = {size: aligned_buffer(size) for size in SIZES.values()}
    head = memoryview(bytearray(8))
    with contextlib.suppress(EOFError, OSError):
        while True:
            fill(stream, head)
            frame = memory[int.from_bytes(head, "little")]
            fill(stream, frame)
            if frame[0] == ITSELF:
                stream.sendall(head)
                stream.sendall(frame)
            elif frame[0] == SHORT:
                stream.sendall(SHORT_BYTES.to_bytes(8, "little"))
                stream.sendall(frame[:SHORT_BYTES])


def answer_by_hub(hub: Hub) -> None:
    """Answer every frame as it asks."""
    with contextlib.suppress(TransportError):  # the other side has hung up
        while True:
            frame = hub.transport.receive(GUEST, float("inf"))
            if frame[0] != NOTHING:
                hub.transport.send(GUEST, frame if frame[0] == ITSELF else frame[:SHORT_BYTES])


def serve(folder: Path) -> None:
    """Answer through both; print the ports, then the processor time for each line; end with the input."""
    listener = socket.create_server(("127.0.0.1", 0))
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
    threading.Thread(target=answer_by_socket, args=(listener, folder), daemon=True).start()
    threading.Thread(target=answer_by_hub, args=(hub,), daemon=True).start()
    print(port, listener.getsockname()[1], flush=True)
    for _ in sys.stdin:
        print(spent_s(), flush=True)
    os._exit(0)


# --- the process that asks ---------------------------------------------------------------------------


def through_socket(stream: ssl.SSLSocket) -> Through:
    """Return what sends and receives through the socket."""
    memory = {size: aligned_buffer(size) for size in SIZES.values()}
    head = memoryview(bytearray(8))

    def send(frame: memoryview) -> None:
        stream.sendall(len(frame).to_bytes(8, "little"))
        stream.sendall(frame)

    def receive(size: int) -> None:
        fill(stream, head)
        fill(stream, memory[size])

    return send, receive


def through_dial(dial: Dial) -> Through:
    """Return what sends and receives through the network transport."""

    def receive(size: int) -> None:
        if len(dial.transport.receive(HOST)) != size:
            sys.exit("an answer of another length came")

    return lambda frame: dial.transport.send(HOST, frame), receive


def frame_of(size: int, asks: int) -> memoryview:
    """Return a frame of noise that asks for an answer."""
    frame = aligned_buffer(size)
    frame[:] = os.urandom(size)
    frame[0] = asks
    return frame


def there_and_back(size: int, span_s: float) -> Callable[[Through], int]:
    """Return what exchanges a frame for ``span_s``, three times at least, and returns how often it did."""
    frame = frame_of(size, ITSELF)

    def work(through: Through) -> int:
        send, receive = through
        count, end = 0, time.perf_counter() + span_s
        while count < 3 or time.perf_counter() < end:
            send(frame)
            receive(size)
            count += 1
        return count

    return work


def one_way(size: int, count: int) -> Callable[[Through], int]:
    """Return what sends ``count`` frames and waits for a short answer to the last."""
    frame, last = frame_of(size, NOTHING), frame_of(size, SHORT)

    def work(through: Through) -> int:
        send, receive = through
        for number in range(count):
            send(last if number == count - 1 else frame)
        receive(SHORT_BYTES)
        return count

    return work


def compare(
    work: Callable[[Through], int], sides: dict[str, Through], rounds: int, spent: Callable[[], float]
) -> measuring.Figures:
    """Return milliseconds and processor milliseconds for a frame, of every side, and the ratio of the two."""
    took: dict[str, list[float]] = {name: [] for name in sides}
    cost: dict[str, list[float]] = {name: [] for name in sides}
    for through in sides.values():
        work(through)
    for _ in range(rounds):
        for name, through in sides.items():
            before, began = spent(), time.perf_counter()
            count = work(through)
            took[name].append((time.perf_counter() - began) / count * 1000)
            cost[name].append((spent() - before) / count * 1000)
    figures = {f"{name}_ms": statistics.median(values) for name, values in took.items()}
    figures |= {f"{name}_processor_ms": statistics.median(values) for name, values in cost.items()}
    figures["ratio"] = measuring.ratio(took["socket"], took["ours"])
    figures["ratio_of_processor_time"] = measuring.ratio(cost["socket"], cost["ours"])
    return figures


def measure(sides: dict[str, Through], spent: Callable[[], float], quick: bool) -> measuring.Figures:
    """Return the figures of every size, and of the stream."""
    rounds, span_s = (2, 0.05) if quick else (11, 0.4)
    cases = {f"{name} there and back": there_and_back(size, span_s) for name, size in SIZES.items()}
    cases[f"{JUDGED} one way"] = one_way(SIZES[JUDGED], 5 if quick else 30)
    figures: measuring.Figures = {}
    print(f"{'':22} {'ms':>8} {'socket':>8} {'ratio':>6}   {'processor ms':>12} {'socket':>8} {'ratio':>6}")
    for name, work in cases.items():
        figures[name] = one = compare(work, sides, rounds, spent)
        print(
            f"{name:22} {one['ours_ms']:8.3f} {one['socket_ms']:8.3f} {one['ratio']:6.2f}   "
            f"{one['ours_processor_ms']:12.3f} {one['socket_processor_ms']:8.3f} "
            f"{one['ratio_of_processor_time']:6.2f}",
            flush=True,
        )
    return figures


def both(keys: Path, server: subprocess.Popen[str], told: IO[str], quick: bool) -> measuring.Figures:
    """Connect both ways, measure, hang up; return the figures."""
    port, socket_port = map(int, told.readline().split())
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
    connection = socket.create_connection(("127.0.0.1", socket_port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream = context(keys / GUEST, server=False).wrap_socket(connection, server_hostname=HOST)

    def spent() -> float:
        print(file=server.stdin, flush=True)
        return spent_s() + float(told.readline())

    sides = {"ours": through_dial(dial), "socket": through_socket(stream)}
    cipher = (stream.cipher() or ("", "", 0))[:2]
    print(f"the socket speaks {' '.join(map(str, cipher))}")
    frames = measure(sides, spent, quick)
    dial.close()
    return {"grpc": grpc.__version__, "socket_cipher": cipher, "frames": frames, "bar": BAR, "quick": quick}


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond the bar; a quick run's speeds are not judged."""
    ratio = figures["frames"][f"{JUDGED} there and back"]["ratio"]
    if figures["quick"] or ratio >= BAR:
        return []
    return [f"frames of {JUDGED}: {ratio:.2f} of the socket's throughput, at least {BAR} is asked"]


def main() -> int:
    """Measure and return the exit status."""
    parser = measuring.parser(__doc__)
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
            figures = both(keys, server, server.stdout, asked.quick)
            server.communicate("")
    return measuring.finish("transport_throughput", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
