"""Columns of numbers in which some values are text: marks of a missing value, or slips of the pen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cutlayer.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MARKERS", "as_numbers"]

MARKERS = frozenset({"", "?", "-", "--", ".", "na", "n/a", "nan", "none", "null", "nil", "#n/a", "missing"})
"""What stands for a missing value in a column of numbers, whether in capitals or not."""

_ONE_IN = 10


def as_numbers(column: pd.Series[Any], name: str, ids: np.ndarray) -> pd.Series[Any]:
    """Return a column of numbers with gaps where it has marks of a missing value; leave all others as they are.

    Text that only looks like numbers (codes such as "007") stays text unless there is a mark or a number
    among it, and a pandas category is never touched.

    Args:
        column: Of any type.
        name: Its name, for messages.
        ids: Names of its rows, for messages.

    Raises:
        DataError: Most values are numbers (90 % and more), and some are neither numbers nor marks.
    """
    import pandas as pd

    if not (pd.api.types.is_object_dtype(column.dtype) or pd.api.types.is_string_dtype(column.dtype)):
        return column
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column
    values = column.astype(object)
    if values.map(lambda value: not isinstance(value, str | int | float | np.number | None)).any():
        return column  # lists, dates and the like
    if values.map(lambda value: isinstance(value, bool)).any():
        return column
    missing = column.isna().to_numpy()
    marked = values.map(lambda value: isinstance(value, str) and value.strip().lower() in MARKERS).to_numpy()
    numbers = pd.to_numeric(values.where(~(marked | missing), None), errors="coerce")
    told = ~(missing | marked)
    bad = told & numbers.isna().to_numpy()
    if bad.any() and bad.sum() * _ONE_IN <= told.sum():
        first = int(bad.argmax())
        raise DataError(
            f"column {name!r} holds numbers in most rows and something else in {int(bad.sum())} of {len(column)}",
            got=f"{values.iloc[first]!r}, the first at id {ids[first].item()!r}",
            expected="a number, or a mark of a missing value such as 'n/a' or '?'",
            todo="mend these values, drop the column, or make it a pandas category if it is one",
        )
    plain = not marked.any() and values[told].map(lambda value: isinstance(value, str)).all()
    return column if bad.any() or plain or not told.any() else numbers.astype(float)
