"""What a plan says of a large crowd from smaller ones, beside going through the actions of every client of it.

4,000 clients with 20 rows each and the network 16-8-6-4, cut after its first layer. Three worlds: a server that is busy
with 1,000 of the clients already; one that is hardly ever busy; and one that becomes as busy as its clients somewhere
between 1,000 and 4,000. Clients are alike, or differ by a spread of 0.5. Round robin, SplitFed (versions 1 and 3),
parallel, and federated averaging. Nothing is trained: both sides are worked out, with the same events.

Ends with 1 if a time from smaller crowds is more than 20 % off, or FLOPs or bytes by more than 0.5 % (longer names of
parties make some frames longer).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import measuring
import torch

import cutlayer as cl
from cutlayer.planner import Line, World, scale
from cutlayer.planner.federated import rival
from cutlayer.planner.offers import Offer, offer
from cutlayer.planner.places import Network, Place
from cutlayer.planner.setting import Setting, schedule_of

NAME = "plan_at_scale"
CLIENTS, FEW = 4000, 1000
PLACE = Place("vanilla", ("linear1",))
SCHEDULES = ("round_robin", "splitfed1", "splitfed3", "parallel")
SPREADS = (0.0, 0.5)
MAX_TIME, MAX_SUM = 0.2, 0.005
WORLDS = {
    "a busy server": World(client_flops=1e6, server_flops=1e7, line=Line(mbit=1.0, latency_ms=5.0)),
    "an idle server": World(
        client_flops=1e5, server_flops=1e10, line=Line(mbit=0.05, latency_ms=5.0),
        server_line=Line(mbit=1000.0, latency_ms=1.0),
    ),
    "a server that becomes busy": World(
        client_flops=1e6, server_flops=1e10, line=Line(mbit=0.1, latency_ms=5.0),
        server_line=Line(mbit=200.0, latency_ms=1.0),
    ),
}  # fmt: skip


def worked_out(setting: Setting, *, network: Network, word: str) -> Offer:
    """Return what a way of training costs."""
    if word in SCHEDULES:
        return offer(network, PLACE, word, schedule_of(word), setting)
    return rival(network, word, setting)


def compare(setting: Setting, network: Network, word: str) -> measuring.Figures:
    """Return the seconds of all clients one by one and of smaller crowds, and by how much sums are off."""
    work_out = partial(worked_out, network=network, word=word)
    whole, drawn = work_out(setting), scale.at_scale(work_out, setting)
    sums = [drawn.total_bytes / whole.total_bytes, drawn.server_flops / max(whole.server_flops, 1)]
    return {
        "seconds": whole.seconds,
        "told": drawn.seconds,
        "off": drawn.seconds / whole.seconds - 1,
        "sums_off": max(abs(ratio - 1) for ratio in sums if ratio),
    }


def measure(quick: bool) -> measuring.Figures:
    """Return all comparisons, by world, spread and way of training."""
    network = Network(cl.networks.mlp((16, 8, 6, 4)), torch.zeros(2, 16))
    clients = FEW + 50 if quick else CLIENTS
    found: measuring.Figures = {}
    for name, world in WORLDS.items():
        for spread in SPREADS:
            setting = Setting(
                world=replace(world, spread=spread), clients=clients, rows=clients * 20, batch_size=10
            )
            for word in ("fedavg",) if quick else (*SCHEDULES, "fedavg"):
                key = f"{name}, {'clients differ' if spread else 'clients alike'}, {word}"
                found[key] = one = compare(setting, network, word)
                print(
                    f"{key}: {one['seconds']:.4g} s, told {one['told']:.4g} s ({one['off']:+.1%})", flush=True
                )
    return {"cases": found, "clients": clients, "few": FEW, "max_time": MAX_TIME, "quick": quick}


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    found = []
    for name, one in figures["cases"].items():
        if abs(one["off"]) > MAX_TIME:
            found.append(f"{name}: told {one['off']:+.1%} of the time")
        if one["sums_off"] > MAX_SUM:
            found.append(f"{name}: bytes or FLOPs differ by {one['sums_off']:.2%}")
    return found


def main() -> int:
    """Work out, print, and return the exit status."""
    asked = measuring.parser(__doc__).parse_args()
    measuring.one_thread()
    figures = measure(asked.quick)
    return measuring.finish(NAME, figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
