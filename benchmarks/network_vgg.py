"""Rows a second of VGG-11 whose halves are in two processes, over mutual TLS, given the same cores as the uncut loop.

VGG-11 with one linear layer on 512 features, random images of CIFAR-10's shape (32 x 32 pixels), batches of 64, SGD
with learning rate 0.01 and momentum 0.9, one client, cut after the first block (`features.2`: 4 MB of activations a
batch and as much of gradients). Server and client are processes of their own, as in network_w.py, with the threads that
cutlayer chooses by default; the parties take turns, so that each may use all cores while it computes. They are compared
with the loop over the uncut network in one process with as many threads as there are cores. In turn; speeds are from
the end of the first epoch to the end of the last, the ratio the median over the rounds.

Ends with 1 if the parties train on less than 0.95 times the rows a second of the uncut loop.
"""

from __future__ import annotations

import os
import sys

import measuring
import network_pair
from common.network_sides import below_the_loop, beside_the_loop, loop, middle, parties, rows_compared

MIN_RATIO = 0.95


def measure(rounds: int, epochs: int) -> measuring.Figures:
    """Return rows a second of both sides and their ratio."""
    actions: list[dict[str, float]] = []
    cores = len(os.sched_getaffinity(0))
    with network_pair.keys() as keys:
        found = measuring.in_turn(
            {
                "parties": lambda: network_pair.BATCH * parties("vgg", epochs, keys, actions),
                "loop": lambda: network_pair.BATCH * loop("vgg", epochs, "--threads", cores),
            },
            rounds,
            warm_up=False,
        )
    return rows_compared(
        found,
        microseconds_of_actions=middle(actions),
        threads_of_loop=cores,
        rounds=rounds,
        steps_per_round=(epochs - 1) * network_pair.WORKS["vgg"].rows // network_pair.BATCH,
        min_ratio=MIN_RATIO,
    )


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    return below_the_loop(figures, MIN_RATIO)


def main() -> int:
    """Measure, print, and return the exit status."""
    return beside_the_loop("network_vgg", __doc__, measure, failures, rounds=3, epochs=3)


if __name__ == "__main__":
    sys.exit(main())
