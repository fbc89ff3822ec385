"""Steps a second of a small network whose halves are in two processes, over mutual TLS.

Workload W: 784 -> 256 ReLU | 256 -> 10, cut at the bar, batches of 64, SGD with learning rate 0.05, float32, one
client, 12,800 rows of random numbers of MNIST's shape. Server and client are processes of their own that go through
`cutlayer.sessions`, as `cutlayer serve` and `cutlayer join` do, with all that is on by default: snapshots, logs,
disclosure logs, checks. They are compared with (a) a pair of processes by hand on a raw TCP socket without TLS and
(b) the loop over the uncut network in one process; see network_rivals.py; and with (c) themselves with NoPeek at the
cut, whose penalty the client works out while it waits for the server. All in turn; speeds are from the end of the
first epoch to the end of the last, ratios the median over the rounds.

Ends with 1 if the parties make less than 0.7 times the steps a second of the pair, or less than 0.45 of the loop, or if
a step takes more than 1.2 times as long with NoPeek.
"""

from __future__ import annotations

import sys

import measuring
import network_pair
from common.network_sides import loop, middle, parties, raw_pair

MIN_OF_PAIR, MIN_OF_LOOP, MAX_NOPEEK = 0.7, 0.45, 1.2


def measure(rounds: int, epochs: int) -> measuring.Figures:
    """Return steps a second of all sides and their ratios."""
    actions: list[dict[str, float]] = []
    with network_pair.keys() as keys:
        found = measuring.in_turn(
            {
                "parties": lambda: parties("w", epochs, keys, actions),
                "raw_pair": lambda: raw_pair("w", epochs),
                "loop": lambda: loop("w", epochs),
                "nopeek": lambda: parties("w_nopeek", epochs, keys, []),
            },
            rounds,
            warm_up=False,
        )
    values = found.values
    return {
        "steps_per_second": found.medians(),
        "ratio_to_raw_pair": measuring.ratio(values["parties"], values["raw_pair"]),
        "ratio_to_loop": measuring.ratio(values["parties"], values["loop"]),
        "ratio_of_raw_pair_to_loop": measuring.ratio(values["raw_pair"], values["loop"]),
        "step_times_with_nopeek": measuring.ratio(values["parties"], values["nopeek"]),
        "microseconds_of_actions": middle(actions),
        "rounds": rounds,
        "steps_per_round": (epochs - 1) * network_pair.WORKS["w"].rows // network_pair.BATCH,
        "min_ratio_to_raw_pair": MIN_OF_PAIR,
        "min_ratio_to_loop": MIN_OF_LOOP,
        "max_step_times_with_nopeek": MAX_NOPEEK,
    }


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    found = []
    for name, bar in (("raw_pair", MIN_OF_PAIR), ("loop", MIN_OF_LOOP)):
        reached = figures[f"ratio_to_{name}"]
        if reached < bar and not figures["quick"]:
            found.append(f"{reached:.3f} of the {name}, at least {bar} is wanted")
    if figures["step_times_with_nopeek"] > MAX_NOPEEK and not figures["quick"]:
        found.append(f"a step takes {figures['step_times_with_nopeek']:.2f} times as long with NoPeek")
    return found


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    print("Workload W between processes, steps a second:")
    rounds, epochs = (1, 3) if arguments.quick else (arguments.rounds, arguments.epochs)
    figures = measure(rounds, epochs) | {"quick": arguments.quick}
    print(f"the parties make {figures['ratio_to_raw_pair']:.3f} times the steps of the pair by hand,")
    print(f"{figures['ratio_to_loop']:.3f} times those of the loop in one process;")
    print(f"with NoPeek a step takes {figures['step_times_with_nopeek']:.2f} times as long")
    return measuring.finish("network_w", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
