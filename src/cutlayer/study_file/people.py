"""Who takes part and what they hold, as the file says it or as dealt data have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch
from torch import Tensor

from ..data import FieldSpec, Holdings, LazyField, PartyData, Records
from ..data.lazy import LazyRows
from ..errors import DataError, StudyError
from ..seeds import generator
from .party_tables import FIELD

if TYPE_CHECKING:
    from .reading import StudyFile

__all__ = ["Cast", "away", "cast_of", "check_fields", "declared", "is_declared", "named", "spec_of_text"]

_ROWS = 3


@dataclass(frozen=True, eq=False)
class Cast:
    """Who fills which role, with a few rows of what they hold: all that a graph needs to know.

    Attributes:
        roles: The parties of each role, in the order of turns.
        examples: Rows of each field by role, [few, ...].
    """

    roles: Mapping[str, tuple[str, ...]]
    examples: Mapping[str, Mapping[str, Tensor]]

    def fields(self, role: str) -> Mapping[str, FieldSpec]:
        """Return the fields that the parties of ``role`` hold."""
        rows = self.examples.get(role, {})
        return {name: FieldSpec(tuple(field.shape[1:]), field.dtype) for name, field in rows.items()}

    def example(self, role: str, rows: int = 2) -> Mapping[str, Tensor]:
        """Return at most ``rows`` rows of each field of ``role``."""
        return {name: field[:rows] for name, field in self.examples.get(role, {}).items()}


def is_declared(file: StudyFile) -> bool:
    """Return whether the file itself says who takes part and what they hold."""
    return bool(file.tables.parties and file.tables.fields)


def declared(file: StudyFile) -> Cast:
    """Return who takes part as ``[parties]`` and ``[fields]`` say, with rows of no meaning.

    Numbers between 0 and 1, or 0 and 1 by turns; the same at every party.
    """
    tables = file.tables
    roles = _filled(file)
    for role in tables.roles.data:
        roles.setdefault(role, (role,))
    examples = {
        role: {name: _hollow(spec_of_text(word), role, name) for name, word in tables.fields[role].items()}
        for role in tables.roles.data
    }
    return Cast({role: roles[role] for role in tables.roles.all if role in roles}, examples)


def cast_of(file: StudyFile, holdings: Holdings) -> Cast:
    """Return who takes part as the data have it; ``[parties]`` may name parties without data as well."""
    roles = dict(holdings.roles)
    roles |= {role: names for role, names in _filled(file).items() if role not in roles}
    return Cast(roles, {role: holdings.example(role) for role in holdings.roles})


def named(file: StudyFile, holdings: Holdings) -> Holdings:
    """Return dealt data under the names of ``[parties]``.

    Raises:
        StudyError: The table names another number of parties for a role, or ``[fields]`` says other fields.
    """
    names: dict[str, str] = {}
    for role, chosen in _filled(file).items():
        dealt = holdings.roles.get(role, chosen)
        if len(dealt) != len(chosen):
            raise StudyError(
                f"{file.path.name}: [parties] and [data] differ in how many fill the role {role!r}",
                got=f"{len(chosen)} in [parties], {len(dealt)} that rows are dealt to",
                todo="name as many in [parties], or change [data.rows]",
            )
        names |= dict(zip(dealt, chosen, strict=True))
    found = Holdings(tuple(replace(p, name=names.get(p.name, p.name)) for p in holdings.parties))
    for role in file.tables.fields:
        check_fields(file, role, found.fields(role) if role in found.roles else {})
    return found


def check_fields(file: StudyFile, role: str, held: Mapping[str, FieldSpec], party: str | None = None) -> None:
    """Compare what is held with ``[fields]``, where the file has it.

    Raises:
        DataError: Names the field.
    """
    told = {name: spec_of_text(word) for name, word in file.tables.fields.get(role, {}).items()}
    if not told or told == dict(held):
        return
    odd = next(name for name in (*told, *held) if told.get(name) != held.get(name))
    got, expected = held.get(odd), told.get(odd)
    raise DataError(
        f"the field {odd!r} is not what [fields.{role}] of {file.path.name} says",
        party=party,
        got="nothing" if got is None else str(got),
        expected="nothing" if expected is None else str(expected),
        todo="bring the data to it, or agree on another [fields] table; `cutlayer fields` shows what data give",
    )


def away(file: StudyFile) -> Holdings:
    """Return holdings with all names and fields and a few rows, which nobody can read: the data are elsewhere."""
    cast = declared(file)
    parties = []
    for role in file.tables.roles.data:
        for group, party in enumerate(cast.roles[role]):
            rows = LazyRows(_Elsewhere(party, file.path.name))
            fields = {name: LazyField(rows, name, spec) for name, spec in cast.fields(role).items()}
            parties.append(PartyData(party, role, {"train": Records(np.arange(_ROWS), fields)}, group))
    return Holdings(tuple(parties))


def spec_of_text(word: str) -> FieldSpec:
    """Return what ``float32[1, 28, 28]`` says."""
    found = FIELD.fullmatch(word)
    if found is None:
        raise StudyError(f"{word!r} is no type and shape", expected="for example float32[1, 28, 28]")
    shape = tuple(int(side) for side in found[2].split(",") if side)
    return FieldSpec(shape, getattr(torch, found[1]))


class _Elsewhere:
    """Rows that are at their party."""

    def __init__(self, party: str, file: str) -> None:
        self.party, self.file = party, file

    def __len__(self) -> int:
        return _ROWS

    def __getitem__(self, index: int) -> NoReturn:
        raise DataError(
            f"these data are not here, only what {self.file} says about them",
            party=self.party,
            todo="train with `cutlayer serve` and `cutlayer join`, each party with its own data",
        )


def _filled(file: StudyFile) -> dict[str, tuple[str, ...]]:
    """Return the parties of each role in ``[parties]``."""
    roles: dict[str, tuple[str, ...]] = {}
    for party, role in file.tables.parties.items():
        roles[role] = (*roles.get(role, ()), party)
    return roles


def _hollow(spec: FieldSpec, role: str, name: str) -> Tensor:
    """Return rows of no meaning, [few, *shape]."""
    shape = (_ROWS, *spec.shape)
    if spec.dtype.is_floating_point:
        return torch.from_numpy(generator(0, "hollow", role, name).random(shape)).to(spec.dtype)
    return torch.arange(torch.Size(shape).numel()).reshape(shape).remainder(2).to(spec.dtype)
