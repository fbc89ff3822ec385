"""Who fills the roles of a configuration, however it is said: holdings, parties with their data, names, a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor

from ..errors import GraphError
from .parts import Placement, TensorSpec

__all__ = ["Named", "Places", "as_placement"]


class _Rows(Protocol):
    """The rows of one split at one party, as ``cutlayer.data.Records`` has them."""

    def __len__(self) -> int: ...

    def batch(self, rows: Tensor) -> Mapping[str, Tensor]:
        """Return every field at these positions."""
        ...


@runtime_checkable
class _WithData(Protocol):
    """One party and its data, as ``cutlayer.data.PartyData`` has them."""

    @property
    def name(self) -> str: ...

    @property
    def role(self) -> str: ...

    @property
    def splits(self) -> Mapping[str, _Rows]: ...


Places = Placement | Sequence[_WithData]
"""Who holds what: the data's holdings, or their ``parties``."""


class Named:
    """A placement by names, without data."""

    def __init__(
        self, roles: Mapping[str, tuple[str, ...]], examples: Mapping[str, Mapping[str, Tensor]]
    ) -> None:
        self.roles = roles
        self._examples = examples

    def fields(self, role: str) -> Mapping[str, Any]:
        """Return the specs of the fields of ``role`` that the example has."""
        return {name: TensorSpec.of(rows) for name, rows in self._examples.get(role, {}).items()}

    def example(self, role: str, rows: int = 2) -> Mapping[str, Tensor]:
        """Return the example of ``role``."""
        return self._examples.get(role, {})


class _ByParties:
    """A placement by a tuple of parties with their data."""

    def __init__(self, parties: Sequence[_WithData]) -> None:
        self._parties = tuple(parties)

    @property
    def roles(self) -> Mapping[str, tuple[str, ...]]:
        names = dict.fromkeys(party.role for party in self._parties)
        return {role: tuple(p.name for p in self._parties if p.role == role) for role in names}

    def fields(self, role: str) -> Mapping[str, Any]:
        return {name: TensorSpec.of(rows) for name, rows in self.example(role).items()}

    def example(self, role: str, rows: int = 2) -> Mapping[str, Tensor]:
        trains = [p.splits["train"] for p in self._parties if p.role == role and "train" in p.splits]
        if not trains:
            raise GraphError(f"no party of role {role!r} has training rows")
        records = next((r for r in trains if len(r) >= rows), max(trains, key=len))
        return records.batch(torch.arange(min(rows, len(records))))


def as_placement(people: object, what: str) -> Placement:
    """Return who holds what, as a placement.

    Args:
        people: The data's holdings, or their ``parties``.
        what: The argument's name, for errors.

    Raises:
        GraphError: It is neither; data that was not dealt to parties yet is told how.
    """
    if _is_placement(people):
        return people
    if _are_parties(people):
        return _ByParties(people)
    raise GraphError(
        f"{what} does not say who holds what",
        got=type(people).__name__,
        expected="the holdings of your data, or their parties",
        todo="deal the data to parties first: source.split_rows(5) or source.split_columns(...)",
    )


def _is_placement(people: object) -> TypeGuard[Placement]:
    return isinstance(getattr(people, "roles", None), Mapping) and hasattr(people, "example")


def _are_parties(people: object) -> TypeGuard[Sequence[_WithData]]:
    return (
        isinstance(people, Sequence)
        and not isinstance(people, str)
        and len(people) > 0
        and all(isinstance(party, _WithData) for party in people)
    )
