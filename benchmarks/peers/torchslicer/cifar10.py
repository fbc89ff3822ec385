"""NVFLARE's CIFAR-10 network with TorchSlicer: the driver, which slices it for two workers (worker.py) and feeds them.

python cifar10.py ROWS FOLDER
"""

import os
import sys

import numpy as np
import torch
import torchslicer as ts
from cifar10_network import bottom, top
from marks import mark
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchslicer.discovery import StaticDiscovery
from torchslicer.executors.distributed import DistributedExecutor

EPOCHS, BATCH = 1, 64
WORKERS = ["127.0.0.1:50061", "127.0.0.1:50071"]


def network():
    return nn.Sequential(bottom(), top())  # two steps, one for each worker


class Marks(ts.TrainingCallback):  # for marks only
    def __init__(self, steps):  # for marks only
        self.steps = steps  # of an epoch, for marks only

    def on_epoch_begin(self, epoch):  # for marks only
        mark(step=(epoch - 1) * self.steps)

    def on_epoch_end(self, epoch, metrics):  # for marks only
        mark(step=epoch * self.steps)


def main():
    torch.manual_seed(42)
    with np.load(sys.argv[1]) as kept:
        rows = {name: torch.from_numpy(kept[name]) for name in kept}
    train_set = TensorDataset(rows["x_train"], rows["y_train"])
    loader = DataLoader(train_set, batch_size=BATCH, shuffle=True)
    config = ts.RunConfig.load()
    config.logging.dir = sys.argv[2]
    config.fault_tolerance.enabled = True  # weights of each epoch, which training waits for
    executor = DistributedExecutor(
        discovery=StaticDiscovery(peers=WORKERS), coordinator_addr="127.0.0.1:50054", run_config=config
    )
    sliced = ts.slice(network(), n=2, executor=executor)
    sgd = {"name": "SGD", "params": {"lr": 0.01, "momentum": 0.9}}
    loss = {"name": "CrossEntropyLoss", "params": {}}
    sliced.train(loader, sgd, loss, epochs=EPOCHS, callbacks=[Marks(len(loader))])
    trained = ts.restore_model_from_run(network(), os.path.join(sys.argv[2], config.run_id)).eval()
    with torch.no_grad():
        right = trained(rows["x_test"]).argmax(1) == rows["y_test"]
    mark(accuracy=right.float().mean().item())


if __name__ == "__main__":
    main()
