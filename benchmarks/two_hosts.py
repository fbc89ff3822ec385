"""Two hosts on one Linux machine, and a link between them: delay, rate, queue, loss, and darkness.

Each host is a network namespace with one TUN device. One process carries the packets between the two devices and
does to them what a long link does. Needs root, ``/dev/net/tun`` and ``ip`` of iproute2.

    sudo python benchmarks/two_hosts.py --delay-ms 20 --mbit 100

prints the names of the two namespaces and waits for orders, one a line: ``dark``, ``dark a`` (nothing that host a
sends gets through), ``dark b``, ``back``. It removes both namespaces when its input ends. Meanwhile

    sudo ip netns exec NAME_OF_A COMMAND

runs a command on host a, which is 10.78.0.1; host b is 10.78.0.2. Tests use `TwoHosts`.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

__all__ = ["ADDRESSES", "TwoHosts", "Wire", "why_not"]

ADDRESSES = {"a": "10.78.0.1", "b": "10.78.0.2"}
_MTU = 1500
_TUNSETIFF, _TUN_WITHOUT_HEADER = 0x400454CA, 0x1001
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, kw_only=True)
class Wire:
    """What each direction of the link is like: one way's delay, Mbit/s, how much may wait, the share that is lost."""

    delay_ms: float = 20.0
    mbit: float = 100.0
    queue_ms: float = 100.0
    loss: float = 0.0


def why_not() -> str:
    """Return why there can be no two hosts here; empty if there can."""
    needs = {
        "root on Linux": sys.platform == "linux" and os.geteuid() == 0,
        "/dev/net/tun": os.access("/dev/net/tun", os.R_OK | os.W_OK),
        "the command ip (package iproute2)": shutil.which("ip") is not None,
    }
    return next((f"two hosts need {what}" for what, there in needs.items() if not there), "")


class TwoHosts:
    """Two hosts while the ``with`` block lasts; ``names`` are the namespaces of ``"a"`` and ``"b"``."""

    def __init__(self, wire: Wire | None = None) -> None:
        self._wire, self.names = wire or Wire(), dict[str, str]()

    def __enter__(self) -> Self:
        if reason := why_not():
            raise OSError(reason)
        options = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(self._wire).items()]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        said = self._process.stdout.readline().split() if self._process.stdout else []
        if len(said) != 2:
            self.__exit__()
            raise OSError("the two hosts could not be made; see above")
        self.names = dict(zip("ab", said, strict=True))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def dark(self, sender: str = "") -> float:
        """Let nothing through, or nothing that this host sends; return when that began, by the wall clock."""
        return self._order(f"dark {sender}")

    def back(self) -> float:
        """Let everything through again; return when that began, by the wall clock."""
        return self._order("back")

    @contextlib.contextmanager
    def on(self, host: str) -> Iterator[None]:
        """Let this thread, and processes that it starts meanwhile, be on host ``"a"`` or ``"b"``."""
        setns = ctypes.CDLL(None, use_errno=True).setns
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.names[host]}") as there:
            if setns(there.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"this thread cannot move to host {host}")
            try:
                yield
            finally:
                setns(home.fileno(), _CLONE_NEWNET)

    def _order(self, order: str) -> float:
        orders, answers = self._process.stdin, self._process.stdout
        if orders is None or answers is None:
            raise OSError("the two hosts are not there")
        orders.write(order + "\n")
        orders.flush()
        return float(answers.readline())


class _Way:
    """One direction: packets wait for their turn on the wire, then travel."""

    def __init__(self, source: int, sink: int, wire: Wire) -> None:
        self.source, self.sink, self._wire, self.dark = source, sink, wire, False
        self._byte_s = 8 / (wire.mbit * 1e6)
        self._free_at = 0.0
        self._travelling: deque[tuple[float, bytes]] = deque()

    @property
    def due(self) -> float:
        """When the next packet arrives."""
        return self._travelling[0][0] if self._travelling else float("inf")

    def take(self, now: float) -> None:
        """Take what the sender has, some packets at a time."""
        for _ in range(64):
            try:
                packet = os.read(self.source, _MTU + 64)
            except OSError:  # nothing there, or the device is not up yet
                return
            begin = max(now, self._free_at)
            full = begin - now > self._wire.queue_ms / 1e3
            if self.dark or full or random.random() < self._wire.loss:
                continue
            self._free_at = begin + len(packet) * self._byte_s
            self._travelling.append((self._free_at + self._wire.delay_ms / 1e3, packet))

    def hand_over(self, now: float) -> None:
        """Give the receiver what has arrived."""
        while self.due <= now:
            with contextlib.suppress(OSError):
                os.write(self.sink, self._travelling.popleft()[1])


def _carry(ways: Sequence[_Way]) -> None:
    """Carry packets and follow orders until there are no more."""
    orders = sys.stdin.fileno()
    while True:
        wait_s = min(way.due for way in ways) - time.monotonic()
        ready, _, _ = select.select(
            [orders, *(way.source for way in ways)], [], [], max(0.0, min(wait_s, 1.0))
        )
        if orders in ready:
            words = os.read(orders, 4096).decode().split()
            if not words:
                return
            for way, host in zip(ways, "ab", strict=True):
                way.dark = words[0] == "dark" and words[1:] in ([], [host])
            print(time.time(), flush=True)
        for way in ways:
            if way.source in ready:
                way.take(time.monotonic())
            way.hand_over(time.monotonic())


def _ip(*words: str) -> None:
    """Run the command ``ip``."""
    subprocess.run(["ip", *words], check=True)


def _make_host(namespace: str, address: str) -> int:
    """Make a host; return the descriptor through which its packets come and go."""
    _ip("netns", "add", namespace)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    made = fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"link%d", _TUN_WITHOUT_HEADER))
    name = made[:16].rstrip(b"\0").decode()
    _ip("link", "set", name, "netns", namespace)
    inside = ("-netns", namespace)
    _ip(*inside, "link", "set", "lo", "up")
    _ip(*inside, "address", "add", f"{address}/24", "dev", name)
    _ip(*inside, "link", "set", name, "mtu", str(_MTU), "txqueuelen", "1000", "up")
    return device


def main() -> None:
    """Make two hosts and be the link between them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in fields(Wire):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    wire = Wire(**vars(parser.parse_args()))
    if reason := why_not():
        sys.exit(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    names = {host: f"cutlayer-{os.getpid()}-{host}" for host in ADDRESSES}
    try:
        a, b = (_make_host(names[host], address) for host, address in ADDRESSES.items())
        print(*names.values(), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            _carry([_Way(a, b, wire), _Way(b, a, wire)])
    except subprocess.CalledProcessError as error:
        sys.exit(f"the two hosts cannot be made: {error}")
    finally:
        for name in names.values():
            if Path("/run/netns", name).exists():
                _ip("netns", "delete", name)


if __name__ == "__main__":
    main()
