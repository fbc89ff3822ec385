"""Time of a step between two hosts that are far from each other, beside what their link forces.

Two parties train over mutual TLS through a link whose round trip and rate are told; the commands that put a process at
one of its ends are given as prefixes. Nothing is set up here. For a link between two network namespaces, made by
any means, with 40 ms and 100 Mbit/s:

    python benchmarks/network_wan.py --rtt 40 --rate 100 --listen 10.77.0.1 \\
        --server-prefix "ip netns exec nsA" --client-prefix "ip netns exec nsB"

Workload W (66 KB up, 65 KB down) and the same network with 4,096 units at the cut (1 MB each way). A step cannot take
less than one round trip, the time that its bytes take at the link's rate, both ways, and the arithmetic of the two
parties that is in its way. Bytes are those of the frames and what TLS, HTTP/2, TCP and IP add to them with packets of
1,500 bytes; arithmetic is measured without the link, all actions but waiting and the server's step, which it does
while the gradient travels. `--tune` switches off, at both ends, that TCP begins slowly again after a pause
(`net.ipv4.tcp_slow_start_after_idle=0`); without it, it does, as systems come.

Ends with 1 if a step takes more than 5 % longer than that.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
from pathlib import Path

import measuring
import network_pair
from network_pair import GUEST, HOST, Told

MAX_OVER = 0.05
PACKET, PAYLOAD = 1500, 1448  # bytes, with IPv4 and TCP's time stamps
RECORD, RECORD_HEADERS = 16384, 22 + 9  # TLS 1.3, and HTTP/2 frames as long as its records
IDLE = "net.ipv4.tcp_slow_start_after_idle"


def on_the_link(frame_bytes: float) -> float:
    """Return the bytes that a frame is as packets."""
    secured = frame_bytes + math.ceil(frame_bytes / RECORD) * RECORD_HEADERS
    return secured + math.ceil(secured / PAYLOAD) * (PACKET - PAYLOAD)


def arithmetic_ms(told: dict[str, Told], epoch: int) -> float:
    """Return what both parties do in a step, one after the other, in an epoch without a link."""
    total = 0.0
    for name, one in told.items():
        for line in one.all("op"):
            waits = line["op"] in ("receive", "advance") or (name == HOST and line["op"] == "step")
            if line["epoch"] == epoch and not waits:
                total += 1000 * line["seconds"] / line["calls"]
    return total


def frame_bytes(told: dict[str, Told], epoch: int) -> list[float]:
    """Return the bytes of a step's frames, of the host and of the guest."""
    steps = next(e["steps"] for e in told[HOST].epochs() if e["epoch"] == epoch)
    return [
        sum(line["frame_bytes"] for line in told[name].all("frame_bytes") if line["epoch"] == epoch) / steps
        for name in (HOST, GUEST)
    ]


def tune(prefixes: tuple[str, str], value: int) -> None:
    """Set how TCP goes on after a pause, at both ends."""
    for prefix in prefixes:
        subprocess.run([*prefix.split(), "sysctl", "-qw", f"{IDLE}={value}"], check=True)


def compare(work: str, keys: Path, asked: argparse.Namespace, epochs: int) -> measuring.Figures:
    """Return a step's time without the link and through it, and what the link forces."""
    prefixes = (asked.server_prefix, asked.client_prefix)
    near = network_pair.two_parties(work, keys, epochs)
    far = network_pair.two_parties(work, keys, epochs, prefixes=prefixes, listen_at=asked.listen)
    down, up = frame_bytes(near, epochs - 1)
    on_link = on_the_link(up) + on_the_link(down)
    forced = asked.rtt + on_link * 8 / (asked.rate * 1000) + arithmetic_ms(near, epochs - 1)
    ended = far[HOST].epochs()
    steps = [1000 * (b["at"] - a["at"]) / b["steps"] for a, b in zip(ended, ended[1:], strict=False)]
    reached = statistics.median(steps)
    print(
        f"{work:6} {up / 1000:6.0f} KB up, {down / 1000:6.0f} KB down: {reached:7.1f} ms a step, "
        f"{forced:7.1f} are forced: {100 * (reached / forced - 1):5.1f} % over"
    )
    return {
        "frame_bytes_up": up,
        "frame_bytes_down": down,
        "bytes_on_link": on_link,
        "arithmetic_ms": arithmetic_ms(near, epochs - 1),
        "step_ms_without_link": 1000 * near[HOST].step_seconds(),
        "step_ms": reached,
        "step_ms_by_epoch": steps,
        "forced_ms": forced,
        "over": reached / forced - 1,
    }


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--server-prefix", default="", metavar="COMMAND")
    parser.add_argument("--client-prefix", default="", metavar="COMMAND")
    parser.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS")
    parser.add_argument("--rtt", type=float, default=0.0, metavar="MS")
    parser.add_argument("--rate", type=float, default=1e6, metavar="MBIT/S")
    parser.add_argument("--tune", action="store_true")
    asked = parser.parse_args()
    if not asked.server_prefix and not asked.quick:
        parser.error("name the ends of a link: --server-prefix, --client-prefix, --listen, --rtt, --rate")
    print(f"Between hosts {asked.rtt:g} ms and {asked.rate:g} Mbit/s apart:")
    figures, failures = {}, []
    prefixes = (asked.server_prefix, asked.client_prefix)
    if asked.server_prefix:
        tune(prefixes, 0 if asked.tune else 1)
    with network_pair.keys() as keys:
        for work, epochs in (("w", 2),) if asked.quick else (("w", 4), ("wide", 6)):
            figures[work] = compare(work, keys, asked, epochs)
            over = figures[work]["over"]
            if over > MAX_OVER and not asked.quick:
                failures.append(f"{work}: {100 * over:.1f} % over, at most {100 * MAX_OVER:g} % is wanted")
    told = {
        "works": figures,
        "rtt_ms": asked.rtt,
        "mbit_s": asked.rate,
        "slow_start_after_idle": not asked.tune,
    }
    return measuring.finish("network_wan", told | {"max_over": MAX_OVER, "quick": asked.quick}, failures)


if __name__ == "__main__":
    sys.exit(main())
