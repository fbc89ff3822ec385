"""The baselines' loops: one round of federated averaging, one of large-batch SGD."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns

import torch
from torch import Tensor

from ..metering.meter import Meter
from ..runtime.live import State
from ..schedules.calendar import Batch
from ..wire import Kind, Limits, Message, encode
from .clients import Clients
from .methods import FedAvg, FedProx, LargeBatch, Method
from .uncut import Uncut, numbers_of

__all__ = ["Work", "perform_round"]

_LIMITS = Limits(max_frame_bytes=2**36, max_tensors=2**16 - 1)
_WEIGHTS, _GRADIENTS, _PHASE = "weights", "gradients", "training"


@dataclass(kw_only=True)
class Work:
    """Who does a round, and what is noted of it.

    Attributes:
        uncut: The network, with the weights that the server has.
        clients: Whose rows.
        server: The party that averages.
        meter: Where frames and time are counted.
        on_batch: Called with the loss after each batch of a client.
        step: Batches of all clients so far, over the whole training.
        steps: Of them, those of this round.
        totals: By loss, its sum over the round's rows and their number.
    """

    uncut: Uncut
    clients: Clients
    server: str
    meter: Meter
    on_batch: Callable[[float], None] = lambda loss: None
    step: int = 0
    steps: int = 0
    totals: dict[str, list[float]] = field(default_factory=dict)

    def learn(self, batch: Batch) -> int:
        """Have a client work out the gradients of one of its batches; return how many rows it has."""
        fields = self.clients.read(batch)
        rows = self.clients.calendar.size(batch)
        total, each = self.uncut.learn(self.clients.names[batch.turn], fields, self.step)
        self.step, self.steps = self.step + 1, self.steps + 1
        for name, value in each.items():
            noted = self.totals.setdefault(name, [0.0, 0.0])
            noted[0] += value * rows
            noted[1] += rows
        self.on_batch(total)
        return rows

    def tell(self, turns: Sequence[int], phase: str = _PHASE) -> None:
        """Have the server send its network to clients: one frame is made, and counted for each."""
        sent = numbers_of(self.uncut.state(memory=False))
        frame = encode(Message(Kind.HANDOVER, _WEIGHTS, self.step, sent), limits=_LIMITS)
        for turn in turns:
            client = self.clients.names[turn]
            self._count(phase, Kind.HANDOVER, _WEIGHTS, self.server, client, frame, sent)

    def send(self, turn: int, kind: Kind, what: str, sent: tuple[tuple[str, Tensor], ...]) -> None:
        """Have a client send tensors to the server."""
        frame = encode(Message(kind, what, self.step, sent), limits=_LIMITS)
        self._count(_PHASE, kind, what, self.clients.names[turn], self.server, frame, sent)

    def _count(
        self,
        phase: str,
        kind: Kind,
        what: str,
        sender: str,
        receiver: str,
        frame: memoryview,
        sent: tuple[tuple[str, Tensor], ...],
    ) -> None:
        count = self.meter.traffic(phase, what, kind, sender, receiver)
        count[0] += 1
        count[1] += len(frame)
        count[2] += sum(tensor.nbytes for _, tensor in sent)


def perform_round(work: Work, method: Method, number: int) -> None:
    """Do round ``number`` of a baseline; the network then has the new weights of the server."""
    work.steps, work.totals = 0, {}
    turns = method.drawn(work.clients.seed, work.clients.training, number)
    if isinstance(method, FedAvg):
        _federated(work, method, number, turns)
    elif isinstance(method, LargeBatch):
        _synchronous(work, method, number, turns)


# Federated averaging


def _federated(work: Work, method: FedAvg, number: int, turns: Sequence[int]) -> None:
    """Send the network out, have each client train it on its own rows, and take the mean of what comes back."""
    network = work.uncut
    mu = method.mu if isinstance(method, FedProx) else 0.0
    start = _copied(network.state(memory=False))
    mean = _Mean()
    work.tell(turns)
    for turn in turns:
        network.restore(start)  # without optimizer slots: a client's optimizer begins anew
        _train_at(work, turn, range(number * method.local_epochs, (number + 1) * method.local_epochs), mu)
        work.send(turn, Kind.HANDOVER, _WEIGHTS, numbers_of(network.state(memory=False)))
        mean.add(network.state(memory=False), work.clients.rows(turn))
    began = perf_counter_ns()
    network.restore(mean.state())
    _spent(work, "average", began)


def _train_at(work: Work, turn: int, epochs: range, mu: float) -> None:
    """Train the network on one client's rows."""
    network = work.uncut
    anchors = [p.detach().clone() for p in network.parameters] if mu else []
    for epoch in epochs:
        for batch in work.clients.epoch(turn, epoch):
            work.learn(batch)
            for parameter, anchor in zip(network.parameters, anchors, strict=False):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - anchor, alpha=mu)
            network.step()
        network.advance()


