"""Copies of a state, and the average of several: what parties do who train side by side."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from ..schedules.actions import Action
from .live import LiveSegment, State
from .party import LocalParty, Runner

__all__ = ["average", "drop", "fork", "keep", "merge", "own"]

_SUM, _MOST, _ROWS, _SCALARS = "sum/", "most/", "rows", "scalars"


def own(party: LocalParty, action: Action) -> Runner:
    """Have a state of the role of one's own; without copies of others there is nothing to do."""

    def run(step: int, what: str) -> None:
        for name, _ in party.states(action.what):
            party.segment(name)

    return run


def fork(party: LocalParty, action: Action) -> Runner:
    """Make a working copy of the state that one has; its optimizer begins anew."""
    states = party.states(action.what)

    def run(step: int, what: str) -> None:
        for name, key in states:
            copy = party.live[key] = party.shared.workshop.blank(name)
            copy.become(party.segment(name))

    return run


def drop(party: LocalParty, action: Action) -> Runner:
    """Forget a copy."""
    states = party.states(action.what)

    def run(step: int, what: str) -> None:
        for _, key in states:
            party.shared.workshop.bring_back(party.live.pop(key))
        party.land()

    return run


def keep(party: LocalParty, action: Action) -> Runner:
    """Let a copy be one's own state of the role."""
    states = party.states(action.what)

    def run(step: int, what: str) -> None:
        for name, key in states:
            party.live[name] = party.live.pop(key)
        party.away = False

    return run


def merge(party: LocalParty, action: Action) -> Runner:
    """Add a copy, times its weight, to the sum that will be the average; the copy is gone then."""
    what, _, weight = action.what.partition("*")
    states, rows = party.states(what), int(weight)

    def run(step: int, what: str) -> None:
        for name, key in states:
            add(party.kept.setdefault(name, {}), party.segment(key), rows)
            if key != name:
                party.shared.workshop.bring_back(party.live.pop(key))

    return run


def average(party: LocalParty, action: Action) -> Runner:
    """Let the average of what was merged be the role's state."""
    states = party.states(action.what)

    def run(step: int, what: str) -> None:
        for name, _ in states:
            live = party.segment(name)
            live.restore(mean(party.kept.pop(name), live))

    return run


def add(total: State, live: LiveSegment, rows: int) -> None:
    """Add ``rows`` times the weights of ``live`` to ``total``.

    Numbers are summed in float64, so that the mean of equal weights is these weights. Of what counts, such as
    batches seen by a normalisation, the most is kept; of learning rates, those of whoever did most steps.
    """
    if not total:
        total[_ROWS] = torch.zeros((), dtype=torch.float64)
    total[_ROWS] += rows
    state = live.state(memory=False)
    scalars = state.pop(_SCALARS)
    if _SCALARS not in total or _steps(scalars) > _steps(total[_SCALARS]):
        total[_SCALARS] = scalars
    for name, tensor in state.items():
        if tensor.is_floating_point():
            key = _SUM + name
            if key not in total:
                total[key] = torch.zeros_like(tensor, dtype=torch.float64)
            total[key].add_(tensor, alpha=rows)
        else:
            key = _MOST + name
            total[key] = torch.maximum(total[key], tensor) if key in total else tensor.clone()


def mean(total: State, live: LiveSegment) -> dict[str, Tensor]:
    """Return the state that ``total`` is the weighted sum of, as one that ``live`` can restore."""
    rows = total[_ROWS].item()
    own = live.state(memory=False)
    state = {name: tensor for name, tensor in own.items() if name != _SCALARS}
    for name, tensor in state.items():
        if _SUM + name in total:
            state[name] = (total[_SUM + name] / rows).to(tensor.dtype)
        else:
            state[name] = total[_MOST + name]
    return {**state, _SCALARS: total[_SCALARS]}


def _steps(scalars: Tensor) -> int:
    """Return how often the learning-rate schedule moved on; 0 without one."""
    noted: dict[str, Any] = json.loads(bytes(scalars.tolist()))
    return int((noted.get("schedule") or {}).get("last_epoch", 0))
