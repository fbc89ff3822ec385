"""Workload W with NVFLARE's Collab API, in the manner of its example of simple split learning on MNIST.

python workload_w.py ROWS FOLDER
"""

import sys

import numpy as np
import torch
from marks import mark
from nvflare.collab import CollabRecipe, collab
from nvflare.recipe import SimEnv
from torch import nn

EPOCHS, BATCH, WAIT_S = 5, 64, 300
client = {}


@collab.publish
def start(path):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with np.load(path) as kept:
        client["x"] = torch.from_numpy(kept["x_train"])
        client["x_test"] = torch.from_numpy(kept["x_test"])
    client["model"] = nn.Sequential(nn.Linear(784, 256), nn.ReLU())
    client["sgd"] = torch.optim.SGD(client["model"].parameters(), lr=0.05)


@collab.publish
def forward(rows):
    client["sent"] = client["model"](client["x"][rows])
    return client["sent"].detach()


@collab.publish
def backward(gradient):
    client["sgd"].zero_grad()
    client["sent"].backward(gradient)
    client["sgd"].step()


@collab.publish
def forward_test(begin, end):
    with torch.no_grad():
        return client["model"](client["x_test"][begin:end])


@collab.main
def train():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    path = collab.get_app_prop("rows")
    with np.load(path) as kept:
        y, y_test = torch.from_numpy(kept["y_train"]), torch.from_numpy(kept["y_test"])
    top, loss_of = nn.Linear(256, 10), nn.CrossEntropyLoss()
    sgd = torch.optim.SGD(top.parameters(), lr=0.05)
    site = collab.clients[0]
    site(timeout=WAIT_S).start(path)
    for epoch in range(EPOCHS):
        mark(step=epoch * 200)
        for rows in torch.split(torch.randperm(len(y)), BATCH):
            activation = site(timeout=WAIT_S).forward(rows).requires_grad_()
            loss = loss_of(top(activation), y[rows])
            sgd.zero_grad()
            loss.backward()
            site(timeout=WAIT_S).backward(activation.grad)
            sgd.step()
        mark(step=(epoch + 1) * 200)
    right = 0
    for begin in range(0, len(y_test), 500):
        guess = top(site(timeout=WAIT_S).forward_test(begin, begin + 500)).argmax(1)
        right += (guess == y_test[begin : begin + 500]).sum().item()
    mark(accuracy=right / len(y_test))


if __name__ == "__main__":
    recipe = CollabRecipe(job_name="workload_w", min_clients=1)
    recipe.set_server_prop("rows", sys.argv[1])
    recipe.execute(SimEnv(num_clients=1, workspace_root=sys.argv[2], log_config="ERROR"))
