"""Split equals uncut, bit for bit (the correctness lemma of Gupta & Raskar 2018).

Every configuration of split learning, and three hybrids of them, are trained by ``study.simulate`` and beside
it by a loop in plain PyTorch over the network as it was before it was cut, with one optimizer over all its
weights. The order of the rows is worked out here too, from the study's seed and the rule that turns go
round. After at least 50 steps every weight, running mean and counter must be the same float32.

Each configuration is trained with

- SGD with momentum, Adam and AdamW, each with weight decay;
- four networks: plain, with BatchNorm, with dropout, with a skip connection around every block (in chains it
  goes around the cut, so two tensors cross);
- 1, 3 and 10 clients or cohorts in turn, with either hand-over; every other time turns of two batches.

The rows are scikit-learn's digits, 200 of them in batches of 8. As a control, the uncut loop with the rows in
the order of another seed must *not* give the same weights (once for each configuration).

Ends with 1 if any weight differs in any bit, or if the control does not.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import equality_cases as cases
import measuring
import torch
from torch import Tensor

import cutlayer as cl
from cutlayer.seeds import at_step, generator, stream

MIN_STEPS = 50
ROWS, BATCH, SEED = 200, 8, 3
OPTIMIZERS: Mapping[str, Mapping[str, float]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3},
    "Adam": {"lr": 0.01, "weight_decay": 1e-3},
    "AdamW": {"lr": 0.01, "weight_decay": 0.01},
}
CLIENTS = ((1, "peer"), (3, "peer"), (3, "server"), (10, "peer"), (10, "server"))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training to compare."""

    configuration: cases.Configuration
    kind: cases.Kind
    optimizer: str
    clients: int
    handover: str
    turn: int

    def __str__(self) -> str:
        turn = f"{self.turn} batches" if self.turn else "an epoch"
        return f"{self.kind}, {self.optimizer}, {self.clients} in turns of {turn}, hand-over {self.handover}"


def trials(quick: bool) -> Iterable[Trial]:
    """Yield every combination; ``quick``: each configuration once, with other settings each time."""
    ways = list(itertools.product(cases.KINDS, OPTIMIZERS, CLIENTS))
    for number, configuration in enumerate(cases.CONFIGURATIONS):
        chosen = [ways[(7 * number + 2) % len(ways)]] if quick else ways
        for index, (kind, optimizer, (clients, handover)) in enumerate(chosen):
            yield Trial(
                configuration=configuration, kind=kind, optimizer=optimizer, clients=clients,
                handover=handover, turn=2 * (index % 2),
            )  # fmt: skip


def orders(ids: list[Tensor], *, epochs: int, turn: int, seed: int, batch: int = BATCH) -> list[Tensor]:
    """Return the row numbers of each step: clients in turn, each with its rows in a new order each epoch.

    Args:
        ids: For each client, its rows in the order in which they count.
        epochs: How often all rows are gone through.
        turn: Batches in a turn; 0: all of the client's.
        seed: The study's seed.
        batch: Rows in a batch.
    """
    steps = []
    for epoch in range(epochs):
        waiting = []
        for client, own in enumerate(ids):
            order = generator(seed, "order", client, "train", epoch).permutation(len(own))
            waiting.append(list(torch.split(own[torch.from_numpy(order)], batch)))
        while any(waiting):
            for batches in waiting:
                length = turn or len(batches)
                steps += batches[:length]
                del batches[:length]
    return steps


