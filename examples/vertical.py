"""Two hospitals measured the same patients: the guest has 10 columns and the diagnosis, the host 20 columns.

The guest does not see the host's measurements, the host sees neither the guest's nor the diagnosis. Each
turns its columns into 8 numbers a patient; the guest adds them up and predicts. Only the host's 8 numbers
cross, and their gradients. The patients are matched by id; each hospital keeps its own order.

Shown: a vertical study in which one of the parties with data is the server too, on scikit-learn's breast
cancer data, in the sizes of FATE's tutorial on heterogeneous neural networks (10 + 20 columns, 8 neurons).
"""

import rich
import torch
from torch import nn

import cutlayer as cl

COLUMNS = {"guest": ["mean *"], "host": ["* error", "worst *"]}


def main(quick: bool = False) -> cl.Run:
    """Train, compare with the uncut network, and return the run."""
    hospitals = cl.data.breast_cancer().split_columns(COLUMNS, labels="guest")
    print(hospitals.table())

    torch.manual_seed(0)
    bottoms = {
        "guest": nn.Sequential(nn.Linear(10, 8), nn.ReLU()),
        "host": nn.Sequential(nn.Linear(20, 8), nn.ReLU()),
    }
    graph = cl.vertical(
        bottoms,
        nn.Linear(8, 1),
        parties=hospitals,
        merge="sum",
        loss=nn.BCEWithLogitsLoss(),
        server="guest",
    )
    study = cl.Study(
        graph=graph,
        optimizer=cl.optim.Adam(lr=0.01),
        batch_size=64,
        epochs=10 if quick else 30,
        metrics=("auc", "accuracy", "loss"),
        name="vertical",
    )
    print(graph.disclosure("host", batch_size=study.batch_size))

    run = study.simulate(hospitals)
    rich.print(run.summary())
    print(f"Equal to the uncut network, bit for bit: {run.equals(study.central(hospitals))}")
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
