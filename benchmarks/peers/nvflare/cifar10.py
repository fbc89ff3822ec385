"""NVFLARE's CIFAR-10 SplitNN with its Collab API, in the manner of its example: images at one site, labels at another.

python cifar10.py ROWS FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import torch
from cifar10_network import bottom, top
from marks import mark
from nvflare.collab import CollabRecipe, collab
from nvflare.recipe import SimEnv
from torch import nn

BATCH, WAIT_S = 64, 600.0
ROLES = {"site-1": "image", "site-2": "label"}


def to_wire(tensor):
    return tensor.detach().to(torch.float16)


class Site:
    """Either of the two sites."""

    def __init__(self):
        self.role = self.model = self.sgd = self.sent = None
        self.rows = {}

    @collab.init
    def start(self):
        torch.manual_seed(42)
        torch.set_num_threads(1)
        self.role = collab.get_app_prop("role")
        field = "x" if self.role == "image" else "y"
        with np.load(collab.get_app_prop("rows")) as kept:
            self.rows = {part: torch.from_numpy(kept[f"{field}_{part}"]) for part in ("train", "test")}
        self.model = bottom() if self.role == "image" else top()
        self.sgd = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)

    @collab.publish
    def run(self):
        other = collab.get_clients(["site-2"])[0]
        gradient = None
        batches = torch.split(torch.randperm(len(self.rows["train"])), BATCH)
        mark(step=0)
        for rows in batches:
            if gradient is not None:
                self.backward(gradient)
            self.model.train()
            self.sent = self.model(self.rows["train"][rows])
            gradient = other(timeout=WAIT_S).learn(rows, to_wire(self.sent))
        self.backward(gradient)
        mark(step=len(batches))
        self.model.eval()
        right = 0
        for rows in torch.split(torch.arange(len(self.rows["test"])), BATCH):
            with torch.no_grad():
                sent = self.model(self.rows["test"][rows])
            right += other(timeout=WAIT_S).count_right(rows, to_wire(sent))
        mark(accuracy=right / len(self.rows["test"]))
        return right

    def backward(self, gradient):
        self.sgd.zero_grad()
        self.sent.backward(gradient.float())
        self.sgd.step()

    @collab.publish
    def learn(self, rows, activation):
        self.model.train()
        activation = activation.float().requires_grad_()
        self.sgd.zero_grad()
        loss = nn.functional.cross_entropy(self.model(activation), self.rows["train"][rows])
        loss.backward()
        self.sgd.step()
        return to_wire(activation.grad)

    @collab.publish
    def count_right(self, rows, activation):
        self.model.eval()
        with torch.no_grad():
            guess = self.model(activation.float()).argmax(1)
        return (guess == self.rows["test"][rows]).sum().item()


class Server:
    """Has nothing but the order to begin."""

    @collab.main
    def run(self):
        return collab.get_clients(["site-1"])[0](timeout=86_400.0).run()


if __name__ == "__main__":
    recipe = CollabRecipe(
        job_name="cifar10", server=Server(), client=Site(), min_clients=2, sync_task_timeout=WAIT_S
    )
    recipe.set_client_prop("rows", sys.argv[1])
    recipe.set_per_site_config({name: {"role": role} for name, role in ROLES.items()})
    recipe.add_client_file(str(Path(__file__).with_name("cifar10_network.py")))
    recipe.execute(SimEnv(clients=list(ROLES), workspace_root=sys.argv[2], log_config="ERROR"))
