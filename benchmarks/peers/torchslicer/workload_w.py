"""Workload W with TorchSlicer: the driver, which slices the network for two workers (worker.py) and feeds them.

python workload_w.py ROWS FOLDER
"""

import os
import sys

import numpy as np
import torch
import torchslicer as ts
from marks import mark
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchslicer.discovery import StaticDiscovery
from torchslicer.executors.distributed import DistributedExecutor

EPOCHS, BATCH, STEPS = 5, 64, 200
WORKERS = ["127.0.0.1:50061", "127.0.0.1:50071"]


def network():
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


class Marks(ts.TrainingCallback):  # for marks only
    def on_epoch_begin(self, epoch):  # for marks only
        mark(step=(epoch - 1) * STEPS)

    def on_epoch_end(self, epoch, metrics):  # for marks only
        mark(step=epoch * STEPS)


def main():
    torch.manual_seed(0)
    with np.load(sys.argv[1]) as kept:
        rows = {name: torch.from_numpy(kept[name]) for name in kept}
    train_set = TensorDataset(rows["x_train"], rows["y_train"])
    loader = DataLoader(train_set, batch_size=BATCH, shuffle=True)
    config = ts.RunConfig.load()
    config.logging.dir = sys.argv[2]
    config.checkpoint.enabled = True
    executor = DistributedExecutor(
        discovery=StaticDiscovery(peers=WORKERS), coordinator_addr="127.0.0.1:50054", run_config=config
    )
    sliced = ts.slice(network(), n=2, executor=executor)
    sgd = {"name": "SGD", "params": {"lr": 0.05}}
    loss = {"name": "CrossEntropyLoss", "params": {}}
    sliced.train(loader, sgd, loss, epochs=EPOCHS, callbacks=[Marks()])
    trained = ts.restore_model_from_run(network(), os.path.join(sys.argv[2], config.run_id))
    right = trained(rows["x_test"]).argmax(1) == rows["y_test"]
    mark(accuracy=right.float().mean().item())


if __name__ == "__main__":
    main()
