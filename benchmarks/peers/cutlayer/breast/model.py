"""The parts of FATE's example."""

from torch import nn


def guest():
    return nn.Linear(10, 8)


def host():
    return nn.Linear(20, 8)


def top():
    return nn.Sequential(nn.ReLU(), nn.Linear(8, 1))
