"""Rows a second between two hosts that are far from each other: round robin, micro-batches in flight, codecs, both.

VGG-11 with one linear layer on 512 features, random images of CIFAR-10's shape, batches of 64, cut after the first
block (`features.2`: 4 MB of activations a batch and as much of gradients), two parties over mutual TLS between two
hosts (two_hosts.py: network namespaces of this machine; needs Linux and root) that are 40 ms and 100 Mbit/s apart, with
one thread each. An optimizer step is a batch, or with micro-batches in flight eight of them, four at a time under way.

A way cannot train on more rows a second than its bytes let the link carry, in the direction with more of them (frames,
and what TLS, HTTP/2, TCP and IP add), nor than the same program reaches without the link, between the same two
processes on loopback. The lesser of both is its bound; both are from the same run. Speeds are from the end of the first
epoch of 512 rows to the end of the last. About five minutes; the machine must be quiet.

    sudo python benchmarks/wan_schedules.py
    python benchmarks/wan_schedules.py --plot        # draws results/wan_schedules.svg from the results

Ends with 1 if micro-batches in flight with int8 reach less than 0.9 of their bound.
"""

from __future__ import annotations

import json
import statistics
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

import measuring
import network_pair
from common import far_link
from common.drawing import COLOURS, draw
from common.kept_runs import RESULTS
from network_pair import BATCH, HOST, WORKS, Told

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "wan_schedules"
MIN_SHARE, JUDGED = 0.9, "in flight, int8"
WAYS = {
    "round robin": "far",
    "round robin, int8": "far_int8",
    "in flight": "far_in_flight",
    "in flight, int8": "far_in_flight_int8",
    "in flight, top-k 10 %": "far_in_flight_topk",
}


def rows_a_second(work: str, told: dict[str, Told]) -> float:
    """Return the rows a second from the end of the first epoch to the end of the last."""
    return BATCH * WORKS[work].accumulate / told[HOST].step_seconds()


def carried(work: str, told: dict[str, Told], rate: float) -> float:
    """Return the rows a second that a link of ``rate`` Mbit/s carries, in the direction with more bytes."""
    most = max(far_link.frame_bytes(told, 1))
    return BATCH * WORKS[work].accumulate * rate * 1e6 / 8 / far_link.on_the_link(most)


def compare(
    name: str, keys: Path, asked: Namespace, prefixes: tuple[str, str], epochs: int
) -> measuring.Figures:
    """Return how quick one way is through the link, and what bounds it, from one round."""
    work, one_core = WAYS[name], {"OMP_NUM_THREADS": "1"}
    near = network_pair.two_parties(work, keys, epochs, environment=one_core)
    far = network_pair.two_parties(
        work, keys, epochs, prefixes=prefixes, listen_at=asked.listen, environment=one_core
    )
    found = {
        "rows_a_second": rows_a_second(work, far),
        "link_carries": carried(work, far, asked.rate),
        "arithmetic_allows": rows_a_second(work, near),
    }
    found["bound"] = min(found["link_carries"], found["arithmetic_allows"])
    found["share_of_bound"] = found["rows_a_second"] / found["bound"]
    print(
        f"{name:22} {found['rows_a_second']:6.1f} rows a second; the link carries {found['link_carries']:7.1f}, "
        f"arithmetic allows {found['arithmetic_allows']:6.1f}: {found['share_of_bound']:.3f} of the bound",
        flush=True,
    )
    return found


def measure(asked: Namespace) -> measuring.Figures:
    """Return the figures of all ways: of what is judged the medians of several rounds, and of the others one."""
    chosen, epochs = ([JUDGED], 2) if asked.quick else (list(WAYS), asked.epochs)
    ways = {}
    with far_link.ends(asked) as prefixes, network_pair.keys() as keys:
        for name in chosen:
            several = asked.rounds if name == JUDGED and not asked.quick else 1
            rounds = [compare(name, keys, asked, prefixes, epochs) for _ in range(several)]
            ways[name] = {what: statistics.median(one[what] for one in rounds) for what in rounds[0]}
    return {
        "ways": ways,
        "rtt_ms": asked.rtt,
        "mbit_s": asked.rate,
        "slow_start_after_idle": asked.as_is,
        "congestion_control": asked.control,
        "epochs": epochs,
        "rounds_of_what_is_judged": asked.rounds,
        "min_share": MIN_SHARE,
        "quick": asked.quick,
    }


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    reached = figures["ways"][JUDGED]["share_of_bound"]
    if figures["quick"] or reached >= MIN_SHARE:
        return []
    return [f"{JUDGED}: {reached:.3f} of the bound, at least {MIN_SHARE} is wanted"]


def plot(figures: measuring.Figures) -> None:
    """Draw what each way reaches beside its bounds."""
    ways = figures["ways"]
    bars = {
        "reached": "rows_a_second",
        "arithmetic allows": "arithmetic_allows",
        "link carries": "link_carries",
    }

    def panel(axes: list[Axes]) -> None:
        (axis,) = axes
        top = 1.25 * max(max(one["rows_a_second"], one["arithmetic_allows"]) for one in ways.values())
        for place, (label, what) in enumerate(bars.items()):
            heights = [one[what] for one in ways.values()]
            at = [number + 0.27 * (place - 1) for number in range(len(ways))]
            axis.bar(at, [min(height, top) for height in heights], 0.25, color=COLOURS[place], label=label)
            for x, height in zip(at, heights, strict=True):
                beyond = "↑ " if height > top else ""
                axis.text(x, min(height, top), f"{beyond}{height:.0f}", ha="center", va="bottom", fontsize=8)
        axis.set_xticks(range(len(ways)), list(ways))
        axis.set_ylim(0, 1.08 * top)
        axis.set_ylabel("rows a second")
        axis.set_title(
            f"VGG-11 between hosts {figures['rtt_ms']:g} ms and {figures['mbit_s']:g} Mbit/s apart"
        )
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3)

    draw(RESULTS / f"{NAME}.svg", panel, width=9.6, height=4.2)


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = far_link.parser(__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="of what is judged")
    parser.add_argument("--plot", action="store_true", help="only draw, from the results")
    asked = parser.parse_args()
    if asked.plot:
        plot(json.loads((RESULTS / f"{NAME}.json").read_text())["figures"])
        return 0
    print(f"Between hosts {asked.rtt:g} ms and {asked.rate:g} Mbit/s apart:")
    figures = measure(asked)
    if not asked.quick:
        plot(figures)
    return measuring.finish(NAME, figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
