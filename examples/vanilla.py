"""Ten clinics hold handwritten digits and their labels; a server holds most of the network.

Each clinic runs the first convolution and sends its activations and the labels of the batch to the server,
which runs the rest and sends gradients back. The clinics take turns, a few batches each, and the weights of
the first part go from clinic to clinic. Each clinic has mostly digits of its own kind (Dirichlet, alpha 0.5).

Shown: what a clinic discloses; that the split network is the uncut one, trained in the same order.
Gupta & Raskar 2018, "Distributed learning of deep neural network over multiple agents", algorithm 1.
"""

import rich
import torch

import cutlayer as cl


def main(quick: bool = False) -> cl.Run:
    """Train, compare with the uncut network, and return the run."""
    clinics = cl.data.mnist5k().split_rows(10, by="dirichlet", alpha=0.5, role="client")
    print(clinics.table())

    graph = cl.vanilla(cl.networks.lenet(), cut="pool1", clients=clinics)
    study = cl.Study(
        graph=graph,
        schedule=cl.RoundRobin(turn=2),  # batches; then the next clinic takes over
        optimizer=cl.optim.SGD(lr=0.05, momentum=0.9),
        epochs=1 if quick else 3,
        name="vanilla",
    )
    print(graph.disclosure("client-0", batch_size=study.batch_size))

    run = study.simulate(clinics)
    rich.print(run.summary())
    print(f"Equal to the uncut network, bit for bit: {run.equals(study.central(clinics))}")
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