def train_uncut(network: cases.Uncut, steps: list[Tensor], x: Tensor, y: Tensor, optimizer: str) -> None:
    """Train the network as it was before it was cut, in plain PyTorch.

    The only thing that is not usual: where dropout draws at random, the seed of its part of the network and
    the step is set before that part begins, as every party does for its own part.
    """
    now = [0]
    for segment, module in network.begins.items():
        seed = stream(SEED, "segment", segment)
        module.register_forward_pre_hook(
            lambda *_, seed=seed: torch.manual_seed(at_step(seed, now[0])) and None
        )
    made = getattr(torch.optim, optimizer)(network.module.parameters(), **OPTIMIZERS[optimizer])
    network.module.train()
    for number, rows in enumerate(steps):
        now[0] = number
        made.zero_grad()
        network.loss(network.module(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
        made.step()


def compare(trial: Trial, x: Tensor, y: Tensor, *, control: bool) -> tuple[int, list[str]]:
    """Return the number of steps, and what differs though it must not, or does not though it must."""
    people = trial.configuration.deal(x, y, trial.clients)
    ids = trial.configuration.ids(people)
    per_epoch = len(orders(ids, epochs=1, turn=trial.turn, seed=SEED))
    epochs = -(-MIN_STEPS // per_epoch)
    split = trial.configuration.graph(trial.kind, people)
    schedule = cl.RoundRobin(handover="server" if trial.handover == "server" else "peer", turn=trial.turn)
    study = cl.Study(
        graph=split, optimizer=cl.optim.optimizer(trial.optimizer, **OPTIMIZERS[trial.optimizer]),
        schedule=schedule, batch_size=BATCH, epochs=epochs, seed=SEED, evaluate=(),
    )  # fmt: skip
    weights = study.simulate(people).weights()
    steps = orders(ids, epochs=epochs, turn=trial.turn, seed=SEED)
    equal = trial.configuration.uncut(trial.kind)
    train_uncut(equal, steps, x, y, trial.optimizer)
    wrong = different(split, weights, equal)
    if control:
        other = trial.configuration.uncut(trial.kind)
        changed = orders(ids, epochs=epochs, turn=trial.turn, seed=SEED + 1)
        train_uncut(other, changed, x, y, trial.optimizer)
        wrong += (
            [] if different(split, weights, other) else ["another order of the rows gives the same weights"]
        )
    return len(steps), wrong


def different(
    graph: cl.SplitGraph, weights: Mapping[str, Mapping[str, Tensor]], uncut: cases.Uncut
) -> list[str]:
    """Return the names of weights and buffers that are not the same bits on both sides, or on one side only."""
    split: dict[str, Tensor] = {}
    for segment, state in weights.items():
        origin = graph.segments[segment].origin
        split |= {origin.get(name, f"{segment}.{name}"): tensor for name, tensor in state.items()}
    expected = uncut.state()
    odd = sorted(split.keys() ^ expected.keys())
    return odd + [n for n in split.keys() & expected.keys() if not torch.equal(split[n], expected[n])]


def measure(quick: bool) -> measuring.Figures:
    """Return for each configuration what was compared with what, and what differs."""
    x, y = cases.digits(ROWS)
    rows: dict[str, measuring.Figures] = {}
    for trial in trials(quick):
        name, equals = trial.configuration.name, trial.configuration.equals
        first = name not in rows
        if first:
            print(f"{name}, against {equals}", flush=True)
            rows[name] = {
                "equals": equals,
                "trainings": 0,
                "steps": 0,
                "fewest_steps": 10**9,
                "different": [],
            }
        row = rows[name]
        steps, wrong = compare(trial, x, y, control=first)
        row["trainings"] += 1
        row["steps"] += steps
        row["fewest_steps"] = min(steps, row["fewest_steps"])
        row["different"] += [f"{trial}: {what}" for what in wrong]
    return {"configurations": rows, "optimizers": {k: dict(v) for k, v in OPTIMIZERS.items()}, "quick": quick}


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what differs, in words."""
    rows = figures["configurations"].items()
    found = [f"{name}: {what}" for name, row in rows for what in row["different"]]
    return found + [f"{n}: only {r['fewest_steps']} steps" for n, r in rows if r["fewest_steps"] < MIN_STEPS]


def main() -> int:
    """Train, compare, print, and return the exit status."""
    arguments = measuring.parser(__doc__).parse_args()
    measuring.one_thread()
    figures = measure(arguments.quick)
    print(f"\n{'configuration':38} {'trainings':>9} {'steps':>7}  weights")
    for name, row in figures["configurations"].items():
        verdict = "DIFFERENT" if row["different"] else "equal to the last bit"
        print(f"{name:38} {row['trainings']:9d} {row['steps']:7d}  {verdict}")
    return measuring.finish("equality", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
