"""What schedules reach and cost: HAM10000's four clinics, and ten clients with skewed classes of CIFAR-10.

HAM10000: malignant or not, 32 pixels, each clinic with its own images; a fifth of the lesions is held out, other ones
with each seed. CIFAR-10: 8,000 images dealt by a Dirichlet distribution with alpha 0.3 (another deal with each seed),
2,000 test images in equal numbers. The same network everywhere: three convolutions (16, 32, 64 channels) with
group normalisation and a linear layer, cut after the first, 4,096 values a row; local losses have a linear layer on
4 x 4 means beside it. Adam with learning rate 0.002 in all parts, tuned for none; five epochs. A batch is 64 rows of
one client, or of all clients where they train in one step. The test rows are those that a client has, and meet its own
part where it has one.

Accuracy over all clients' test rows; for HAM10000 AUC as well, and AUC within clinics, which compares only rows of the
same clinic: clinics differ so much in how many of their lesions are malignant (41 % to 0.7 %) that knowing the clinic
alone gives a high AUC. Bytes that a client sends and receives in training; the FLOPs of its own training; and the time
that training would take if each client had 20 GFLOP/s, the server 200, with 40 ms and 100 Mbit/s between them
(simulated_clock.py). Means and standard deviations over three seeds. Beside the schedules, each client alone with the
whole network, and one client that has all rows.

Each run is kept, so that what was interrupted goes on where it was; about 35 minutes on one core. Ends with 1 if a
schedule learns nothing: if its mean AUC is not above 0.5, or its accuracy not above a class's share of CIFAR-10.

    python benchmarks/schedules_table.py --cifar10 cifar10.npz --ham10000 ham10000.npz
    python benchmarks/schedules_table.py --table     # writes the table into docs/schedules-compared.md, and the plot
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import defaultdict
from functools import partial

import measuring
import numpy as np
import torch
from common import real_images, schedules_shown
from common.kept_runs import RESULTS, Kept, mean, spread
from common.simulated_clock import Hosts, Needs, walk
from torch import Tensor, nn

import cutlayer as cl
from cutlayer.metering.events import Computed, Traffic
from cutlayer.schedules import Schedule
from cutlayer.sessions.process import keep_memory

NAME = "schedules_table"
ROWS, TEST, CLIENTS, ALPHA = 8_000, 2_000, 10, 0.3
BATCH, RATE = 64, 0.002
EPOCHS = {"HAM10000": 5, "CIFAR-10": 5}
HOSTS = Hosts()
MEASURES = ("accuracy", "auc", "auc_within")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """A schedule, and what it needs.

    Attributes:
        schedule: The schedule.
        joint: All clients' rows make one batch, so each has its part of it only.
        local: There is a loss at the client.
        pooled: One client has all rows.
        alone: Each client trains the whole network on its own rows.
    """

    schedule: Schedule = dataclasses.field(default_factory=cl.RoundRobin)
    joint: bool = False
    local: bool = False
    pooled: bool = False
    alone: bool = False


WAYS = {
    "all rows at one client": Way(pooled=True),
    "each client alone": Way(alone=True),
    "round robin": Way(),
    "round robin, turns of 4 batches": Way(schedule=cl.RoundRobin(turn=4)),
    "SplitFed v1": Way(schedule=cl.SplitFed(version=1)),
    "SplitFed v1, rounds of 4 batches": Way(schedule=cl.SplitFed(version=1, round=4)),
    "SplitFed v2": Way(schedule=cl.SplitFed(version=2)),
    "SplitFed v3": Way(schedule=cl.SplitFed(version=3)),
    "parallel, own parts": Way(schedule=cl.Parallel(), joint=True),
    "parallel, averaged parts": Way(schedule=cl.Parallel(heads="averaged", round=1), joint=True),
    "GPSL": Way(schedule=cl.Parallel(batches="global")),
    "asynchronous": Way(schedule=cl.Asynchronous(round=4)),
    "local loss (SplitFed v1)": Way(schedule=cl.SplitFed(version=1, local=True), local=True),
    "personalised (SplitFed v2)": Way(schedule=cl.SplitFed(version=2, personal=True)),
}


def halves(classes: int, seed: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Return the client's part, the server's, and the client's guess for a loss of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = nn.Sequential(nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.GroupNorm(4, 16), nn.ReLU())
        second = [nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU(), nn.MaxPool2d(2)]
        third = [nn.Conv2d(32, 64, 3, padding=1), nn.GroupNorm(4, 64), nn.ReLU(), nn.MaxPool2d(2)]
        rest = nn.Sequential(*second, *third, nn.Flatten(), nn.Linear(1024, classes))
        guess = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(256, classes))
    return first, rest, guess


def graph_of(people: cl.data.Holdings, classes: int, seed: int, local: bool) -> cl.SplitGraph:
    """Return the graph, with or without a loss at the client."""
    first, rest, guess = halves(classes, seed)
    segments = [cl.Segment("head", "client", first, ("x",)), cl.Segment("top", "server", rest, ("head",))]
    losses = [cl.Loss(role="server", prediction="top")]
    if local:
        segments.append(cl.Segment("guess", "client", guess, ("head",)))
        losses.append(cl.Loss(role="client", prediction="guess", name="local"))
    shares = [cl.Share("y", "client", "server")]
    return cl.SplitGraph.over(people, segments=segments, losses=losses, shares=shares)


def train(
    way: Way, clients: cl.data.Holdings, pooled: cl.data.Holdings, seed: int, epochs: int
) -> measuring.Figures:
    """Return what one run reached and cost.

    Args:
        way: How to train.
        clients: The rows as dealt to clients.
        pooled: The same rows at one client.
        seed: Of weights and order.
        epochs: How many.
    """
    people = pooled if way.pooled else clients
    classes = 1 + int(real_images.labelled(pooled.parties[0], "train")[1].max())
    if way.alone:
        each = [cl.data.Holdings((party,)) for party in people.parties]
        runs = [study_of(way, one, classes, seed, epochs).simulate(one) for one in each]
        found = [guess for one, run in zip(each, runs, strict=True) for guess in guesses(run, one, classes)]
        flops = sum(e.flops for run in runs for e in run.events if isinstance(e, Computed))
        costs = {"up_mb": 0.0, "down_mb": 0.0, "minutes": 0.0, "client_gflop": flops / len(each) / 1e9}
    else:
        study = study_of(way, people, classes, seed, epochs)
        run = study.simulate(people)
        found = guesses(run, people, classes)
        costs = costs_of(run, study, people)
    return reached(found, clients) | costs


def study_of(way: Way, people: cl.data.Holdings, classes: int, seed: int, epochs: int) -> cl.Study:
    """Return the study."""
    return cl.Study(
        graph=graph_of(people, classes, seed, way.local),
        schedule=way.schedule,
        optimizer=cl.optim.Adam(lr=RATE),
        batch_size=max(BATCH // len(people.parties), 1) if way.joint else BATCH,
        epochs=epochs,
        seed=seed,
        evaluate=(),
    )


def guesses(run: cl.Run, people: cl.data.Holdings, classes: int) -> list[tuple[np.ndarray, Tensor, Tensor]]:
    """Return ids, logits and labels of each party's test rows, by its own part as training left it and the server's."""
    joined = run.weights()
    found = []
    for party in people.parties:
        head, top, _ = halves(classes, 0)
        own = run._simulation.parties[party.name].live  # of who has no part of its own, the last holder's
        head.load_state_dict(own["head"].weights() if "head" in own else joined["head"])
        top.load_state_dict(joined["top"])
        x, y = real_images.labelled(party, "test")
        with torch.no_grad():
            logits = torch.cat([top(head(some)) for some in torch.split(x, 500)])
        found.append((party.splits["test"].ids, logits, y))
    return found


def reached(found: list[tuple[np.ndarray, Tensor, Tensor]], clients: cl.data.Holdings) -> measuring.Figures:
    """Return accuracy in per cent over all rows, and with two classes AUC over all and within clients."""
    ids = np.concatenate([one[0] for one in found])
    logits, y = torch.cat([one[1] for one in found]), torch.cat([one[2] for one in found])
    figures: measuring.Figures = {"accuracy": 100 * float((logits.argmax(1) == y).double().mean())}
    if logits.shape[1] == 2:
        scores = logits[:, 1] - logits[:, 0]
        groups = [torch.from_numpy(np.isin(ids, party.splits["test"].ids)) for party in clients.parties]
        figures["auc"] = concordant([(scores, y)])
        figures["auc_within"] = concordant([(scores[group], y[group]) for group in groups])
    return figures


def concordant(groups: list[tuple[Tensor, Tensor]]) -> float:
    """Return in what share of the pairs of a positive and a negative row of a group the positive scores higher."""
    wins = pairs = 0.0
    for scores, labels in groups:
        above, below = scores[labels == 1].double(), scores[labels == 0].double()
        differences = above[:, None] - below[None, :]
        wins += float((differences > 0).sum() + 0.5 * (differences == 0).sum())
        pairs += differences.numel()
    return wins / pairs


def costs_of(run: cl.Run, study: cl.Study, people: cl.data.Holdings) -> measuring.Figures:
    """Return bytes and FLOPs of a client in the mean, and the minutes that training would take between hosts."""
    clients = [party.name for party in people.parties]
    seconds = walk(study.program(people), Needs(run.events), HOSTS, clients)
    moved: defaultdict[str, float] = defaultdict(float)
    for event in run.events:
        if isinstance(event, Traffic):
            for name, way in ((event.sender, "up_mb"), (event.receiver, "down_mb")):
                moved[way] += event.frame_bytes / 1e6 / len(clients) if name in clients else 0.0
    flops = sum(e.flops for e in run.events if isinstance(e, Computed) and e.party in clients)
    return moved | {"minutes": study.epochs * seconds / 60, "client_gflop": flops / len(clients) / 1e9}


def dealt(data: str, seed: int, asked: argparse.Namespace) -> tuple[cl.data.Holdings, cl.data.Holdings]:
    """Return the rows of a data set as dealt to its clients, and all of them at one client."""
    if data == "HAM10000":
        source = real_images.ham10000(asked.ham10000, seed)
        return source.split_rows(by="site"), source.split_rows(1)
    source = real_images.cifar10(asked.cifar10, 600 if asked.quick else ROWS, 200 if asked.quick else TEST)
    return source.split_rows(CLIENTS, by="dirichlet", alpha=ALPHA, seed=seed), source.split_rows(1)


def measure(asked: argparse.Namespace) -> measuring.Figures:
    """Return the figures of all schedules on both data sets."""
    kept = Kept(NAME, {"rows": ROWS, "batch": BATCH, "rate": RATE}, quick=asked.quick)
    seeds = range(1 if asked.quick else asked.seeds)
    found: measuring.Figures = {}
    for seed in seeds:
        for data, full in EPOCHS.items():
            epochs = 1 if asked.quick else full
            people = dealt(data, seed, asked)
            for name, way in WAYS.items():
                one = kept.run(
                    f"{data}, {way}, {epochs} epochs, seed {seed}",
                    partial(train, way, *people, seed, epochs),
                )
                found.setdefault(data, {}).setdefault(name, []).append(one)
                learned = "  ".join(f"{what} {one[what]:.4g}" for what in MEASURES if what in one)
                print(
                    f"seed {seed} {data} {name:33} {learned}  {one['up_mb'] + one['down_mb']:7.1f} MB"
                    f"  {one['minutes']:6.2f} min  {one['seconds']:5.1f} s",
                    flush=True,
                )
    kept.done()
    return {
        "data": {data: {name: summary(runs) for name, runs in rows.items()} for data, rows in found.items()},
        "epochs": EPOCHS,
        "hosts": dataclasses.asdict(HOSTS),
        "seeds": len(seeds),
        "quick": asked.quick,
    }


def summary(runs: list[measuring.Figures]) -> measuring.Figures:
    """Return mean and standard deviation over seeds of each figure, and what was reached with each seed."""
    figures = {name: [one[name] for one in runs] for name in runs[0]}
    both = {name: {"mean": mean(f), "standard_deviation": spread(f)} for name, f in figures.items()}
    return both | {"by_seed": {name: figures[name] for name in MEASURES if name in figures}}


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    if figures["quick"]:
        return []
    return [
        f"{data}, {name} learned nothing: {one[what]['mean']:.4g}"
        for data, rows in figures["data"].items()
        for name, one in rows.items()
        for what, chance in (("auc", 0.5), ("accuracy", 10.0))
        if what in one and one[what]["mean"] <= chance
    ]


def main() -> int:
    """Train, print, and return the exit status."""
    parser = measuring.parser(__doc__)
    real_images.wanted(parser, "cifar10")
    real_images.wanted(parser, "ham10000")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="only write table and plot, from the results")
    asked = parser.parse_args()
    if asked.table:
        schedules_shown.show(json.loads((RESULTS / f"{NAME}.json").read_text())["figures"])
        return 0
    measuring.one_thread()
    keep_memory()
    figures = measure(asked)
    return measuring.finish(NAME, figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
