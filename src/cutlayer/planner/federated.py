"""Federated averaging and large-batch synchronous SGD on the same data: what they cost, to compare with.

In both every client has the whole network. With W the bytes of its weights and buffers (McMahan et al. 2017; the sums
are those of Singh et al. 2019, arXiv 1909.09145): a round is W down to each client and W up again. Federated averaging
has one round for its local epochs, large-batch SGD one for each step, in which every client works on one batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from .counting import Counted
from .events import Move, Timeline
from .framing import frame_bytes
from .offers import Offer
from .places import Network
from .setting import Setting

__all__ = ["METHODS", "rival"]

METHODS = ("fedavg", "large_batch")
_SERVER = "server"


def rival(network: Network, method: str, setting: Setting) -> Offer:
    """Return what ``method`` costs: ``"fedavg"`` or ``"large_batch"``."""
    dealt = [rows["train"] for rows in setting.dealt]
    steps = math.ceil(max(dealt) / setting.batch_size)
    local = min(setting.local_epochs, setting.epochs)
    rounds = setting.epochs * steps if method == "large_batch" else math.ceil(setting.epochs / local)
    weights = _state_bytes(network)
    counted = _epoch(network, setting, max(dealt))
    exchanged = rounds * weights
    return Offer(
        method=method,
        client_forward_flops=setting.epochs * counted.forward,
        client_flops=setting.epochs * (counted.forward + counted.backward),
        server_flops=0,
        client_parameters=network.parameters,
        server_parameters=network.parameters,
        client_memory_bytes=_client_memory(network, setting),
        server_memory_bytes=3 * weights,
        batch_up_bytes=weights // (1 if method == "large_batch" else steps * local),
        batch_down_bytes=weights // (1 if method == "large_batch" else steps * local),
        client_sent_bytes=exchanged,
        client_received_bytes=exchanged,
        total_bytes=2 * exchanged * setting.clients,
        phases={"training": 2 * exchanged * setting.clients},
        seconds=_seconds(network, setting, method, rounds, weights),
        batch_size=setting.batch_size,
        epochs=setting.epochs,
    )


def _epoch(network: Network, setting: Setting, rows: int) -> Counted:
    """Return what a client with so many rows computes in an epoch."""
    full, rest = divmod(rows, setting.batch_size)
    parts = [(full, setting.batch_size), (1, rest)]
    pieces = [
        (times, piece) for times, size in parts if times and size for piece in network.chain.counted(size)
    ]
    return Counted(
        forward=sum(times * piece.forward for times, piece in pieces),
        backward=sum(times * piece.backward for times, piece in pieces),
        infer=0,
        kept_bytes=0,
    )


def _state_bytes(network: Network) -> int:
    """Return the bytes of a frame with all weights and buffers."""
    state = {**dict(network.whole.named_parameters()), **dict(network.whole.named_buffers())}
    specs = [(name, t.dtype, tuple(t.shape)) for name, t in state.items()]
    return frame_bytes("weights", specs) if specs else 0


def _client_memory(network: Network, setting: Setting) -> int:
    """Return weights, gradients, slots and activations of a client that has everything, in bytes."""
    parameters = [nn.Parameter(torch.zeros_like(p, device="meta")) for p in network.whole.parameters()]
    weights = sum(t.nbytes for t in (*network.whole.parameters(), *network.whole.buffers()))
    made = setting.optimizer.build(parameters)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    slots = sum(
        value.nbytes
        for state in made.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    rows = min(setting.batch_size, max(r["train"] for r in setting.dealt))
    kept = sum(piece.kept_bytes for piece in network.chain.counted(rows))
    return weights + sum(p.nbytes for p in parameters) + slots + kept + _state_bytes(network)


def _seconds(network: Network, setting: Setting, method: str, rounds: int, weights: int) -> float:
    """Return how long all rounds take, one round event by event."""
    names = [f"client-{index}" for index in range(setting.clients)]
    world = setting.world
    factors = world.factors(names)
    lines = {name: world.line.scaled(factors[name][1]) for name in names} | {_SERVER: world.server_line}
    flops = {}
    for rows in {dealt["train"] for dealt in setting.dealt}:
        counted = _epoch(network, setting, rows)
        flops[rows] = counted.forward + counted.backward
    share = setting.epochs / rounds
    computing = {
        name: share * flops[rows["train"]] / (world.client_flops * factors[name][0])
        for name, rows in zip(names, setting.dealt, strict=True)
    }
    timeline = Timeline(lines)
    return rounds * timeline.perform(_round(names, computing, weights))


def _round(names: list[str], computing: dict[str, float], weights: int) -> Iterator[Move]:
    for name in names:
        yield Move(_SERVER, "send", weights, name)
        yield Move(name, "receive", 0.0, _SERVER)
        yield Move(name, "work", computing[name])
        yield Move(name, "send", weights, _SERVER)
    for name in names:
        yield Move(_SERVER, "receive", 0.0, name)
