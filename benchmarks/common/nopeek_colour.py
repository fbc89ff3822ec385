"""Small convolutional networks and decoders for colour images, cut as deep as that for MNIST in `nopeek.py`."""

from __future__ import annotations

from torch import nn

from .nopeek_trial import network_of

__all__ = ["decoder", "network"]

SENT, GRID = 500, 8
"""Numbers of an image that cross the cut, and pixels of the side of the smallest image inside the networks."""


def network(seed: int, *, side: int, classes: int) -> nn.Sequential:
    """Return the network, [B, 3, side, side] -> [B, classes], for 32 pixels or 64; ``first`` is the client's part."""

    def first() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=side // 32, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * GRID * GRID, SENT), nn.Tanh(),
        )  # fmt: skip

    return network_of(
        seed, first, lambda: nn.Sequential(nn.Linear(SENT, 128), nn.ReLU(), nn.Linear(128, classes))
    )


def decoder(side: int) -> nn.Sequential:
    """Return a network that makes images of activations, [B, 500] -> [B, 3, side, side], for 32 pixels or 64."""
    layers: list[nn.Module] = [
        nn.Linear(SENT, 64 * GRID * GRID),
        nn.ReLU(),
        nn.Unflatten(1, (64, GRID, GRID)),
    ]
    channels, now = 64, GRID
    while 2 * now < side:
        layers += [nn.ConvTranspose2d(channels, channels // 2, 4, stride=2, padding=1), nn.ReLU()]
        channels, now = channels // 2, 2 * now
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, 3, 4, stride=2, padding=1), nn.Sigmoid())
