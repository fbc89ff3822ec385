"""Multi-hop and U-shape in one: client, hop, server, hop, client; records and labels stay with the clients.

Three clients hold images and labels. What a client computes goes to the hop, from there to the server, and
back the same way; the client runs the last layer and the loss. So the server gets nothing that a client
computed, and nobody but the clients ever sees a label or a prediction.

Shown: a role with several segments; a configuration built by hand from a list of layers and places.
"""

import rich
import torch
from torch import nn

import cutlayer as cl

PLACES = ("client", "hop", "server", "hop", "client")
WIDTHS = (64, 48, 40, 40, 32, 10)


def split_graph(people: cl.data.Holdings) -> cl.SplitGraph:
    """Return one layer for each place, in a row; the clients hold what goes in and what it is compared with."""
    torch.manual_seed(0)
    segments, before = [], "x"
    for i, place in enumerate(PLACES):
        last = i == len(PLACES) - 1
        layers = nn.Sequential(nn.Linear(WIDTHS[i], WIDTHS[i + 1]), nn.Identity() if last else nn.ReLU())
        segments.append(cl.Segment(f"part-{i}", place, layers, (before,)))
        before = f"part-{i}"
    loss = cl.Loss(role="client", prediction=before)
    return cl.SplitGraph.over(people, segments=segments, losses=[loss], name="multi_hop_u")


def main(quick: bool = False) -> cl.Run:
    """Train, compare with the uncut network, and return the run."""
    people = cl.data.digits().split_rows(3)
    graph = split_graph(people)
    print(graph.describe())
    print(graph.disclosure("server", batch_size=32))

    study = cl.Study(
        graph=graph,
        schedule=cl.RoundRobin(turn=4),
        optimizer=cl.optim.Adam(lr=0.005),
        batch_size=32,
        epochs=4 if quick else 20,
        name="hybrid_multi_hop_u",
    )
    run = study.simulate(people)
    rich.print(run.summary())
    print(f"Equal to the uncut network, bit for bit: {run.equals(study.central(people))}")
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
