"""Three clients hold images, a server holds their labels; between them two hops relay and compute.

The client runs the first layer, hop 1 the second, hop 2 the third, the server the last one and the loss. Each
sees only what its neighbours send ("Tor-like"): the server never receives what a client computed, hop 1 never
learns what the server predicts.

Shown: the disclosure statement of a hop; that labels which lie at the server never have to be sent.
Vepakomma et al. 2018, "Split learning for health", multi-hop configuration.
"""

import rich
import torch

import cutlayer as cl


def main(quick: bool = False) -> cl.Run:
    """Train, compare with the uncut network, and return the run."""
    people = cl.data.digits().split(
        {"client": slice(0, 64)},  # all pixels
        rows=cl.data.Deal(n=3),
        labels="server",  # matched by id; with split_rows the clients would hold them and send them along
    )
    print(people.table())

    model = cl.networks.mlp((64, 48, 32, 24, 10))
    graph = cl.multi_hop(model, cuts=("activation1", "activation2", "activation3"), clients=people)
    study = cl.Study(
        graph=graph,
        schedule=cl.RoundRobin(turn=4),
        optimizer=cl.optim.Adam(lr=0.005),
        batch_size=32,
        epochs=3 if quick else 15,
        name="multi_hop",
    )
    print(graph.describe())
    print(graph.disclosure("hop-1", batch_size=study.batch_size))

    run = study.simulate(people)
    rich.print(run.summary())
    print(f"Equal to the uncut network, bit for bit: {run.equals(study.central(people))}")
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
