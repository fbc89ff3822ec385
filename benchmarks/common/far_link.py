"""Two hosts that are far from each other, for benchmarks: their link, what it carries, how TCP is set at its ends."""

from __future__ import annotations

import argparse
import contextlib
import math
import subprocess
from collections.abc import Iterator

import measuring
from network_pair import GUEST, HOST, Told
from two_hosts import ADDRESSES, TwoHosts, Wire

__all__ = ["ends", "frame_bytes", "on_the_link", "parser"]

PACKET, PAYLOAD = 1500, 1448  # bytes, with IPv4 and TCP's time stamps
RECORD, RECORD_HEADERS = 16384, 22 + 9  # TLS 1.3, and HTTP/2 frames as long as its records
IDLE, CONTROL = "net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_congestion_control"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with ``--quick``, and what says which link."""
    made = measuring.parser(doc)
    made.add_argument("--server-prefix", default="", metavar="COMMAND")
    made.add_argument("--client-prefix", default="", metavar="COMMAND")
    made.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS")
    made.add_argument("--rtt", type=float, default=40.0, metavar="MS")
    made.add_argument("--rate", type=float, default=100.0, metavar="MBIT/S")
    made.add_argument("--as-is", action="store_true", help="TCP begins slowly after a pause")
    made.add_argument("--control", default="reno", metavar="NAME", help="TCP's congestion control")
    return made


@contextlib.contextmanager
def ends(asked: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Be two hosts with a link, unless others are given or it is to be quick; yield the prefixes of both ends."""
    with contextlib.ExitStack() as stack:
        prefixes = (asked.server_prefix, asked.client_prefix)
        if not asked.server_prefix and not asked.quick:
            hosts = stack.enter_context(TwoHosts(Wire(delay_ms=asked.rtt / 2, mbit=asked.rate)))
            prefixes = (f"ip netns exec {hosts.names['a']}", f"ip netns exec {hosts.names['b']}")
            asked.listen = ADDRESSES["a"]
        if prefixes[0]:
            _tune(prefixes, asked)
        yield prefixes


def _tune(prefixes: tuple[str, str], asked: argparse.Namespace) -> None:
    """Set how TCP goes on after a pause and how it is controlled, at both ends."""
    for prefix in prefixes:
        for name, value in ((IDLE, int(asked.as_is)), (CONTROL, asked.control)):
            subprocess.run([*prefix.split(), "sysctl", "-qw", f"{name}={value}"], check=True)


def on_the_link(frame_bytes: float) -> float:
    """Return the bytes that a frame is as packets."""
    secured = frame_bytes + math.ceil(frame_bytes / RECORD) * RECORD_HEADERS
    return secured + math.ceil(secured / PAYLOAD) * (PACKET - PAYLOAD)


def frame_bytes(told: dict[str, Told], epoch: int) -> list[float]:
    """Return the bytes of a step's frames, of the host and of the guest."""
    steps = next(e["steps"] for e in told[HOST].epochs() if e["epoch"] == epoch)
    return [
        sum(line["frame_bytes"] for line in told[name].all("frame_bytes") if line["epoch"] == epoch) / steps
        for name in (HOST, GUEST)
    ]
