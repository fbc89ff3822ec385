"""Five clinics hold handwritten digits and their labels; neither leaves them. A server does the heavy work.

Each clinic runs the first part of the network (head) and the last layer with the loss (tail); the server
runs what is between them (body). The server sees activations and gradients, and no label.

Shown: the disclosure statement, which says so before anything is trained; the bytes that crossed; that the
split network is the uncut one. Vepakomma et al. 2018, "Split learning for health".
"""

import rich
import torch

import cutlayer as cl


def main(quick: bool = False) -> cl.Run:
    """Train, compare with the uncut network, and return the run."""
    clinics = cl.data.digits().split_rows(5, by="dirichlet", alpha=1.0)
    model = cl.networks.mlp((64, 64, 64, 10))
    graph = cl.u_shaped(model, cuts=("activation1", "activation2"), clients=clinics)
    study = cl.Study(
        graph=graph,
        schedule=cl.RoundRobin(turn=1, handover="server"),  # the server passes weights on unopened
        optimizer=cl.optim.Adam(lr=0.003),
        batch_size=32,
        epochs=3 if quick else 12,
        name="u_shaped",
    )
    print(graph.disclosure("client-0", batch_size=study.batch_size))

    run = study.simulate(clinics)
    rich.print(run.summary())
    print(f"Equal to the uncut network, bit for bit: {run.equals(study.central(clinics))}")
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
