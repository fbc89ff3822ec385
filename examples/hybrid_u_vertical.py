"""U-shape over columns: three institutions know the same people, a server joins them and sees no diagnosis.

A registry, a laboratory and a clinic hold other columns of the same 5,098 adults (NHANES 2017-18). Each sends
8 numbers a person to the server, which merges them, works on them and sends 8 numbers back to the clinic.
The clinic alone knows who has diabetes: it runs the last layer and the loss.

Shown: a configuration built by hand from roles, segments and a loss; the graph finds the cuts by itself and
says what leaves the server.
"""

import rich
import torch
from torch import nn

import cutlayer as cl

COLUMNS = {"registry": ["DEMO.*"], "laboratory": ["HDL.*", "TCHOL.*", "PBCD.*"], "clinic": ["BMX.*", "BPX.*"]}


def role(people: cl.data.Holdings, name: str) -> cl.Role:
    """Return a role with the parties and fields that the data know."""
    fields = {field: cl.TensorSpec.of(rows) for field, rows in people.example(name).items()}
    return cl.Role(name, people.roles[name], fields)


def split_graph(people: cl.data.Holdings) -> cl.SplitGraph:
    """Return bottoms at the institutions, the body at the server, the tail at the clinic."""
    torch.manual_seed(0)
    segments = [
        cl.Segment(
            name, name, nn.Sequential(nn.Linear(people.fields(name)["x"].shape[0], 8), nn.ReLU()), ("x",)
        )
        for name in COLUMNS
    ]
    segments += [
        cl.Segment("merge", "server", cl.Concat(), tuple(COLUMNS)),
        cl.Segment("body", "server", nn.Sequential(nn.Dropout(0.2), nn.Linear(24, 8), nn.ReLU()), ("merge",)),
        cl.Segment("tail", "clinic", nn.Linear(8, 1), ("body",)),
    ]
    return cl.SplitGraph(
        roles=[*(role(people, name) for name in COLUMNS), cl.Role("server", ("server",))],
        segments=segments,
        losses=[cl.Loss(role="clinic", prediction="tail", function=nn.BCEWithLogitsLoss())],
        example={name: people.example(name) for name in COLUMNS},
        name="u_vertical",
    )


def main(quick: bool = False) -> cl.Run:
    """Train, compare with the uncut network, and return the run."""
    people = cl.data.nhanes().split_columns(COLUMNS, labels="clinic")
    graph = split_graph(people)
    study = cl.Study(
        graph=graph,
        optimizer=cl.optim.AdamW(lr=0.003, weight_decay=0.1),
        epochs=2 if quick else 10,
        metrics=("auc", "loss"),
        name="hybrid_u_vertical",
    )
    print(graph.describe())
    print(graph.disclosure("server", batch_size=study.batch_size))

    run = study.simulate(people)
    rich.print(run.summary())
    print(f"Equal to the uncut network, bit for bit: {run.equals(study.central(people))}")
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
