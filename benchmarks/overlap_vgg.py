"""Rows a second of VGG-11 in two processes with micro-batches in flight, beside the uncut loop with the same cores.

VGG-11 with one linear layer on 512 features, random images of CIFAR-10's shape, micro-batches of 64, eight to an
optimizer step (SGD with learning rate 0.01 and momentum 0.9), one client, cut in the middle of its arithmetic
(`features.10`: 1 MB of activations a batch and as much of gradients), four micro-batches in flight. Server and client
are processes of their own that go through `cutlayer.sessions` over mutual TLS, with one thread each, so that each has
a core and neither waits for the other. They are compared with the loop over the uncut network in one process that has
both cores: two threads, the same micro-batches, the same number to a step. In turn; speeds are from the end of the
first epoch to the end of the last, the ratio is the median over the rounds. Beside it, how much of both cores' time the
parties used.

Ends with 1 if the parties train on fewer rows a second than the loop.
"""

from __future__ import annotations

import sys
from pathlib import Path

import measuring
import network_pair
from common.network_sides import below_the_loop, beside_the_loop, loop, rows_compared
from network_pair import GUEST, HOST, Told

MIN_RATIO = 1.0
WORK = "vgg_middle"
ROWS = network_pair.BATCH * network_pair.WORKS[WORK].accumulate
"""Rows of an optimizer step, which is what parties count as a step."""


def busy(told: Told) -> float:
    """Return the share of a core that a process used from the end of its first epoch to the end of its last."""
    ends = told.epochs()
    return float((ends[-1]["worked_s"] - ends[0]["worked_s"]) / (ends[-1]["at"] - ends[0]["at"]))


def parties(keys: Path, epochs: int, used: list[float]) -> float:
    """Return the rows a second of two parties; note the share of both cores that they used."""
    told = network_pair.two_parties(WORK, keys, epochs, environment={"OMP_NUM_THREADS": "1"})
    used.append((busy(told[HOST]) + busy(told[GUEST])) / 2)
    return ROWS / told[HOST].step_seconds()


def measure(rounds: int, epochs: int) -> measuring.Figures:
    """Return rows a second of both sides and their ratio."""
    used: list[float] = []
    with network_pair.keys() as keys:
        found = measuring.in_turn(
            {
                "parties": lambda: parties(keys, epochs, used),
                "loop": lambda: network_pair.BATCH * loop(WORK, epochs, "--threads", 2),
            },
            rounds,
            warm_up=False,
        )
    share = round(sorted(used)[len(used) // 2], 3)
    print(f"the parties use {100 * share:.0f} % of both cores")
    return rows_compared(found, share_of_both_cores_used=share, rounds=rounds, min_ratio=MIN_RATIO)


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    return below_the_loop(figures, MIN_RATIO)


def main() -> int:
    """Measure, print, and return the exit status."""
    return beside_the_loop("overlap_vgg", __doc__, measure, failures, rounds=5, epochs=3)


if __name__ == "__main__":
    sys.exit(main())
