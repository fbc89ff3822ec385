"""Cut a network of your own: by a module's name, by a share of the work, across a skip connection.

Two clients hold images and labels, a server the larger part of a network that was written with no thought of
splitting: its block adds what went in to what comes out. After a cut inside the block two tensors cross, the
one that is worked on and the one that goes around it; cutlayer finds them by itself.

Shown: the places where a network can be cut, with what would cross and how much work comes before; the same
for a U-Net; three ways to say where; that the network with the most awkward cut trains like the uncut one.
"""

import rich
import torch
from rich.table import Table
from torch import Tensor, nn

import cutlayer as cl
from cutlayer.graph.candidates import candidates


class Net(nn.Module):
    """An ordinary network for 28x28 pixels with a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.classify = nn.Linear(8 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, 10] of pixels [B, 1, 28, 28]."""
        x = torch.relu(self.stem(x))
        x = x + self.conv2(torch.relu(self.conv1(x)))
        logits: Tensor = self.classify(self.pool(torch.relu(x)).flatten(1))
        return logits


def places(title: str, model: nn.Module) -> Table:
    """Return a table of the places where ``model`` can be cut."""
    table = Table("cut after", "a sample that crosses", "bytes", "work before", title=title)
    for place in candidates(model, torch.rand(2, 1, 28, 28)):
        if "." in place.name:  # inside a block; such a place can be named, too
            continue
        shapes = " and ".join("x".join(map(str, shape)) for shape in place.tensors.values())
        what = shapes if place.works else f"cannot be: {place.reason}"
        table.add_row(place.name, what, f"{place.bytes_per_sample:,}", f"{place.flops_share:.0%}")
    return table


def main(quick: bool = False) -> cl.Run:
    """Look, cut, train, compare with the uncut network, and return the run."""
    torch.manual_seed(0)
    model = Net()
    rich.print(places("Net", model))
    rich.print(places("U-Net", cl.networks.unet(width=4, depth=1)))

    clients = cl.data.mnist5k().split_rows(2)
    cuts = {where: cl.vanilla(model, cut=where, clients=clients) for where in ("pool", 0.1, "conv1")}
    for where, graph in cuts.items():
        head = graph.segments["head"].outputs
        print(f"cut={where!r}: {len(head)} tensor(s) cross: {', '.join(head)}")

    optimizer = cl.optim.SGD(lr=0.05, momentum=0.9)
    study = cl.Study(graph=cuts["conv1"], optimizer=optimizer, epochs=1 if quick else 3, name="own_model")
    run = study.simulate(clients)
    rich.print(run.summary())
    print(f"Equal to the uncut network, bit for bit: {run.equals(study.central(clients))}")
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
