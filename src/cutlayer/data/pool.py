"""The rows of one split before they are dealt to parties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutlayer.data.ids import as_ids
from cutlayer.data.lazy import Field, LazyField, select_fields, spec_of
from cutlayer.errors import DataError, nearest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Pool"]

_LABELS_AT_ONCE = 256


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Pool:
    """The rows of one split before they are dealt to parties.

    Attributes:
        ids: Names of the rows, 1-D, unique, int64 or text.
        fields: Tensors or lazy fields, first dimension rows; the labels are "y".
        table: Raw columns that will be prepared and become field "x".
        about: Columns that say something about the rows (site, patient) and never become input.
    """

    ids: np.ndarray
    fields: Mapping[str, Field]
    table: pd.DataFrame | None = None
    about: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", as_ids(self.ids))
        sizes = {f"field {name!r}": len(value) for name, value in self.fields.items()}
        sizes |= {f"column {name!r}": len(value) for name, value in self.about.items()}
        if self.table is not None:
            sizes["the table"] = len(self.table)
        for what, rows in sizes.items():
            if rows != len(self.ids):
                raise DataError(
                    f"{what} and the ids differ in length", got=f"{rows} and {len(self.ids)} rows"
                )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        names = [*self.fields, *self.columns]
        return f"Pool({len(self)} rows of {len(names)} fields and columns)"

    @property
    def columns(self) -> list[str]:
        """The names of the raw columns."""
        return [] if self.table is None else [str(name) for name in self.table.columns]

    def select(self, rows: np.ndarray) -> Pool:
        """Return the rows at these positions, in this order."""
        return Pool(
            ids=self.ids[rows],
            fields=select_fields(self.fields, torch.from_numpy(rows.astype(np.int64))),
            table=None if self.table is None else self.table.iloc[rows].reset_index(drop=True),
            about={name: values[rows] for name, values in self.about.items()},
        )

    def column(self, name: str) -> np.ndarray:
        """Return the values of a column as text, without gaps.

        Raises:
            DataError: There is no such column or it has gaps.
        """
        self.check_column(name)
        found = self.about[name] if self.table is None or name in self.about else self.table[name]
        values = np.asarray(found, dtype=object)
        gaps = np.array([value is None or value != value or value == "" for value in values], bool)
        if gaps.any():
            raise DataError(
                f"column {name!r} has no value in {int(gaps.sum())} of {len(values)} rows",
                got=f"the first at id {self.ids[gaps.argmax()].item()!r}",
                todo="fill the gaps or drop these rows",
            )
        return np.array([_as_text(value) for value in values], dtype=str)

    def check_column(self, name: str) -> None:
        """Refuse a name that is no column's.

        Raises:
            DataError: There is no such column; names the nearest.
        """
        known = (*self.about, *self.columns)
        if name not in known:
            raise DataError(f"there is no column {name!r}", todo=nearest(name, known))

    def set_aside(self, name: str) -> Pool:
        """Return the pool with this column no longer an input, only something about the rows."""
        if self.table is None or name not in self.columns:
            return self
        about = {**self.about, name: self.table[name].to_numpy(dtype=object)}
        return replace(self, table=self.table.drop(columns=name), about=about)

    def labels(self) -> np.ndarray | None:
        """Return whole-number labels, int64 [rows], or None where there are none of that kind."""
        labels = self.fields.get("y")
        if labels is None:
            return None
        spec = spec_of(labels)
        if spec.dtype.is_floating_point or spec.shape:
            return None
        values = labels if isinstance(labels, Tensor) else _read(labels)
        return values.to(torch.int64).numpy()


def _read(labels: LazyField) -> Tensor:
    starts = range(0, len(labels), _LABELS_AT_ONCE)
    ends = (min(start + _LABELS_AT_ONCE, len(labels)) for start in starts)
    parts = (torch.arange(start, end) for start, end in zip(starts, ends, strict=True))
    return torch.cat([labels.index_select(0, rows, seed=0) for rows in parts])


def _as_text(value: object) -> str:
    """Text of a value; 3.0 as "3"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
