r"""Time of a step between two hosts that are far from each other, beside what their link forces.

Two parties train over mutual TLS between two hosts (two_hosts.py: network namespaces of this machine; needs Linux and
root) that are 40 ms and 100 Mbit/s apart. Or over any other link, where the commands that put a process at its ends are
given as prefixes:

    python benchmarks/network_wan.py --rtt 40 --rate 100 --listen 10.77.0.1 \
        --server-prefix "ip netns exec nsA" --client-prefix "ip netns exec nsB"

Workload W (66 KB up, 65 KB down) and the same network with 4,096 units at the cut (1 MB each way). A step cannot take
less than one round trip, the time that its bytes take at the link's rate, both ways, and the arithmetic of the two
parties that is in its way. Bytes are those of the frames and what TLS, HTTP/2, TCP and IP add to them with packets of
1,500 bytes; arithmetic is measured without the link, all actions but waiting and the server's step, which it does
while the gradient travels. At both ends TCP goes on after a pause as it was before (unless `--as-is`), and is
controlled by `--control`; see docs/network-tuning.md for what both do.

Ends with 1 if a step takes more than 5 % longer than that.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from pathlib import Path

import measuring
import network_pair
from common import far_link
from common.far_link import frame_bytes, on_the_link
from network_pair import HOST, Told

MAX_OVER = 0.05


def arithmetic_ms(told: dict[str, Told], epoch: int) -> float:
    """Return what both parties do in a step, one after the other, in an epoch without a link."""
    total = 0.0
    for name, one in told.items():
        for line in one.all("op"):
            waits = line["op"] in ("receive", "advance") or (name == HOST and line["op"] == "step")
            if line["epoch"] == epoch and not waits:
                total += 1000 * line["seconds"] / line["calls"]
    return total


def compare(
    work: str, keys: Path, asked: argparse.Namespace, prefixes: tuple[str, str], epochs: int
) -> measuring.Figures:
    """Return a step's time without the link and through it, and what the link forces."""
    near = network_pair.two_parties(work, keys, epochs)
    far = network_pair.two_parties(work, keys, epochs, prefixes=prefixes, listen_at=asked.listen)
    down, up = frame_bytes(near, epochs - 1)
    on_link = on_the_link(up) + on_the_link(down)
    forced = asked.rtt + on_link * 8 / (asked.rate * 1000) + arithmetic_ms(near, epochs - 1)
    ended = far[HOST].epochs()
    steps = [1000 * (b["at"] - a["at"]) / b["steps"] for a, b in itertools.pairwise(ended)]
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


def measure(asked: argparse.Namespace) -> measuring.Figures:
    """Return the figures of all works."""
    figures: measuring.Figures = {}
    with far_link.ends(asked) as prefixes, network_pair.keys() as keys:
        for work, epochs in (("w", 2),) if asked.quick else (("w", 4), ("wide", 6)):
            figures[work] = compare(work, keys, asked, prefixes, epochs)
    return {
        "works": figures,
        "rtt_ms": asked.rtt,
        "mbit_s": asked.rate,
        "slow_start_after_idle": asked.as_is,
        "congestion_control": asked.control,
        "max_over": MAX_OVER,
        "quick": asked.quick,
    }


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    return [
        f"{work}: {100 * found['over']:.1f} % over, at most {100 * MAX_OVER:g} % is wanted"
        for work, found in figures["works"].items()
        if found["over"] > MAX_OVER and not figures["quick"]
    ]


def main() -> int:
    """Measure, print, and return the exit status."""
    asked = far_link.parser(__doc__).parse_args()
    print(f"Between hosts {asked.rtt:g} ms and {asked.rate:g} Mbit/s apart:")
    figures = measure(asked)
    return measuring.finish("network_wan", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
