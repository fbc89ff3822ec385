"""What one way of training costs: a cut, a topology and a schedule, or a method without a cut."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..graph.split_graph import SplitGraph
from ..schedules import Parallel, Schedule, SplitFed
from ..schedules.steps import Step
from .events import Timeline
from .forecast import Forecast
from .pace import ByFlops, clients_of, moves
from .places import Network, Place
from .setting import LOCAL, Setting
from .tariff import Priced

__all__ = ["Offer", "memory_bytes", "offer"]

_TIMED = 2
"""Epochs whose events are gone through; those after them take as long as the last."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One way of training, with what it costs.

    Of clients, numbers are those of the one with the most; of servers, all that is no client together, but memory.

    Attributes:
        method: Vanilla, u_shaped, multi_hop, fedavg, large_batch.
        schedule: Its schedule in a word.
        cut: The modules after which it is cut, joined by ``+``.
        client_forward_flops: Forwards of the whole training.
        client_flops: Forwards and backwards of the whole training.
        server_forward_flops: Forwards elsewhere.
        server_flops: Forwards and backwards elsewhere.
        client_parameters: Weights that a client has.
        server_parameters: Those elsewhere.
        client_memory_bytes: The most at a time, estimated: see `memory_bytes`.
        server_memory_bytes: The same, elsewhere.
        batch_up_bytes: Frames that a client sends for one training batch.
        batch_down_bytes: Frames that come to it.
        client_sent_bytes: All that a client sends in the whole training, evaluations and hand-overs too.
        client_received_bytes: All that comes to it.
        total_bytes: All that is sent by anybody.
        phases: The same by phase: training, evaluation, hand-over.
        seconds: How long the whole training takes.
        leakage: Distance correlation of raw rows and what crosses at the first cut at initial weights; NaN where it
            was not measured.
        batch_size: Rows in a batch of the client that has the most.
        epochs: How many.
    """

    method: str
    schedule: str = ""
    cut: str = ""
    client_forward_flops: int
    client_flops: int
    server_forward_flops: int
    server_flops: int
    client_parameters: int
    server_parameters: int
    client_memory_bytes: int
    server_memory_bytes: int
    batch_up_bytes: int
    batch_down_bytes: int
    client_sent_bytes: int
    client_received_bytes: int
    total_bytes: int
    phases: Mapping[str, int]
    seconds: float
    leakage: float = math.nan
    batch_size: int
    epochs: int

    @property
    def client_bytes(self) -> int:
        """All that a client sends and receives."""
        return self.client_sent_bytes + self.client_received_bytes

    @property
    def epoch_bytes(self) -> float:
        """What a client sends and receives in an epoch, on average."""
        return self.client_bytes / self.epochs

    @property
    def epoch_up_bytes(self) -> float:
        """What a client sends in an epoch, on average."""
        return self.client_sent_bytes / self.epochs

    @property
    def epoch_down_bytes(self) -> float:
        """What comes to a client in an epoch, on average."""
        return self.client_received_bytes / self.epochs

    @property
    def first_cut(self) -> str:
        """The module after which it is cut first."""
        return self.cut.split(" + ")[0]

    @property
    def sample_up_bytes(self) -> float:
        """What a client sends for one row of a training batch."""
        return self.batch_up_bytes / self.batch_size

    @property
    def sample_down_bytes(self) -> float:
        """What comes to a client for one row of a training batch."""
        return self.batch_down_bytes / self.batch_size

    @property
    def name(self) -> str:
        """What it is, in a line."""
        words = [
            self.method.replace("_", "-"),
            *([f"cut after {self.cut}"] if self.cut else []),
            self.schedule,
        ]
        return ", ".join(word for word in words if word)


def offer(
    network: Network,
    place: Place,
    word: str,
    schedule: Schedule,
    setting: Setting,
    leakage: float = math.nan,
) -> Offer:
    """Return what it costs to train ``network``, cut at ``place``, by ``schedule``.

    Args:
        network: What is trained.
        place: Where it is cut.
        word: The schedule in a word.
        schedule: When.
        setting: With whom, for how long.
        leakage: Distance correlation at the first cut, where it is known.
    """
    alone = word == LOCAL
    graph = network.graph(place, setting.clients, setting.codecs, shared=setting.share_labels, alone=alone)
    counter = None if alone else network.counter(place)
    forecast = Forecast(setting.study(graph, schedule), setting.dealt, counter=counter)
    clients, totals = clients_of(graph), forecast.totals
    segments = graph.segments.values()
    held = {
        name: sum(p.numel() for s in segments if s.role == name for p in s.module.parameters())
        for name in graph.roles
    }
    memory = memory_bytes(forecast)
    up, down = _batch_bytes(forecast, clients[0])
    others = [party.name for party in graph.parties if party.role != "client"]
    return Offer(
        method=place.topology,
        schedule=word,
        cut=str(place),
        client_forward_flops=max(totals.forward_flops[c] for c in clients),
        client_flops=max(totals.flops[c] for c in clients),
        server_forward_flops=sum(totals.forward_flops[name] for name in others),
        server_flops=sum(totals.flops[name] for name in others),
        client_parameters=held["client"],
        server_parameters=sum(count for name, count in held.items() if name != "client"),
        client_memory_bytes=memory["client"],
        server_memory_bytes=max(size for name, size in memory.items() if name != "client"),
        batch_up_bytes=up,
        batch_down_bytes=down,
        client_sent_bytes=max(totals.sent_bytes[c] for c in clients),
        client_received_bytes=max(totals.received_bytes[c] for c in clients),
        total_bytes=totals.sent_bytes.total(),
        phases=dict(totals.phases),
        seconds=_seconds(forecast, setting, graph),
        leakage=leakage,
        batch_size=setting.batch_rows,
        epochs=setting.epochs,
    )


def _seconds(forecast: Forecast, setting: Setting, graph: SplitGraph) -> float:
    """Return how long the training takes: the first epochs event by event, then as long as the last of these."""
    host = [party.name for party in graph.parties if party.name not in clients_of(graph)][-1]
    timeline, pace = Timeline(setting.world.lines(graph), hub=host), ByFlops(setting.world, graph)
    ends = [0.0] + [timeline.perform(moves(items, pace)) for items in forecast.epochs(_TIMED)]
    return ends[-1] + (setting.epochs - len(ends) + 1) * (ends[-1] - ends[-2])


def _batch_bytes(forecast: Forecast, client: str) -> tuple[int, int]:
    """Return the bytes of frames that ``client`` sends and gets for its first training batch."""
    for item in forecast.course.training(0):
        if isinstance(item, Step) and any(action.party == client for action in item.template):
            priced = next(iter(forecast.tariff.of([item])))
            sent = sum(p.cost.sent_bytes for p in priced if p.action.party == client)
            return sent, sum(p.cost.sent_bytes for p in priced if p.cost.to == client)
    return 0, 0


def memory_bytes(forecast: Forecast) -> dict[str, int]:
    """Return what a party of each role needs at a time, estimated.

    Weights and buffers, their gradients and the optimizer's slots, activations that the forward of one batch keeps for
    the backward, and the frames of one batch. Copies that a server keeps side by side count each. Python, PyTorch,
    the data and what convolutions need for themselves come on top.
    """
    study, tariff = forecast.study, forecast.tariff
    graph, schedule = study.graph, study.schedule
    for name in graph.trainable:
        tariff.states.step(name)
    step = next((i for i in forecast.course.training(0) if isinstance(i, Step)), None)
    priced: list[Priced] = next(iter(tariff.of([step]))) if step is not None else []
    found = {}
    for role in graph.roles.values():
        crowded = len(role.parties) > 1
        clients = len(graph.turns)
        copies = min(schedule.at_once, clients) if isinstance(schedule, SplitFed) and not crowded else 0
        copies = 0 if isinstance(schedule, SplitFed) and schedule.version == 2 else copies
        rows = study.batch_size * (clients if isinstance(schedule, Parallel) and not crowded else 1)
        total = 0
        for segment in graph.segments_of(role.name):
            state, slots = tariff.states.held_bytes(segment.name)
            gradients = tariff.states.trained_bytes(segment.name)
            total += state + (copies or 1) * (gradients + slots) + copies * state
            total += tariff.counter.of(segment.name, rows).kept_bytes
        found[role.name] = total + _most_framed(priced, role.parties)
    return found


def _most_framed(priced: Iterable[Priced], parties: tuple[str, ...]) -> int:
    """Return the bytes of the frames of one step that the busiest of ``parties`` makes or gets."""
    most = dict.fromkeys(parties, 0)
    for one in priced:
        for party in (one.action.party, one.cost.to):
            if party in most:
                most[party] += one.cost.sent_bytes
    return max(most.values())
