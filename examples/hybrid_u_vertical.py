"""U-shape over columns: three institutions know the same people, a server joins them and sees no diagnosis.

A registry, a laboratory and a clinic hold other columns of the same 5,098 adults (NHANES 2017-18). Each sends
8 numbers a person to the server, which merges them, works on them and sends 8 numbers back to the clinic.
The clinic alone knows who has diabetes: it runs the last layer and the loss.

Shown: a configuration built by hand from roles, segments and a loss. The graph finds the cuts by itself and
says what leaves the server.
"""

import rich
import torch
from torch import nn

import cutlayer as cl

COLUMNS = {"registry": ["DEMO.*"], "laboratory": ["HDL.*", "TCHOL.*", "PBCD.*"], "clinic": ["BMX.*", "BPX.*"]}


def split_graph(people: cl.data.Holdings) -> cl.SplitGraph:
    """Return bottoms at the institutions, the body at the server, the tail at the clinic."""
    torch.manual_seed(0)
    segments = []
    for name in COLUMNS:
        columns = people.fields(name)["x"].shape[0]
        segments.append(cl.Segment(name, name, nn.Sequential(nn.Linear(columns, 8), nn.ReLU()), ("x",)))
    body = nn.Sequential(nn.Dropout(0.2), nn.Linear(24, 8), nn.ReLU())
    segments.append(cl.Segment("merge", "server", cl.Concat(), tuple(COLUMNS)))
    segments.append(cl.Segment("body", "server", body, ("merge",)))
    segments.append(cl.Segment("tail", "clinic", nn.Linear(8, 1), ("body",)))
    loss = cl.Loss(role="clinic", prediction="tail", function=nn.BCEWithLogitsLoss())
    return cl.SplitGraph.over(people, segments=segments, losses=[loss], name="u_vertical")


def main(quick: bool = False) -> cl.Run:
    """Train, compare with the uncut network, and return the run."""
    people = cl.data.nhanes().split_columns(COLUMNS, labels="clinic")
    graph = split_graph(people)
    print(graph.describe())
    print(graph.disclosure("server", batch_size=64))
    study = cl.Study(
        graph=graph,
        optimizer=cl.optim.AdamW(lr=0.003, weight_decay=0.1),
        epochs=2 if quick else 10,
        metrics=("auc", "loss"),
        name="hybrid_u_vertical",
    )
    run = study.simulate(people)
    rich.print(run.summary())
    print(f"Equal to the uncut network, bit for bit: {run.equals(study.central(people))}")
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
