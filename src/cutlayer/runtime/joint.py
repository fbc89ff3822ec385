"""Several steps' batches as one: joined where a server works on all of them, dealt out again afterwards."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import StudyError
from ..schedules.actions import Action
from ..wire import Kind
from .blueprint import Crossing
from .compute import total
from .party import Flight, LocalParty, Runner

__all__ = ["join", "split"]


def join(party: LocalParty, action: Action) -> Runner:
    """Make one batch [B1 + B2 + …, ...] of what the steps before have loaded or received."""
    what, _, count = action.what.partition("*")
    number = int(count)
    parcel = () if what == "load" else party.shared.blueprint.parcel(what)

    def run(step: int, _: str) -> None:
        parts, flight = [party.flight(step - number + i) for i in range(number)], party.flight(step)
        flight.training = parts[0].training
        if not parcel:
            _join_fields(flight, parts, tuple(parts[0].fields))
        for crossing in parcel:
            _JOIN[crossing.kind](flight, parts, crossing)

    return run


def split(party: LocalParty, action: Action) -> Runner:
    """Deal activations or gradients of a joined batch [B, ...] out to the steps that it came from."""
    what, _, count = action.what.partition("*")
    number = int(count)
    (crossing,) = party.shared.blueprint.parcel(what)

    def run(step: int, _: str) -> None:
        parts, flight = [party.flight(step - number + i) for i in range(number)], party.flight(step)
        if len(flight.parts) != number:
            raise StudyError(
                f"{what} of {len(flight.parts)} batches cannot be dealt out to {number}",
                party=party.name,
                step=step,
            )
        for ref in crossing.refs:
            if crossing.kind is Kind.GRADIENT:
                gradient = total(flight.gradients.pop(ref, None))
                if gradient is not None:
                    for part, rows in zip(parts, torch.split(gradient, list(flight.parts)), strict=True):
                        part.gradients[ref] = [(0, rows)]
            else:
                dealt = torch.split(flight.values[ref].detach(), list(flight.parts))
                for part, rows in zip(parts, dealt, strict=True):
                    part.values[ref], part.training = rows, flight.training

    return run


def _join_activations(flight: Flight, parts: list[Flight], crossing: Crossing) -> None:
    for ref in crossing.refs:
        values = [part.values.pop(ref) for part in parts]
        flight.values[ref] = torch.cat(values)
        flight.parts = tuple(map(len, values))


def _join_gradients(flight: Flight, parts: list[Flight], crossing: Crossing) -> None:
    """Join gradients, each of a mean over its own rows, to those of the mean over all rows."""
    rows = sum(flight.parts)
    for ref, index in zip(crossing.refs, crossing.indices, strict=True):
        found: list[Tensor] = []
        for part, own in zip(parts, flight.parts, strict=True):
            gradient = total(part.gradients.pop(ref, None))
            value = part.values.pop(ref)
            found.append(torch.zeros_like(value) if gradient is None else gradient * (own / rows))
        flight.gradients.setdefault(ref, []).append((index, torch.cat(found)))


def _join_labels(flight: Flight, parts: list[Flight], crossing: Crossing) -> None:
    _join_fields(flight, parts, crossing.names)


def _join_fields(flight: Flight, parts: list[Flight], names: tuple[str, ...]) -> None:
    for name in names:
        fields = [part.fields[name] for part in parts]
        flight.fields[name] = torch.cat(fields)
        flight.parts = tuple(map(len, fields))


_JOIN = {Kind.ACTIVATION: _join_activations, Kind.GRADIENT: _join_gradients, Kind.LABEL: _join_labels}
