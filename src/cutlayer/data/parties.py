"""From pooled rows to what one party holds: its fields, its rows, its own order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutlayer.data.columns import Columns
from cutlayer.data.lazy import Field, LazyField, select_fields
from cutlayer.data.pool import Pool
from cutlayer.data.prepare import Preparation, PreparationSettings
from cutlayer.data.records import PartyData, Records
from cutlayer.errors import DataError
from cutlayer.seeds import generator

__all__ = ["Inputs", "all_inputs", "chosen_inputs", "fill"]


@dataclass(frozen=True, eq=False)
class Inputs:
    """The fields that the parties of a role will hold, before rows are dealt.

    Attributes:
        fields: By split, then by name, [rows of the split, ...].
        preparation: How raw columns became "x", where they did.
    """

    fields: Mapping[str, Mapping[str, Field]]
    preparation: Preparation | None = None

    def with_labels(self, splits: Mapping[str, Pool]) -> Inputs:
        """Return these fields and the labels, "y"."""
        fields = {split: {**self.fields[split], "y": pool.fields["y"]} for split, pool in splits.items()}
        return Inputs(fields, self.preparation)


def all_inputs(splits: Mapping[str, Pool], settings: PreparationSettings) -> Inputs:
    """Return every field as it is; raw columns, prepared, are "x"."""
    train = splits["train"]
    fields = {split: dict(pool.fields) for split, pool in splits.items()}
    if train.table is None:
        return Inputs(fields)
    preparation = Preparation.fit(train.table, settings)
    for split, pool in splits.items():
        if pool.table is not None:
            fields[split]["x"] = preparation.transform(pool.table)
    return Inputs(fields, preparation)


def chosen_inputs(splits: Mapping[str, Pool], columns: Columns, settings: PreparationSettings) -> Inputs:
    """Return the fields that these columns make; whatever stands alone is "x"."""
    preparation = None
    fields = {split: _chosen(pool, columns) for split, pool in splits.items()}
    if columns.columns:
        tables = {split: pool.table for split, pool in splits.items() if pool.table is not None}
        names = list(columns.columns)
        preparation = Preparation.fit(tables["train"][names], settings)
        for split, table in tables.items():
            fields[split]["x"] = preparation.transform(table[names])
    return Inputs(fields, preparation)


def fill(
    party: PartyPlan, splits: Mapping[str, Pool], inputs: Inputs, *, standardize: bool = False
) -> PartyData:
    """Give a party the rows that it was dealt.

    Args:
        party: Name, role, group, rows and order.
        splits: The pooled rows, for their ids.
        inputs: The fields of its role.
        standardize: Scale float fields to mean 0 and standard deviation 1 of the party's training rows.
    """
    chosen: dict[str, tuple[np.ndarray, dict[str, Field]]] = {}
    for split, rows in party.rows.items():
        if party.order_seed is not None:
            rows = generator(party.order_seed, "order", party.name, split).permutation(rows)
        ids = splits[split].ids[rows]
        chosen[split] = ids, select_fields(inputs.fields[split], torch.from_numpy(rows))
    if standardize:
        _standardize({split: fields for split, (_, fields) in chosen.items()}, party.name)
    records = {split: Records(ids, fields) for split, (ids, fields) in chosen.items()}
    return PartyData(party.name, party.role, records, party.group, inputs.preparation)


@dataclass(frozen=True, kw_only=True)
class PartyPlan:
    """Which rows a party gets.

    Attributes:
        name: Its name.
        role: Its role.
        group: Which cohort or site it is within its role.
        rows: Positions by split.
        order_seed: Shuffle the rows into an order of its own; None: keep them in the order given.
    """

    name: str
    role: str
    group: int
    rows: Mapping[str, np.ndarray]
    order_seed: int | None = None


def _chosen(pool: Pool, columns: Columns) -> dict[str, Field]:
    fields: dict[str, Field] = {name: pool.fields[name] for name in columns.fields}
    if columns.positions is not None:
        positions = list(columns.positions)
        fields = {name: f[..., positions] for name, f in fields.items() if isinstance(f, Tensor)}
    if len(fields) == 1 and not columns.columns:
        return {"x": next(iter(fields.values()))}
    return fields


def _standardize(splits: Mapping[str, dict[str, Field]], party: str) -> None:
    """Scale float fields in place: per channel (images and series), else per column."""
    if "train" not in splits:
        raise DataError("standardize needs training rows to learn from", party=party)
    for name, train in splits["train"].items():
        if name == "y" or isinstance(train, LazyField) or not train.is_floating_point():
            continue
        over = [d for d in range(train.dim()) if d != 1]
        mean = train.mean(over, keepdim=True)
        scale = train.std(over, keepdim=True, correction=0)
        scale[scale == 0] = 1.0
        for fields in splits.values():
            field = fields[name]
            if isinstance(field, Tensor):
                field.sub_(mean).div_(scale)
