"""How long each action takes on this machine: as it took in a short training on noise, call by call.

A simulation does one action after the other, so that its time is the sum of theirs. What an action takes depends on
whose role it is, what it is about (sending activations is not sending gradients), and how many rows it has; some of it
is the same for any number of rows. The first batch of each shape takes longer (its FLOPs are counted, memory is found),
and is told apart.
"""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data import Holdings, PartyData, Records
from ..errors import StudyError
from ..graph.parts import Role, TensorSpec
from ..graph.split_graph import SplitGraph
from ..metering.events import Ended, Worked
from ..runtime.party import LocalParty, Runner
from ..schedules import Parallel, SplitFed
from ..schedules.actions import Action
from ..study import Study
from .forecast import Forecast
from .pace import clients_of
from .tariff import Priced

__all__ = ["Rehearsed", "rehearse"]

_COPY = re.compile(r"[#*/:]")
_INTERRUPTED = 3.0
"""Calls that took as many times the median are those in which the machine did something else."""
_PARTIES, _JOINED_PARTIES, _JOINED_BATCHES = 2, 32, 8
"""Of a crowded role, so many take part in a rehearsal; more where clients work side by side, each with fewer batches
then: as many as ``_JOINED_BATCHES`` parties would have. A joint step is not as long as its parts, and many copies of
weights do not stay in the processor's memory."""


class Kind(NamedTuple):
    """Actions that take as long as each other with as many rows.

    Attributes:
        role: Of the party.
        op: What is done.
        what: The segment, cut or role that it is about, without the number of a copy or batch.
        training: Whether it is of a batch that is trained on.
    """

    role: str
    op: str
    what: str
    training: bool


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """As long as actions of the same kind took in a rehearsal.

    Attributes:
        known: By kind, seconds of a call by rows.
        roles: Each party's role.
        epoch_s: Seconds of an epoch in which no action is done: looking through weights, writing the log.
        once_s: Seconds that first batches take more than later ones, by party, once.
    """

    known: Mapping[Kind, Mapping[int, float]]
    roles: Mapping[str, str]
    epoch_s: float = 0.0
    once_s: Mapping[str, float] = field(default_factory=dict)

    def seconds(self, priced: Priced) -> float:
        """See `pace.Pace`."""
        points = self.known.get(_kind(priced, self.roles))
        return 0.0 if points is None else _at(points, priced.rows)

    def simulation(self, forecast: Forecast) -> float:
        """Return how many seconds a simulation takes from first action to last; early stopping is not foreseen."""
        total = sum(self.once_s.values()) + forecast.study.epochs * self.epoch_s
        known: dict[int, tuple[list[Priced], float]] = {}
        for items in forecast.epochs():
            for item in items:
                if id(item) not in known:  # the item is kept, so that no other gets its number
                    known[id(item)] = item, sum(map(self.seconds, item))
                total += known[id(item)][1]
        return total


def _kind(priced: Priced, roles: Mapping[str, str]) -> Kind:
    action = priced.action
    what = _COPY.split(action.what, maxsplit=1)[0]
    return Kind(roles[action.party], action.op, what, priced.training)


def _at(points: Mapping[int, float], rows: int) -> float:
    """Return the seconds for ``rows``: as measured, or on the line through the two nearest that were measured."""
    if rows in points:
        return points[rows]
    counts = sorted(points)
    if len(counts) == 1:
        return points[counts[0]] * (rows / counts[0] if counts[0] else 1.0)
    above = min(max(int(np.searchsorted(counts, rows)), 1), len(counts) - 1)
    low, high = counts[above - 1], counts[above]
    slope = max(points[high] - points[low], 0.0) / (high - low)
    return max(points[high] + slope * (rows - high), 0.0)


