"""Which columns and fields a party holds in a vertical study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

import numpy as np

from cutlayer.data.lazy import LazyField
from cutlayer.data.pool import Pool
from cutlayer.errors import DataError, nearest

__all__ = ["Columns", "Selection", "choose"]

Selection: TypeAlias = str | slice | range | Sequence[str] | Sequence[int]


@dataclass(frozen=True)
class Columns:
    """What one party holds of each row.

    Attributes:
        fields: Whole fields, e.g. an image.
        columns: Raw columns, which will be prepared.
        positions: Positions in the last dimension of the one field there is, or None.
    """

    fields: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    positions: tuple[int, ...] | None = None


def choose(selection: Selection, pool: Pool, party: str) -> Columns:
    """Find what a party's selection means in these data.

    Args:
        selection: Names of columns and fields, patterns like ``"blood_*"``, or a slice or positions: of the
            raw columns where there are some, else in the last dimension of the only field.
        pool: The rows it will apply to.
        party: Whose it is, for messages.

    Raises:
        DataError: A name is unknown, a pattern matches nothing, a position is out of range.
    """
    entries = [selection] if isinstance(selection, str) else selection
    if isinstance(entries, slice):
        return _by_position(range(_width(pool, party))[entries], pool, party)
    numbers = [int(entry) for entry in entries if isinstance(entry, int | np.integer)]
    if numbers and len(numbers) == len(entries):
        return _by_position(numbers, pool, party)
    fields = [name for name in pool.fields if name != "y"]
    names: dict[str, None] = {}
    for entry in entries:
        names |= dict.fromkeys(_matches(entry, [*fields, *pool.columns], party))
    if not names:
        raise DataError("a party needs at least one column", party=party, got=repr(selection))
    return Columns(
        fields=tuple(name for name in names if name in fields),
        columns=tuple(name for name in names if name not in fields),
    )


def _matches(entry: object, known: list[str], party: str) -> list[str]:
    if not isinstance(entry, str):
        raise DataError(
            "columns are named or numbered, not both",
            party=party,
            got=repr(entry),
            expected="text or numbers",
        )
    if entry in known:
        return [entry]
    found = [name for name in known if fnmatchcase(name, entry)]
    if not found:
        raise DataError(f"there is no column {entry!r}", party=party, todo=nearest(entry, known))
    return found


def _by_position(positions: Sequence[int], pool: Pool, party: str) -> Columns:
    width = _width(pool, party)
    wrong = [position for position in positions if not -width <= position < width]
    if wrong or not positions:
        raise DataError(
            f"there is no column {wrong[0]}" if wrong else "a party needs at least one column",
            party=party,
            expected=f"positions from 0 to {width - 1}",
        )
    if pool.table is not None:
        return Columns(columns=tuple(pool.columns[position] for position in positions))
    fields = tuple(name for name in pool.fields if name != "y")
    return Columns(fields=fields, positions=tuple(position % width for position in positions))


def _width(pool: Pool, party: str) -> int:
    if pool.table is not None:
        return len(pool.columns)
    fields = [name for name in pool.fields if name != "y"]
    field = pool.fields[fields[0]] if len(fields) == 1 else None
    if field is None or isinstance(field, LazyField) or field.dim() < 2:
        raise DataError(
            "positions need raw columns or exactly one field with columns",
            party=party,
            got=f"fields {', '.join(fields) or 'none'}",
            todo="name the fields instead",
        )
    return field.shape[-1]
