"""The network of the digits study."""

from torch import nn


def network(input_shape: tuple[int, ...] = (64,), hidden: int = 32) -> nn.Module:
    """Return a small network for 8x8 pixels and ten digits."""
    return nn.Sequential(
        nn.Linear(input_shape[0], hidden),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )
