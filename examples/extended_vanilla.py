"""Three laboratories measured the same tumours, a worker merges what they send, a clinic holds the diagnoses.

Each laboratory turns its 10 columns into 6 numbers a tumour. The worker, which has no data of its own, merges
them and passes what it makes of them on to the clinic. So the clinic never sees what any one laboratory sent,
and the worker never sees a diagnosis.

Shown: who talks to whom; the same result as one network on pooled data.
Vepakomma et al. 2018, "Split learning for health", extended vanilla configuration.
"""

import rich
import torch
from torch import nn

import cutlayer as cl

COLUMNS = {"averages": ["mean *"], "errors": ["* error"], "extremes": ["worst *"]}


def main(quick: bool = False) -> cl.Run:
    """Train, compare with the uncut network, and return the run."""
    people = cl.data.breast_cancer().split_columns(COLUMNS, labels="clinic")

    torch.manual_seed(0)
    graph = cl.extended_vanilla(
        bottoms={name: nn.Sequential(nn.Linear(10, 6), nn.ReLU()) for name in COLUMNS},
        middle=nn.Sequential(nn.Linear(18, 8), nn.ReLU()),
        top=nn.Linear(8, 1),
        parties=people,
        loss=nn.BCEWithLogitsLoss(),
        worker="worker",
        server="clinic",
    )
    study = cl.Study(
        graph=graph,
        optimizer=cl.optim.Adam(lr=0.01),
        epochs=10 if quick else 30,
        metrics=("auc", "accuracy", "loss"),
        name="extended_vanilla",
    )
    for cut in graph.cuts:
        print(f"{cut.source} -> {cut.target}: {', '.join(map(str, cut.specs))}, and its gradient back")

    run = study.simulate(people)
    rich.print(run.summary())
    print(f"Equal to the uncut network, bit for bit: {run.equals(study.central(people))}")
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
