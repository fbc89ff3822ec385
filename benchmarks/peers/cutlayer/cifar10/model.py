"""The small network of NVFLARE's CIFAR-10 example, uncut."""

from torch import nn


def convolution(inputs, outputs):
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]


def network():
    bottom = nn.Sequential(
        *convolution(3, 32), *convolution(32, 64), nn.MaxPool2d(2),
        *convolution(64, 128), *convolution(128, 128), nn.MaxPool2d(2), nn.Dropout2d(0.05),
        *convolution(128, 256), *convolution(256, 256), nn.MaxPool2d(2), nn.Flatten(),
    )  # fmt: skip
    top = nn.Sequential(
        nn.Dropout(0.1), nn.Linear(4096, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
        nn.Dropout(0.1), nn.Linear(512, 10),
    )  # fmt: skip
    return nn.Sequential(bottom, top)
