"""The network of the digits study."""

from collections import OrderedDict

from torch import nn


def network(input_shape: tuple[int, ...], hidden: int = 32) -> nn.Module:
    """Return a small network for 8x8 pixels and ten digits.

    The data say what ``input_shape`` is; ``hidden`` is an argument in the study file.
    """
    return nn.Sequential(
        OrderedDict(
            linear1=nn.Linear(input_shape[0], hidden),
            relu1=nn.ReLU(),
            dropout=nn.Dropout(0.1),
            linear2=nn.Linear(hidden, hidden),
            relu2=nn.ReLU(),
            linear3=nn.Linear(hidden, 10),
        )
    )
