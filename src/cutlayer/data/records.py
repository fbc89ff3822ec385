"""Who holds what: the rows of one split at one party, a party's data, and all parties' data together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutlayer.data.ids import as_ids, some
from cutlayer.data.lazy import Field, FieldSpec, LazyField, select_fields, spec_of
from cutlayer.errors import AlignmentError, DataError, NumericsError, nearest

if TYPE_CHECKING:
    from cutlayer.data.prepare import Preparation

__all__ = ["SPLITS", "UNLABELLED", "FieldSpec", "Holdings", "LazyField", "PartyData", "Records"]

SPLITS = ("train", "valid", "test")
UNLABELLED = "unlabelled"
"""A split of rows without labels, which lacks fields of the others."""


class Records:
    """The rows of one split at one party.

    Args:
        ids: Names of the rows, 1-D, unique, int64 or text.
        fields: Tensors or lazy fields whose first dimension is the rows, e.g. ``{"x": ..., "y": ...}``.

    Raises:
        DataError: Ids are missing or repeated, or a field has another number of rows.
    """

    __slots__ = ("fields", "ids")

    ids: np.ndarray
    fields: Mapping[str, Field]

    def __init__(self, ids: np.ndarray, fields: Mapping[str, Field]) -> None:
        self.ids = as_ids(ids)
        if not fields:
            raise DataError("records need at least one field", expected="e.g. fields={'x': ...}")
        for name, field in fields.items():
            _check_field(name, field, len(self.ids))
        self.fields = MappingProxyType(dict(fields))

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}: {spec}" for name, spec in self.specs().items())
        return f"Records({len(self)} rows; {fields})"

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """Return every field at these positions, int64 [batch] -> [batch, ...]."""
        return {name: field.index_select(0, rows) for name, field in self.fields.items()}

    @property
    def lazy(self) -> bool:
        """Whether a field is read when a batch asks for it; then :meth:`read` gives batches."""
        return any(isinstance(field, LazyField) for field in self.fields.values())

    def read(self, rows: Tensor, seed: int) -> dict[str, Tensor]:
        """Return every field at these positions, as :meth:`batch` does, and look at what was read.

        Args:
            rows: Positions, int64 [batch].
            seed: Where a dataset's random augmentation draws from, instead of from the process's state.

        Raises:
            DataError: An item cannot be read or does not fit its batch.
            NumericsError: A value that was read is not finite.
        """
        found = {}
        for name, field in self.fields.items():
            if isinstance(field, LazyField):
                found[name] = field.index_select(0, rows, seed)
                self._refuse_gaps(name, found[name], rows)
            else:
                found[name] = field.index_select(0, rows)
        return found

    def _refuse_gaps(self, name: str, values: Tensor, rows: Tensor) -> None:
        if not values.is_floating_point() or torch.isfinite(values).all():
            return
        bad = ~torch.isfinite(values).reshape(len(values), -1).all(dim=1)
        raise NumericsError(
            f"field {name!r}, read from a dataset, holds NaN or infinity in {int(bad.sum())} of {len(rows)} rows",
            got=f"the first at id {self.ids[int(rows[bad][0])].item()!r}",
            todo="fill or leave out these items in the dataset",
        )

    def specs(self) -> dict[str, FieldSpec]:
        """Return shape (per sample) and type of every field."""
        return {name: spec_of(field) for name, field in self.fields.items()}

    def select(self, rows: Tensor | np.ndarray | Sequence[int]) -> Records:
        """Return the records at these positions, in this order, as compact copies."""
        positions = torch.as_tensor(rows, dtype=torch.int64)
        return Records(self.ids[positions.numpy()], select_fields(self.fields, positions))

    def rows_of(self, ids: np.ndarray) -> Tensor:
        """Return the positions of these ids, int64 [len(ids)], in the order asked for.

        Raises:
            AlignmentError: Some are not held here; names them.
        """
        wanted = np.asarray(ids)
        if len(wanted) and (wanted.dtype.kind == "U") != (self.ids.dtype.kind == "U"):
            raise AlignmentError(
                "ids of different types cannot be compared",
                got=str(wanted.dtype),
                expected=str(self.ids.dtype),
            )
        order = np.argsort(self.ids, kind="stable")
        place = np.searchsorted(self.ids, wanted, sorter=order)
        found = order[np.minimum(place, max(len(order) - 1, 0))] if len(order) else place
        missing = self.ids[found] != wanted if len(order) else np.ones(len(wanted), bool)
        if missing.any():
            raise AlignmentError(
                f"{int(missing.sum())} of {len(wanted)} ids are not held here",
                got=some(wanted[missing]),
                todo="align the parties first, e.g. with common_ids",
            )
        return torch.from_numpy(found.astype(np.int64))


@dataclass(frozen=True, eq=False)
class PartyData:
    """What one party holds.

    Attributes:
        name: Its name, unique in the study.
        role: The place in the graph that it fills.
        splits: Its records by split: "train", "valid", "test", "unlabelled"; it may lack a split.
            Unlabelled records may lack fields of the others.
        group: Which cohort or site it is within its role; 0 where the role has one party.
        preparation: How its raw columns became its field "x", where they were columns.
    """

    name: str
    role: str
    splits: Mapping[str, Records]
    group: int = 0
    preparation: Preparation | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.role:
            raise DataError("a party needs a name and a role", got=f"name={self.name!r}, role={self.role!r}")
        if not self.splits:
            raise DataError("the party holds no records", party=self.name, expected=f"some of {SPLITS}")
        for split in self.splits:
            if split not in (*SPLITS, UNLABELLED):
                known = (*SPLITS, UNLABELLED)
                raise DataError(f"unknown split {split!r}", party=self.name, todo=nearest(split, known))
        object.__setattr__(self, "splits", MappingProxyType(dict(self.splits)))
        specs = self.specs()
        for split, records in self.splits.items():
            if not len(records):
                raise DataError(f"the split {split!r} is empty", party=self.name, todo="leave it out")
            mine = records.specs()
            held = {n: s for n, s in specs.items() if n in mine} if split == UNLABELLED and mine else specs
            _same_fields(self.name, f"in {split!r}", mine, held)

    def specs(self) -> dict[str, FieldSpec]:
        """Return shape (per sample) and type of every field."""
        labelled = [records for split, records in self.splits.items() if split != UNLABELLED]
        return (labelled or list(self.splits.values()))[0].specs()


@dataclass(frozen=True, eq=False)
class Holdings:
    """Who holds what.

    Attributes:
        parties: Every party's data, in the order in which they take their turns.
    """

    parties: tuple[PartyData, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parties", tuple(self.parties))
        if not self.parties:
            raise DataError("holdings need at least one party")
        if len(self._by_name) != len(self.parties):
            names = np.array([party.name for party in self.parties])
            values, counts = np.unique(names, return_counts=True)
            raise DataError("two parties have the same name", got=some(values[counts > 1]))
        for role in self.roles:
            self.fields(role)

    @classmethod
    def of(
        cls, parties: Mapping[str, Mapping[str, Records]], roles: Mapping[str, str] | None = None
    ) -> Holdings:
        """Build holdings from the parties' own records.

        Args:
            parties: Records by split, by party: ``{"clinic": {"train": records}, ...}``.
            roles: The role of each party; a party that is not named fills the role of its own name.
        """
        roles = roles or {}
        for name in roles:
            if name not in parties:
                raise DataError(f"there is no party {name!r}", todo=nearest(name, tuple(parties)))
        seen: dict[str, int] = {}
        data = []
        for name, splits in parties.items():
            role = roles.get(name, name)
            seen[role] = seen.get(role, -1) + 1
            data.append(PartyData(name, role, splits, seen[role]))
        return cls(tuple(data))

    @cached_property
    def _by_name(self) -> dict[str, PartyData]:
        return {party.name: party for party in self.parties}

    @cached_property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """The names of the parties of each role, in order."""
        roles: dict[str, list[str]] = {}
        for party in self.parties:
            roles.setdefault(party.role, []).append(party.name)
        return {role: tuple(names) for role, names in roles.items()}

    def __repr__(self) -> str:
        roles = ", ".join(f"{role}: {len(names)}" for role, names in self.roles.items())
        return f"Holdings(parties by role: {roles})"

    def party(self, name: str) -> PartyData:
        """Return the data of the party of this name."""
        if name not in self._by_name:
            raise DataError(f"there is no party {name!r}", todo=nearest(name, tuple(self._by_name)))
        return self._by_name[name]

    def fields(self, role: str) -> dict[str, FieldSpec]:
        """Return the fields that every party of a role holds.

        Raises:
            DataError: The role is unknown or its parties disagree.
        """
        first, *others = sorted(self._filling(role), key=lambda party: set(party.splits) == {UNLABELLED})
        specs = first.specs()
        for party in others:
            mine = party.specs()
            few = set(party.splits) == {UNLABELLED}
            held = {n: s for n, s in specs.items() if n in mine} if few and mine else specs
            _same_fields(party.name, f"of role {role!r}", mine, held, first.name)
        return specs

    def example(self, role: str, rows: int = 2) -> dict[str, Tensor]:
        """Return the first training rows at a party of this role: every field, [<= rows, ...].

        The party is the first that holds as many rows, or else the one that holds most.
        """
        trains = [party.splits["train"] for party in self._filling(role) if "train" in party.splits]
        if not trains:
            raise DataError(f"no party of role {role!r} has training rows")
        enough = [records for records in trains if len(records) >= rows]
        records = enough[0] if enough else max(trains, key=len)
        return records.read(torch.arange(min(rows, len(records))), seed=0)

    def table(self) -> str:
        """Return a table in plain text: party, role, rows by split, fields, training rows by label."""
        others = (UNLABELLED,) if any(UNLABELLED in party.splits for party in self.parties) else ()
        splits = (*SPLITS, *others)
        header = ("party", "role", *splits, "fields", "labels")
        lines = [header, *(_line(party, splits) for party in self.parties)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        lines.insert(1, tuple("-" * width for width in widths))
        right = range(2, 2 + len(splits))
        return "\n".join(
            "  ".join(
                cell.rjust(width) if column in right else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def _filling(self, role: str) -> list[PartyData]:
        if role not in self.roles:
            raise DataError(f"there is no role {role!r}", todo=nearest(role, tuple(self.roles)))
        return [self._by_name[name] for name in self.roles[role]]


def _check_field(name: str, field: object, rows: int) -> None:
    if not isinstance(field, Tensor | LazyField):
        raise DataError(f"field {name!r} has the wrong type", got=type(field).__name__, expected="a tensor")
    if isinstance(field, Tensor) and not field.dim():
        raise DataError(f"field {name!r} is a single number", expected="a first dimension of rows")
    if len(field) != rows:
        raise DataError(f"field {name!r} and the ids differ in length", got=f"{len(field)} rows, {rows} ids")


def _same_fields(
    party: str, where: str, specs: Mapping[str, FieldSpec], expected: Mapping[str, FieldSpec], other: str = ""
) -> None:
    if dict(specs) != dict(expected):
        raise DataError(
            f"the fields {where} differ",
            party=party,
            got=_listed(specs.items()),
            expected=_listed(expected.items()) + (f" as at {other}" if other else ""),
            todo="bring them to the same names, shapes and types",
        )


def _listed(specs: Iterable[tuple[str, FieldSpec]]) -> str:
    return ", ".join(f"{name} {spec}" for name, spec in specs)


def _line(party: PartyData, splits: Iterable[str]) -> tuple[str, ...]:
    rows = (str(len(party.splits[split])) if split in party.splits else "-" for split in splits)
    return (party.name, party.role, *rows, _listed(party.specs().items()), _label_counts(party))


def _label_counts(party: PartyData, most: int = 12) -> str:
    records = party.splits.get("train", next(iter(party.splits.values())))
    labels = records.fields.get("y")
    if not isinstance(labels, Tensor) or labels.dim() != 1 or labels.is_floating_point():
        return ""
    values, counts = np.unique(labels.numpy(), return_counts=True)
    if len(values) > most:
        return f"{len(values)} classes of {int(counts.min())} to {int(counts.max())} rows"
    return " ".join(f"{value}:{n}" for value, n in zip(values, counts, strict=True))
