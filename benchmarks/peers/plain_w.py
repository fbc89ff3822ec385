"""Workload W uncut, in one process: a loop over rows in memory, which nothing that crosses a network can reach."""

import sys

import numpy as np
import torch
from marks import mark
from torch import nn

EPOCHS, BATCH = 5, 64


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with np.load(sys.argv[1]) as kept:
        rows = {name: torch.from_numpy(kept[name]) for name in kept}
    network = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    sgd, loss_of = torch.optim.SGD(network.parameters(), lr=0.05), nn.CrossEntropyLoss()
    for epoch in range(EPOCHS):
        mark(step=epoch * 200)
        for batch in torch.split(torch.randperm(len(rows["x_train"])), BATCH):
            loss = loss_of(network(rows["x_train"][batch]), rows["y_train"][batch])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        mark(step=(epoch + 1) * 200)
    right = network(rows["x_test"]).argmax(1) == rows["y_test"]
    mark(accuracy=right.float().mean().item())


if __name__ == "__main__":
    main()
