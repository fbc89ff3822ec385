"""Kills random parties at random times, again and again; every study must end with the simulator's bits.

python tests/end_to_end/random_kills.py --kills 300 --seed 1
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import trial
from trial import Bench, Trial

NAMES = ("vanilla", "vanilla-relayed", "u-shape", "multi-hop", "vertical")


@dataclass
class Figures:
    """What happened.

    Attributes:
        studies: Studies run to their end; all had the simulator's bits.
        kills: Processes killed.
        hosts: Those of them that were hosts.
        together: How often two or more were killed at once.
        seconds: How long it all took.
    """

    studies: int = 0
    kills: int = 0
    hosts: int = 0
    together: int = 0
    seconds: float = 0.0


def random_kills(bench: Bench, folder: Path, kills: int, seed: int, say: bool = False) -> Figures:
    """Run studies with random kills until there were so many.

    Raises:
        AssertionError: A study did not end, or not with the simulator's bits.
    """
    draw, figures, began = random.Random(seed), Figures(), time.monotonic()
    while figures.kills < kills:
        name = NAMES[figures.studies % len(NAMES)]
        study = bench.dealt(name, epochs=8)
        with Trial(bench, study, folder / str(figures.studies)) as tried:
            _torment(tried, draw, figures)
            tried.wait(limit_s=300)
            tried.check()
            figures.kills += sum(tried.kills.values())
            figures.hosts += tried.kills["server"]
        figures.studies += 1
        figures.seconds = time.monotonic() - began
        if say:
            sys.stdout.write(f"{name}: {tried.kills}; so far {figures}\n")
            sys.stdout.flush()
    return figures


def _torment(tried: Trial, draw: random.Random, figures: Figures) -> None:
    """Kill one to three parties at a time until the study is done or there were fifteen rounds."""
    for _ in range(15):
        until = time.monotonic() + draw.choice((0.05, 0.3, 1.0, 2.0)) * draw.random()
        tried.wait(lambda until=until: time.monotonic() > until)
        if all(tried.codes.get(party) == 0 for party in tried.parties):
            return
        victims = draw.sample(tried.parties, draw.choice((1, 1, 1, 2, 3)))
        figures.together += len(victims) > 1
        for party in victims:
            tried.kill(party)


def main() -> None:
    """Do it as often as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, trial.bench(Path(folder) / "bench") as bench:
        random_kills(bench, Path(folder) / "trials", given.kills, given.seed, say=True)


if __name__ == "__main__":
    main()