class _Mean:
    """A mean of states weighted by rows, summed in float64; of counts the most, of learning rates the furthest."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], Tensor] = {}
        self._kept: dict[str, State] = {}
        self._rows = 0
        self._moves = -1

    def add(self, state: Mapping[str, State], rows: int) -> None:
        """Add a client's state, which counts as much as its rows."""
        self._rows += rows
        for segment, tensors in state.items():
            for key, tensor in tensors.items():
                place = (segment, key)
                if key.startswith("weight/") and tensor.is_floating_point():
                    if place not in self._sums:
                        self._sums[place] = torch.zeros_like(tensor, dtype=torch.float64)
                    self._sums[place].add_(tensor, alpha=rows)
                elif key.startswith("weight/"):
                    most = self._sums.get(place, tensor)
                    self._sums[place] = torch.maximum(most, tensor)
        moves = _moves(state)
        if moves > self._moves:
            self._kept, self._moves = _copied(state), moves

    def state(self) -> dict[str, State]:
        """Return the mean as a state."""
        found = {name: dict(tensors) for name, tensors in self._kept.items()}
        for (segment, key), total in self._sums.items():
            like = found[segment][key]
            found[segment][key] = (total / self._rows).to(like.dtype) if like.is_floating_point() else total
        return found


def _moves(state: Mapping[str, State]) -> int:
    """Return how often the learning-rate schedules moved on."""
    noted = [json.loads(bytes(tensors["scalars"].tolist())) for tensors in state.values()]
    return sum(int((one.get("schedule") or {}).get("last_epoch", 0)) for one in noted)


# Large-batch SGD


def _synchronous(work: Work, method: LargeBatch, number: int, turns: Sequence[int]) -> None:
    """Do the steps of a round: each client's gradient of a batch at the server's weights, their mean, one step."""
    has = {turn: work.clients.calendar.batches(turn, "train") for turn in turns}
    for index in range(method.steps or max(has.values())):
        batches = []
        for turn, count in has.items():
            place = number * method.steps + index if method.steps else number * count + index
            if method.steps or index < count:
                batches.append(Batch("train", turn, place // count, place % count))
        _step_together(work, batches)
    if _ends_an_epoch(method, number, max(has.values())):
        work.uncut.advance()


def _ends_an_epoch(method: LargeBatch, number: int, batches: int) -> bool:
    """Return whether a round goes over the end of an epoch, which is when learning-rate schedules move on."""
    if not method.steps:
        return True
    return (number + 1) * method.steps // batches > number * method.steps // batches


def _step_together(work: Work, batches: Sequence[Batch]) -> None:
    """Average the gradients, and what a normalisation counts, of clients' batches; do the server's step."""
    network = work.uncut
    before = {name: buffer.detach().clone() for name, buffer in network.buffers.items()}
    gradients: dict[int, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    work.tell([batch.turn for batch in batches])
    together = 0
    for batch in batches:
        _set_buffers(network, before)
        rows = work.learn(batch)
        together += rows
        work.send(batch.turn, Kind.GRADIENT, _GRADIENTS, _learnt(network))
        for place, parameter in enumerate(network.parameters):
            if parameter.grad is not None:
                if place not in gradients:
                    gradients[place] = torch.zeros_like(parameter, dtype=torch.float64)
                gradients[place].add_(parameter.grad, alpha=rows)
                parameter.grad = None
        for name, buffer in network.buffers.items():
            buffers[name] = _added(buffers.get(name), buffer.detach(), rows)
    began = perf_counter_ns()
    for place, parameter in enumerate(network.parameters):
        if place in gradients:
            parameter.grad = (gradients[place] / together).to(parameter.dtype)
    _set_buffers(network, {n: b / together if b.dtype == torch.float64 else b for n, b in buffers.items()})
    network.step()
    _spent(work, "step", began)


def _learnt(network: Uncut) -> tuple[tuple[str, Tensor], ...]:
    """Return what a client sends: the gradients of all weights, and the buffers that its batch changed."""
    gradients = [
        (f"{name}/grad/{key}", p.grad.cpu())
        for name, live in network.live.items()
        for key, p in live.module.named_parameters()
        if p.grad is not None
    ]
    return (*gradients, *((name, buffer.detach().cpu()) for name, buffer in network.buffers.items()))


def _added(total: Tensor | None, buffer: Tensor, rows: int) -> Tensor:
    if not buffer.is_floating_point():
        return buffer.clone() if total is None else torch.maximum(total, buffer)
    return buffer.double() * rows if total is None else total.add_(buffer, alpha=rows)


def _set_buffers(network: Uncut, values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, buffer in network.buffers.items():
            buffer.copy_(values[name])


def _copied(state: Mapping[str, State]) -> dict[str, State]:
    return {name: {key: t.detach().clone() for key, t in tensors.items()} for name, tensors in state.items()}


def _spent(work: Work, what: str, began: int) -> None:
    time = work.meter.time(work.server, what)
    time[0] += 1
    time[1] += perf_counter_ns() - began
