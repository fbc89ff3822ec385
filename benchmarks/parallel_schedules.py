"""What schedules in which clients work side by side cost: the server's joint step, and SplitFed with many clients.

Joint steps: 16 clients with 64 rows each of a perceptron (784 -> 256 | 128 -> 10), batches of 4 and of 8 rows. The
server's time for one step on the rows of all clients, as `cl.Parallel()` does it, beside its time for a step with each
of them, as in round robin: all it does but handing over, by the run's own meters.

SplitFed: 100 and 500 clients, version 1 beside round robin, in simulation, two batches of each client's rows a round; a
small convolution and workload W (784 -> 256 | 10), whose client hands 804 KB over after two milliseconds' work. Seconds
of an epoch by the number of steps; the better of two epochs. One thread; medians over the rounds.

Ends with 1 if a joint step is not three times as quick as 16 steps, or if a client's step with SplitFed takes more than
1.2 times as long as with round robin for the small convolution. Workload W is told, not judged.
"""

from __future__ import annotations

import dataclasses
import resource
import sys
from collections.abc import Callable

import many_clients
import measuring
import torch

import cutlayer as cl
from cutlayer.metering.events import EpochEnded, Worked

MIN_GAIN, MAX_RATIO = 3.0, 1.2
CLIENTS, ROWS = 16, 64
NOT_A_STEP = ("give", "take", "relay", "advance", "copy", "average")


def server_seconds(schedule: cl.RoundRobin | cl.Parallel, batch: int) -> float:
    """Return the server's seconds for 16 batches, one of each client."""
    draw = torch.Generator().manual_seed(0)
    x, y = (
        torch.rand(CLIENTS * ROWS, 784, generator=draw),
        torch.randint(0, 10, (CLIENTS * ROWS,), generator=draw),
    )
    people = cl.data.arrays(x, y).split_rows(CLIENTS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        graph = cl.vanilla(cl.networks.mlp((784, 256, 128, 10)), "activation1", clients=people)
    study = cl.Study(
        graph=graph,
        schedule=schedule,
        optimizer=cl.optim.SGD(lr=0.05),
        batch_size=batch,
        epochs=4,
        evaluate=(),
    )
    spent = [0.0] * 4
    for event in study.simulate(people).events:
        if isinstance(event, Worked) and event.party == "server" and event.op not in NOT_A_STEP:
            spent[event.epoch] += event.seconds
    return min(spent[1:]) / (ROWS / batch)


def joint_steps(rounds: int) -> measuring.Figures:
    """Return how many times as quick one joint step is as 16 steps, by batch size."""
    found = {}
    for batch in (4, 8):
        sides = measuring.in_turn(
            {
                "16 steps": lambda batch=batch: 1000 * server_seconds(cl.RoundRobin(), batch),
                "joint step": lambda batch=batch: 1000 * server_seconds(cl.Parallel(), batch),
            },
            rounds,
            warm_up=False,
        )
        separate, joint = sides.values.values()
        found[f"batches of {batch}"] = {
            "server_ms": sides.medians(),
            "gain": measuring.ratio(separate, joint),
        }
    return found


def step_ms(
    case: many_clients.Case, clients: int, schedule: cl.RoundRobin | cl.SplitFed
) -> Callable[[], float]:
    """Return what measures the milliseconds of a client's step."""
    x, y = many_clients.pool(case)
    rows = clients * case.rows_per_client
    study, holdings = many_clients.study_of(case, clients, x[:rows], y[:rows])
    study = dataclasses.replace(study, schedule=schedule)

    def measure() -> float:
        epochs = [event.seconds for event in study.simulate(holdings).events if isinstance(event, EpochEnded)]
        return 1000 * min(epochs) / (rows // case.batch)

    return measure


def splitfed(rounds: int, most: int) -> list[measuring.Figures]:
    """Return the cost of SplitFed beside round robin, by network and number of clients."""
    found: list[measuring.Figures] = []
    for case in many_clients.CASES[:2]:
        for clients in (100, 500):
            if clients > most:
                continue
            print(f"{case.name}, {clients} clients; ms a step:")
            sides = measuring.in_turn(
                {
                    "round robin": step_ms(case, clients, cl.RoundRobin()),
                    "SplitFed v1": step_ms(case, clients, cl.SplitFed()),
                },
                rounds,
                warm_up=False,
            )
            robin, fed = sides.values.values()
            found.append(
                {
                    "case": case.name,
                    "clients": clients,
                    "judged": case.judged,
                    "step_ms": sides.medians(),
                    "ratio": measuring.ratio(fed, robin),
                    "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                }
            )
            print(f"  {found[-1]['ratio']:.2f} times round robin's")
    return found


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    if figures["quick"]:
        return []
    slow = [
        f"{name}: a joint step is {one['gain']:.2f} times as quick as 16 steps, at least {MIN_GAIN:g} is wanted"
        for name, one in figures["joint_steps"].items()
        if one["gain"] < MIN_GAIN
    ]
    return slow + [
        f"{one['case']}, {one['clients']} clients: {one['ratio']:.2f} times round robin's step, not {MAX_RATIO}"
        for one in figures["splitfed"]
        if one["judged"] and one["ratio"] > MAX_RATIO
    ]


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 1 if arguments.quick else arguments.rounds
    print("The server's time for 16 batches, ms:")
    figures = {
        "joint_steps": joint_steps(rounds),
        "splitfed": splitfed(rounds, 100 if arguments.quick else 500),
        "rounds": rounds,
        "quick": arguments.quick,
    }
    return measuring.finish("parallel_schedules", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
