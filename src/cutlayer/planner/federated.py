"""Federated averaging and large-batch synchronous SGD on the same data: what they cost, to compare with.

In both every client has the whole network. With W the bytes of its weights and buffers (McMahan et al. 2017; the sums
are those of Singh et al. 2019, arXiv 1909.09145): a round of federated averaging, for its local epochs, is W down to
each client and W up again; a step of large-batch SGD, in which every client works on one batch, is W down and the
gradients of what is trained, with the buffers, up. To be measured the network goes down once more, after each round, of
large-batch SGD after each epoch. These are the bytes and FLOPs that `cutlayer.baselines` counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from .counting import Counted
from .events import Move, Timeline
from .framing import States, frame_bytes
from .offers import Offer
from .places import Network, Place
from .setting import Setting

__all__ = ["METHODS", "rival"]

METHODS = ("fedavg", "large_batch")
_SERVER = "server"
_EVALUATED = 256
"""Rows in a batch that is only measured, as everywhere: see `Calendar`."""


@dataclass(frozen=True)
class _Frames:
    """Bytes of frames: the network's weights and buffers, and what comes back in a step of large-batch SGD."""

    weights: int
    gradients: int

    @classmethod
    def of(cls, network: Network, place: Place, setting: Setting) -> _Frames:
        graph = network.graph(place, 1)
        states = States(graph, dict.fromkeys(graph.order, setting.optimizer))
        weights, gradients, buffers = [], [], []
        for name in graph.order:
            module = graph.segments[name].module
            trained = {key: p for key, p in module.named_parameters() if p.requires_grad}
            kept = {key for key, _ in module.named_buffers()}
            for key, dtype, shape in states.weights(name):
                weights.append((f"{name}/weight/{key}", dtype, shape))
                if key in kept:
                    buffers.append((f"{name}/weight/{key}", dtype, shape))
            gradients += [(f"{name}/grad/{key}", p.dtype, tuple(p.shape)) for key, p in trained.items()]
        return cls(frame_bytes("weights", weights), frame_bytes("gradients", [*gradients, *buffers]))


@dataclass(frozen=True)
class _Client:
    """What one client does in a round, which is one step of large-batch SGD, or so many local epochs."""

    exchanges: int
    measured: int
    down: int
    up: int
    training: Counted
    evaluation: Counted

    @property
    def received(self) -> int:
        return (self.exchanges + self.measured) * self.down

    @property
    def sent(self) -> int:
        return self.exchanges * self.up


def rival(network: Network, method: str, setting: Setting, place: Place | None = None) -> Offer:
    """Return what ``method`` costs: ``"fedavg"`` or ``"large_batch"``.

    Args:
        network: What is trained.
        method: How.
        setting: With whom, for how long.
        place: Where the network is cut that it is compared with; frames name weights by segments. Any unless given.
    """
    place = place or Place("vanilla", (network.candidates[0].name,))
    frames = _Frames.of(network, place, setting)
    known: dict[tuple[int, int], _Client] = {}
    clients = []
    for dealt in setting.dealt:
        key = dealt["train"], dealt.get("test", 0)
        if key not in known:
            known[key] = _client(network, method, setting, frames, *key)
        clients.append(known[key])
    most = clients[0]  # rows are dealt so that nobody has more than the first
    measured = sum(one.measured * one.down for one in clients)
    total = sum(one.received + one.sent for one in clients)
    steps = 1 if method == "large_batch" else _batches(setting, 0) * _local(setting)
    return Offer(
        method=method,
        client_forward_flops=most.training.forward,
        client_flops=most.training.forward + most.training.backward,
        server_forward_flops=0,
        server_flops=0,
        client_parameters=network.parameters,
        server_parameters=network.parameters,
        client_memory_bytes=_client_memory(network, setting, frames),
        server_memory_bytes=3 * frames.weights,
        batch_up_bytes=most.up // steps,
        batch_down_bytes=most.down // steps,
        client_sent_bytes=most.sent,
        client_received_bytes=most.received,
        total_bytes=total,
        phases={"training": total - measured, **({"evaluation": measured} if measured else {})},
        seconds=_seconds(clients, setting),
        batch_size=setting.batch_rows,
        epochs=setting.epochs,
    )


def _local(setting: Setting) -> int:
    return min(setting.local_epochs, setting.epochs)


def _batches(setting: Setting, client: int) -> int:
    return math.ceil(setting.dealt[client]["train"] / setting.batch_size)


def _client(
    network: Network, method: str, setting: Setting, frames: _Frames, train: int, test: int
) -> _Client:
    """Return what a client with so many rows does in the whole training."""
    large = method == "large_batch"
    rounds = setting.epochs if large else math.ceil(setting.epochs / _local(setting))
    epochs = rounds * (1 if large else _local(setting))
    return _Client(
        exchanges=rounds * (math.ceil(train / setting.batch_size) if large else 1),
        measured=rounds if test else 0,
        down=frames.weights,
        up=frames.gradients if large else frames.weights,
        training=_counted(network, train, setting.batch_size, epochs),
        evaluation=_counted(network, test, _EVALUATED, rounds),
    )


def _counted(network: Network, rows: int, batch_size: int, times: int) -> Counted:
    """Return what it costs to go through ``rows`` so many times."""
    full, rest = divmod(rows, batch_size)
    pieces = [
        (number, piece)
        for number, size in ((full, batch_size), (1, rest))
        if number and size
        for piece in network.chain.counted(size)
    ]
    return Counted(
        forward=times * sum(number * piece.forward for number, piece in pieces),
        backward=times * sum(number * piece.backward for number, piece in pieces),
        infer=times * sum(number * piece.infer for number, piece in pieces),
        kept_bytes=0,
    )


def _client_memory(network: Network, setting: Setting, frames: _Frames) -> int:
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
    rows = min(setting.batch_size, setting.dealt[0]["train"])
    kept = sum(piece.kept_bytes for piece in network.chain.counted(rows))
    return weights + sum(p.nbytes for p in parameters) + slots + kept + frames.weights


def _seconds(clients: list[_Client], setting: Setting) -> float:
    """Return how long all rounds take: one of training and one of measuring, event by event, as often as there are."""
    names = [f"client-{index}" for index in range(setting.clients)]
    world = setting.world
    factors = world.factors(names)
    lines = {name: world.line.scaled(factors[name][1]) for name in names} | {_SERVER: world.server_line}
    speeds = {name: world.client_flops * factors[name][0] for name in names}
    by_name = dict(zip(names, clients, strict=True))
    rounds = max(one.exchanges for one in clients)
    training = {
        name: (one.training.forward + one.training.backward) / rounds / speeds[name]
        for name, one in by_name.items()
    }
    seconds = rounds * Timeline(lines).perform(_round(by_name, training, back=True))
    measured = {name: one for name, one in by_name.items() if one.measured}
    if measured:
        times = max(one.measured for one in measured.values())
        infer = {name: one.evaluation.infer / times / speeds[name] for name, one in measured.items()}
        seconds += times * Timeline(lines).perform(_round(measured, infer, back=False))
    return seconds


def _round(clients: Mapping[str, _Client], working: Mapping[str, float], *, back: bool) -> Iterator[Move]:
    """Yield a round: the network goes to each client, who works with it, and sends something ``back`` or does not."""
    for name, one in clients.items():
        yield Move(_SERVER, "send", one.down, name)
        yield Move(name, "receive", 0.0, _SERVER)
        yield Move(name, "work", working[name])
        if back:
            yield Move(name, "send", one.up, _SERVER)
    for name in clients if back else ():
        yield Move(_SERVER, "receive", 0.0, name)
