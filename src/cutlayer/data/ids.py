"""What counts as a record's id: a whole number or a piece of text, never missing, never twice."""

from __future__ import annotations

import numpy as np

from cutlayer.errors import DataError

__all__ = ["as_ids", "repeated", "some"]


def as_ids(values: object, *, party: str | None = None, what: str = "ids") -> np.ndarray:
    """Return ``values`` as ids: 1-D, int64 or text (``<U``), unique.

    Whole numbers stored as floats (a column that once held gaps) become int64.

    Args:
        values: Anything :func:`numpy.asarray` takes.
        party: Who holds them, for messages.
        what: What to call them in messages, e.g. ``"ids in column 'patient'"``.

    Raises:
        DataError: They are missing, repeated, or neither whole numbers nor text.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{what} have the wrong shape", party=party, got=str(array.shape), expected="(rows,)")
    array = _typed(array, party, what)
    again = repeated(array)
    if len(again):
        raise DataError(
            f"{what} must be unique, {len(again)} occur more than once",
            party=party,
            got=some(again),
            todo="remove the copies, or choose a column that names each row once",
        )
    return array


def repeated(ids: np.ndarray) -> np.ndarray:
    """Return the ids that occur more than once, sorted."""
    ordered = np.sort(ids)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def some(ids: np.ndarray, most: int = 5) -> str:
    """Return the first few ids as text: ``"3, 8, 9 and 12 more"``."""
    shown = ", ".join(repr(value) for value in ids[:most].tolist())
    return shown if len(ids) <= most else f"{shown} and {len(ids) - most} more"


def _typed(array: np.ndarray, party: str | None, what: str) -> np.ndarray:
    kind = array.dtype.kind
    if kind in "iu":
        return array.astype(np.int64, copy=False)
    if kind == "f":
        _none_missing(~np.isfinite(array), party, what)
        if (array == np.round(array)).all():
            return array.astype(np.int64)
    if kind == "O":
        _none_missing(np.array([value is None or value != value for value in array], bool), party, what)
        if all(isinstance(value, str) for value in array):
            array, kind = array.astype(str), "U"
        elif all(isinstance(value, int | np.integer) for value in array):
            return array.astype(np.int64)
    if kind == "U":
        _none_missing(array == "", party, what)
        return array
    raise DataError(
        f"{what} have a type that cannot name records",
        party=party,
        got="a mixture of types" if kind == "O" else str(array.dtype),
        expected="whole numbers or text",
    )


def _none_missing(missing: np.ndarray, party: str | None, what: str) -> None:
    if missing.any():
        raise DataError(
            f"{what} are missing in {int(missing.sum())} of {len(missing)} rows",
            party=party,
            got=f"the first at row {int(missing.argmax())}",
            todo="give every row an id or drop the row",
        )
