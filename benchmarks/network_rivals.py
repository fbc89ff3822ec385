"""What the parties of the network benchmarks are held against: a pair by hand on a raw socket, and the uncut loop.

Started as a script, this is one process; it prints steps a second, an epoch a line, as JSON:

    python benchmarks/network_rivals.py loop w --epochs 3
    python benchmarks/network_rivals.py server w --epochs 3          # prints its port first
    python benchmarks/network_rivals.py client w --epochs 3 --port PORT

The pair is as quick as care can make it: one thread a process, one TCP connection without TLS or frames, no delay,
memory for what comes allocated once, nothing copied that need not be, nothing checked, logged or kept, and each side
does its optimizer's step after it has sent what the other waits for. Loop and pair take the same rows.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Callable

import network_pair
import torch
from network_pair import BATCH, WORKS, Work, tell
from torch import Tensor, nn

from cutlayer.transports import aligned_buffer

LOSS = nn.CrossEntropyLoss()


def halves(work: Work) -> tuple[nn.Module, nn.Module]:
    """Return the network before the cut and after it."""
    whole = network_pair.network(work)
    if work.widths:
        return whole[:3], whole[3:]
    at = int(work.cut.split(".")[-1]) + 1
    head, tail = whole.features[:at], whole.features[at:]
    rest = [child for name, child in whole.named_children() if name != "features"]
    return head, nn.Sequential(tail, *rest)


def optimizer(module: nn.Module, work: Work) -> torch.optim.Optimizer:
    """Return the optimizer of the work."""
    return torch.optim.SGD(module.parameters(), lr=work.rate, momentum=work.momentum)


def epochs_of(work: Work, epochs: int, step: Callable[[Tensor, Tensor], None]) -> None:
    """Call ``step`` with rows and labels of each batch, in a new order each epoch; tell when an epoch ends."""
    x, y = network_pair.rows_of(work)
    draw = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x), generator=draw), BATCH):
            step(x[rows], y[rows])
        tell(event="epoch_ended", steps=len(x) // BATCH)


def loop(work: Work, epochs: int) -> None:
    """Train the uncut network."""
    whole = network_pair.network(work)
    sgd = optimizer(whole, work)
    total = 0.0

    done = 0

    def step(x: Tensor, y: Tensor) -> None:
        nonlocal total, done
        loss = LOSS(whole(x), y)
        (loss / work.accumulate).backward()
        total += loss.item()
        done += 1
        if done % work.accumulate == 0:
            sgd.step()
            sgd.zero_grad()

    epochs_of(work, epochs, step)


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a tensor."""
    return memoryview(tensor.detach().contiguous().numpy()).cast("B")


def room_for(shape: torch.Size | tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, memoryview]:
    """Return a tensor to be received into, on a boundary that arithmetic likes, and its memory."""
    size = int(torch.Size(shape).numel()) * dtype.itemsize
    memory = aligned_buffer(size)
    return torch.frombuffer(memory, dtype=dtype).view(shape), memory


def fill(connection: socket.socket, memory: memoryview) -> None:
    """Receive until ``memory`` is full."""
    while memory:
        came = connection.recv_into(memory)
        if not came:
            raise EOFError
        memory = memory[came:]


def client(work: Work, epochs: int, port: int) -> None:
    """Train the first half: send activations and labels, receive gradients."""
    head, _ = halves(work)
    sgd = optimizer(head, work)
    shape = head(network_pair.rows_of(work)[0][:BATCH]).shape
    gradient, memory = room_for(shape, torch.float32)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def step(x: Tensor, y: Tensor) -> None:
            activation = head(x)
            connection.sendall(bytes_of(activation))
            connection.sendall(bytes_of(y))
            fill(connection, memory)
            sgd.zero_grad()
            activation.backward(gradient)
            sgd.step()

        epochs_of(work, epochs, step)


def server(work: Work, epochs: int) -> None:
    """Train the second half: receive activations and labels, send gradients."""
    head, top = halves(work)
    sgd = optimizer(top, work)
    shape = head(network_pair.rows_of(work)[0][:BATCH]).shape
    activation, values = room_for(shape, torch.float32)
    labels, numbers = room_for((BATCH,), torch.int64)
    total, steps = 0.0, work.rows // BATCH
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tell(port=listener.getsockname()[1])
        connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(epochs):
        for _ in range(steps):
            fill(connection, values)
            fill(connection, numbers)
            smashed = activation.detach().requires_grad_()
            sgd.zero_grad()
            loss = LOSS(top(smashed), labels)
            loss.backward()
            if smashed.grad is not None:
                connection.sendall(bytes_of(smashed.grad))
            sgd.step()
            total += loss.item()
        tell(event="epoch_ended", steps=steps)


def main() -> int:
    """Be one process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["loop", "server", "client"])
    parser.add_argument("work", choices=list(WORKS))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    work = WORKS[asked.work]
    if asked.what == "loop":
        loop(work, asked.epochs)
    elif asked.what == "server":
        server(work, asked.epochs)
    else:
        client(work, asked.epochs, asked.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
