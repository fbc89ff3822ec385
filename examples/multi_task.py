"""Two scanners hold the left and the right half of every image; two servers ask different questions of them.

One server knows which digit an image shows, the other only whether that digit is even. Neither server sees
the other's labels, neither scanner sees any. The activations go to both; the gradients that come back from
both are added, each with its weight, so the scanners learn what serves both questions.

Shown: two losses with weights, metrics of each, and labels given to a party by hand.
Vepakomma et al. 2018, "Split learning for health", multi-task configuration.
"""

import rich
import torch
from torch import nn

import cutlayer as cl
from cutlayer.data import Holdings, PartyData, Records

LEFT = [8 * row + column for row in range(8) for column in range(4)]
RIGHT = [pixel for pixel in range(64) if pixel not in LEFT]


def with_parity(people: Holdings) -> Holdings:
    """Return ``people`` and one party more, which knows of each image whether its digit is even."""
    known = people.party("digit").splits.items()
    even = {split: Records(rows.ids, {"y": (rows.fields["y"] % 2 == 0).long()}) for split, rows in known}
    return Holdings((*people.parties, PartyData("parity", "parity", even)))


def main(quick: bool = False) -> cl.Run:
    """Train, compare with the uncut network, and return the run."""
    people = with_parity(cl.data.digits().split_columns({"left": LEFT, "right": RIGHT}, labels="digit"))
    print(people.table())

    torch.manual_seed(0)
    graph = cl.multi_task(
        bottoms={side: nn.Sequential(nn.Linear(32, 24), nn.ReLU()) for side in ("left", "right")},
        tops={"digit": nn.Linear(48, 10), "parity": nn.Linear(48, 1)},
        parties=people,
        losses={"parity": nn.BCEWithLogitsLoss()},
        weights={"parity": 0.5},
    )
    study = cl.Study(
        graph=graph, optimizer=cl.optim.Adam(lr=0.01), epochs=3 if quick else 15, name="multi_task"
    )
    run = study.simulate(people)
    rich.print(run.summary())
    for loss in graph.losses:
        print(f"{loss}: accuracy {run.metrics('test', loss)['accuracy']:.3f}")
    print(f"Equal to the uncut network, bit for bit: {run.equals(study.central(people))}")
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
