"""Sources of raw columns: CSV and Parquet files, pandas tables."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutlayer.data.ids import as_ids
from cutlayer.data.markers import as_numbers
from cutlayer.data.pool import Pool
from cutlayer.data.prepare import PreparationSettings
from cutlayer.data.source import Source
from cutlayer.data.tensors import ArrayLike, features
from cutlayer.errors import DataError, NumericsError, nearest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["csv", "frame", "parquet"]

_AS_TEXT = "save the table as text in UTF-8; is it perhaps a workbook or another kind of file?"
_SEPARATORS = (";", "\t", "|", ",")
_WHOLE = r"(0|-?[1-9][0-9]{0,14})(\.0)?"


def csv(
    path: str | Path,
    id: str | None = None,
    label: str | None = None,
    *,
    drop: Sequence[str] = (),
    about: Sequence[str] = (),
    preparation: PreparationSettings | None = None,
    separator: str = ",",
) -> Source:
    r"""Read a CSV file with a line of column names; see :func:`frame` for the labels.

    Ids are whole numbers only if all are written as such: "007" stays text.

    Args:
        path: The file.
        id: Column of the ids.
        label: Column of the labels.
        drop: Columns that are not used.
        about: Columns that say something about the rows and are no input.
        preparation: How raw columns will be prepared.
        separator: What separates the columns: one character, or ``r"\s+"`` for any white space.

    Raises:
        DataError: The file is missing, empty or malformed, or lacks a column.
    """
    import pandas as pd

    path = _file(path)
    if len(separator) != 1 and separator != r"\s+":
        raise DataError("a separator is one character", got=repr(separator), expected=r"e.g. ';' or '\s+'")
    try:
        _check_separator(path, list(pd.read_csv(path, sep=separator, nrows=0).columns), separator)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # more values than names
            table = pd.read_csv(
                path,
                sep=separator,
                low_memory=False,
                index_col=False,
                dtype={} if id is None else {id: str},
            )
    except pd.errors.EmptyDataError:
        raise DataError(f"{path.name} is empty", expected="a line of column names and rows") from None
    except UnicodeError as error:
        raise DataError(f"{path.name} is not a well-formed table", got=str(error), todo=_AS_TEXT) from error
    except pd.errors.ParserWarning as error:
        raise _ragged(path, "rows with more values than there are column names", separator) from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path.name} is damaged", got=str(error), todo=_AS_TEXT) from error
    except ValueError as error:
        raise _ragged(path, str(error).strip(), separator) from error
    if id in table.columns and table[id].astype(str).str.fullmatch(_WHOLE).all():
        table[id] = table[id].astype(float).astype("int64")
    return _named(path, table, id, label, drop, about, preparation)


def parquet(
    path: str | Path,
    id: str | None = None,
    label: str | None = None,
    *,
    drop: Sequence[str] = (),
    about: Sequence[str] = (),
    preparation: PreparationSettings | None = None,
) -> Source:
    """Read a Parquet file; needs the extra ``parquet``. See :func:`frame` for the labels.

    Args:
        path: The file.
        id: Column of the ids.
        label: Column of the labels.
        drop: Columns that are not used.
        about: Columns that say something about the rows and are no input.
        preparation: How raw columns will be prepared.

    Raises:
        DataError: pyarrow is not installed, the file is missing or damaged, or lacks a column.
    """
    import pandas as pd

    if find_spec("pyarrow") is None:
        raise DataError("Parquet files need pyarrow", todo='pip install "cutlayer[parquet]"')
    path = _file(path)
    try:
        table = pd.read_parquet(path, engine="pyarrow")
    except (ValueError, OSError) as error:
        todo = "write the file again, e.g. with pandas' to_parquet; a text file is read with data.csv"
        raise DataError(f"{path.name} is not a Parquet file", got=str(error).strip(), todo=todo) from error
    return _named(path, table, id, label, drop, about, preparation)


def frame(
    table: pd.DataFrame,
    id: str | None = None,
    label: str | None = None,
    *,
    drop: Sequence[str] = (),
    about: Sequence[str] = (),
    fields: Mapping[str, ArrayLike] | None = None,
    preparation: PreparationSettings | None = None,
) -> Source:
    """Use a pandas table: one row per record; columns stay raw until they are dealt.

    Labels: whole numbers become int64 as they are; text, categories and truth values become the numbers
    of their sorted values, whose names are the source's ``classes``; other numbers become float32.

    In a column of numbers, marks such as "n/a", "-" and "?" are gaps; any other text in it is refused.

    Args:
        table: The rows.
        id: Column of the ids; left out: rows are numbered.
        label: Column of the labels; left out: there are none.
        drop: Columns that are not used.
        about: Columns that say something about the rows (site, patient) and are no input.
        fields: Further fields of the same rows, in the same order, e.g. ``{"image": images}``.
        preparation: How raw columns will be prepared.

    Raises:
        DataError: The table is empty or lacks a column; ids are missing or repeated; labels are missing; a
            column of numbers holds some text.
    """
    if not len(table):
        raise DataError("the table has no rows")
    columns = [str(name) for name in table.columns]
    if len(set(columns)) != len(columns):
        twice = sorted({name for name in columns if columns.count(name) > 1})
        raise DataError("column names must be unique", got=", ".join(twice))
    table = table.set_axis(columns, axis=1).reset_index(drop=True)
    for name in (*_given(id), *_given(label), *drop, *about):
        if name not in columns:
            raise DataError(f"there is no column {name!r}", todo=nearest(name, tuple(columns)))
    ids = np.arange(len(table)) if id is None else as_ids(_objects(table[id]), what=f"ids in column {id!r}")
    tensors = {name: features(values, name) for name, values in (fields or {}).items()}
    clash = {"x", "y"} & set(tensors)
    if clash:
        raise DataError(f"a further field cannot be called {clash.pop()!r}", todo="give it another name")
    classes: tuple[str, ...] = ()
    if label is not None:
        tensors["y"], classes = _labels(as_numbers(table[label], label, ids), label, ids)
    used = [name for name in columns if name not in {*_given(id), *_given(label), *drop, *about}]
    pool = Pool(
        ids=ids,
        fields=tensors,
        table=table[used].assign(**{n: as_numbers(table[n], n, ids) for n in used}) if used else None,
        about={name: _objects(table[name]) for name in about},
    )
    return Source(splits={"train": pool}, classes=classes, preparation=preparation or PreparationSettings())


def _named(path: Path, *args: Any) -> Source:
    table, id, label, drop, about, preparation = args
    try:
        return frame(table, id, label, drop=drop, about=about, preparation=preparation)
    except DataError as error:
        raise DataError(
            f"{path.name}: {error.what}", got=error.got, expected=error.expected, todo=error.todo
        ) from error


def _file(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    return path


def _check_separator(path: Path, names: list[str], separator: str) -> None:
    if any("\0" in str(name) for name in names):
        raise DataError(f"{path.name} is not text", got="a zero byte in its first line", todo=_AS_TEXT)
    found = [other for other in _SEPARATORS if len(names) == 1 and other in str(names[0])]
    if found:
        raise DataError(
            f"{path.name} has one column only, whose name holds another separator",
            got=repr(str(names[0])),
            expected=f"names separated by {separator!r}",
            todo=f"say separator={found[0]!r}".replace("'", '"'),
        )


def _ragged(path: Path, got: str, separator: str) -> DataError:
    return DataError(
        f"{path.name} is not a well-formed table",
        got=got,
        todo="give every row as many values as there are column names, "
        f"and put values that contain {separator!r} in quotes",
    )


def _given(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


def _objects(column: pd.Series[Any]) -> np.ndarray:
    """Values of a column; numbers as they are, all else as objects with None for gaps."""
    if column.dtype.kind in "iuf" and isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    values: np.ndarray = column.astype(object).where(column.notna(), None).to_numpy(dtype=object)
    return values


def _labels(column: pd.Series[Any], name: str, ids: np.ndarray) -> tuple[Tensor, tuple[str, ...]]:
    from pandas.api import types

    gaps = column.isna().to_numpy()
    if gaps.any():
        raise DataError(
            f"label column {name!r} has no value in {int(gaps.sum())} of {len(column)} rows",
            got=f"the first at id {ids[gaps.argmax()].item()!r}",
            todo="drop these rows before loading",
        )
    if types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype):
        values = column.to_numpy(dtype=np.float64)
        if np.isinf(values).any():
            raise NumericsError(f"label column {name!r} holds infinity")
        whole = bool((values == np.round(values)).all())
        return torch.tensor(values, dtype=torch.int64 if whole else torch.float32), ()
    text = column.astype(object).map(str).to_numpy(dtype=str)
    classes, codes = np.unique(text, return_inverse=True)
    return torch.from_numpy(codes.astype(np.int64)), tuple(classes.tolist())