class _Watch:
    """Times every action of a simulation, in the order of the program."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def instead(self, _: LocalParty, __: Action, honest: Runner) -> Runner:
        """Return a runner that does the same and notes how long it took."""
        note = self.seconds.append

        def run(step: int, what: str) -> None:
            began = perf_counter_ns()
            honest(step, what)
            note((perf_counter_ns() - began) / 1e9)

        return run


def rehearse(study: Study, *, batches: int = 4, rows: int | None = None, repeats: int = 2) -> Rehearsed:
    """Train ``study`` for a moment on rows of noise, with a few parties of each crowded role, and time every action.

    Args:
        study: What is to be timed; its modules hold numbers.
        batches: Full training batches of each party in an epoch; one of half as many rows comes behind them.
        rows: Rows to evaluate on, of each party; none unless given.
        repeats: Epochs that are timed, after a first one that is told apart.

    Raises:
        StudyError: The shapes of fields are not known.
    """
    joined = isinstance(study.schedule, Parallel | SplitFed)
    graph = _fewer(study.graph, _JOINED_PARTIES if joined else _PARTIES)
    if joined:
        batches = max(1, batches * _JOINED_BATCHES // max(_JOINED_BATCHES, len(graph.turns)))
    held = {"train": batches * study.batch_size + _half(study)} | ({"test": rows} if rows else {})
    small = dataclasses.replace(
        study, graph=graph, epochs=1 + repeats, early_stopping=None, metrics=("loss",), evaluate=("test",)
    )
    watch = _Watch()
    run = small.simulate(_noise(graph, held), instead=watch.instead)
    forecast = Forecast(small, [held] * len(graph.turns))
    epochs = [[one for item in items for one in item] for items in forecast.epochs()]
    roles = {party.name: party.role for party in study.graph.parties}
    clock = iter(watch.seconds)
    timed = [[(one, next(clock)) for one in epoch] for epoch in epochs]
    known = _usual(timed[1:], roles)
    for kind, points in _usual(timed[:1], roles).items():  # some things are done in the first epoch alone
        known.setdefault(kind, points)
    whole = next(event.seconds for event in reversed(run.events) if isinstance(event, Ended))
    worked = sum(event.seconds for event in run.events if isinstance(event, Worked))
    made = Rehearsed(known=known, roles=roles, epoch_s=max(whole - worked, 0.0) / small.epochs)
    return dataclasses.replace(made, once_s=_once(made, timed[0], study.graph, graph))


def _half(study: Study) -> int:
    """Return the rows of a smaller batch, from which it is known what does not depend on rows; 0 for none."""
    return study.batch_size // 2 if study.batch_size >= 4 and not study.drop_last else 0


def _usual(
    epochs: Sequence[Sequence[tuple[Priced, float]]], roles: Mapping[str, str]
) -> dict[Kind, dict[int, float]]:
    found: defaultdict[Kind, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for epoch in epochs:
        for one, seconds in epoch:
            found[_kind(one, roles)][one.rows].append(seconds)
    return {kind: {rows: _mean(calls) for rows, calls in points.items()} for kind, points in found.items()}


def _mean(calls: Sequence[float]) -> float:
    """Return the mean of calls in which the machine did nothing else for long."""
    most = _INTERRUPTED * statistics.median(calls)
    return statistics.fmean(call for call in calls if call <= most)


def _once(
    usual: Rehearsed, first: Sequence[tuple[Priced, float]], whole: SplitGraph, small: SplitGraph
) -> dict[str, float]:
    """Return by how much the first epoch took longer than others, by party.

    In a simulation what is learned in a first batch, as its FLOPs, is known to all parties behind the first of them;
    clients that the rehearsal did not have are as its last one.
    """
    more: defaultdict[str, float] = defaultdict(float)
    for one, seconds in first:
        more[one.action.party] += seconds - usual.seconds(one)
    there = {party.name for party in small.parties}
    crowd = [name for name in clients_of(small) if name in there]
    last = max(more.get(crowd[-1], 0.0), 0.0) if crowd else 0.0
    missing = {name: last for name in clients_of(whole) if name not in there}
    return {name: max(seconds, 0.0) for name, seconds in more.items()} | missing


def _fewer(graph: SplitGraph, most: int) -> SplitGraph:
    """Return the same graph, over the same modules, with at most so many parties of each role."""
    fewer = SplitGraph(
        roles=[Role(role.name, role.parties[:most], role.fields) for role in graph.roles.values()],
        segments=graph.segments.values(),
        losses=graph.losses.values(),
        shares=graph.shares,
        example=graph.example,
        name=graph.name,
    )
    fewer.cuts = graph.cuts
    return fewer


def _noise(graph: SplitGraph, held: Mapping[str, int]) -> Holdings:
    """Return noise as the graph says fields are; labels are all 0."""
    parties = []
    for role in graph.roles.values():
        for party in role.parties if role.fields else ():
            splits = {
                split: Records(
                    np.arange(count), {n: _rows(spec, n, count) for n, spec in role.fields.items()}
                )
                for split, count in held.items()
            }
            parties.append(PartyData(name=party, role=role.name, splits=splits))
    return Holdings(tuple(parties))


def _rows(spec: TensorSpec | None, name: str, count: int) -> Tensor:
    if spec is None:
        raise StudyError(f"the shape of field {name!r} is not known", todo="give example= rows of all fields")
    made = torch.zeros((count, *spec.shape), dtype=spec.dtype)
    if spec.dtype.is_floating_point and spec.shape:
        made.normal_(generator=torch.Generator().manual_seed(0))
    return made
