"""Raw columns to numbers: what is learnt (medians, scales, categories) is learnt from training rows only.

Numbers: gaps get the median of the training rows, then every column is scaled to mean 0 and standard
deviation 1. Text, categories and truth values: one output per value seen in training, one for "(missing)"
where training rows lack it; a value never seen in training gives zeros. Columns that are constant or
empty in training are dropped, and so are columns of text in which nearly every row has a value of its own: names
or notes, which say who a row is and would become category names. The work is scikit-learn's.

In a vertical study every party prepares its own columns on its own. In a horizontal one the parties must
agree on one schema (the same outputs in the same order), so the preparation is fitted once, on the pooled
training rows: what the parties share is the medians, scales and category names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutlayer.errors import DataError, NumericsError, nearest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MISSING", "Preparation", "PreparationSettings"]

MISSING = "(missing)"

_UNIQUE_FROM = 20
_UNIQUE_SHARE = 0.9


@dataclass(frozen=True, kw_only=True)
class PreparationSettings:
    """How raw columns are prepared.

    Attributes:
        missing_indicator: Add an output per number column with gaps that says where they were.
        max_categories: At most this many outputs per text column; rarer values share one.
    """

    missing_indicator: bool = False
    max_categories: int = 50

    def __post_init__(self) -> None:
        if self.max_categories < 2:
            raise DataError("max_categories is too small", got=str(self.max_categories), expected="2 or more")


@dataclass(frozen=True, eq=False, kw_only=True)
class Preparation:
    """A fitted preparation; make one with :meth:`fit`.

    Attributes:
        columns: The raw columns it reads.
        numbers: Those that are scaled.
        categories: Those that become one output per value.
        dropped: Those that are not used, and why.
        names: The outputs, in order.
        settings: How it was fitted.
    """

    columns: tuple[str, ...]
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    dropped: dict[str, str]
    names: tuple[str, ...]
    settings: PreparationSettings
    _transformer: Any

    @classmethod
    def fit(cls, table: pd.DataFrame, settings: PreparationSettings | None = None) -> Preparation:
        """Learn medians, scales and categories from these rows.

        Args:
            table: The training rows, and no others.
            settings: Left out: the defaults.

        Raises:
            DataError: No column is of use, or one has a type that cannot be prepared.
            NumericsError: A column holds infinity.
        """
        settings = settings or PreparationSettings()
        columns = tuple(str(name) for name in table.columns)
        numbers, categories, dropped = _sorted_by_kind(table, settings)
        if not numbers and not categories:
            raise DataError(
                "no column is left after preparation",
                got="; ".join(f"{name}: {why}" for name, why in dropped.items()) or "a table without columns",
                expected="at least one column with two different values",
            )
        transformer = _transformer(numbers, categories, settings)
        transformer.fit(_tidy(table, numbers, categories))
        names = tuple(str(name) for name in transformer.get_feature_names_out())
        return cls(
            columns=columns,
            numbers=numbers,
            categories=categories,
            dropped=dropped,
            names=names,
            settings=settings,
            _transformer=transformer,
        )

    def transform(self, table: pd.DataFrame) -> Tensor:
        """Return these rows as numbers, float32 [rows, len(names)].

        Raises:
            DataError: A column that was there in training is missing.
            NumericsError: A column holds infinity.
        """
        for name in (*self.numbers, *self.categories):
            if name not in table.columns:
                known = tuple(str(column) for column in table.columns)
                raise DataError(f"column {name!r} is missing", todo=nearest(name, known))
        tidy = _tidy(table, self.numbers, self.categories)
        values = self._transformer.transform(tidy) if len(tidy) else np.empty((0, len(self.names)))
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    def describe(self) -> str:
        """Say what is done to each column, one line each."""
        lines = {name: f"dropped, {why}" for name, why in self.dropped.items()}
        if self.numbers:
            steps = self._transformer.named_transformers_["numbers"]
            imputer, scaler = steps.named_steps["gaps"], steps.named_steps["scale"]
            for i, name in enumerate(self.numbers):
                lines[name] = (
                    f"number: gaps become {imputer.statistics_[i]:.6g}, "
                    f"then minus {scaler.mean_[i]:.6g}, divided by {scaler.scale_[i]:.6g}"
                )
                if f"missingindicator_{name}" in self.names:
                    lines[name] += "; one more output says where gaps were"
        if self.categories:
            encoder = self._transformer.named_transformers_["categories"]
            for name, values, rare in zip(
                self.categories, encoder.categories_, encoder.infrequent_categories_, strict=True
            ):
                lines[name] = _described(list(values), [] if rare is None else list(rare))
        head = f"{len(self.columns)} columns become {len(self.names)} numbers"
        return "\n".join([head, *(f"  {name}: {lines[name]}" for name in self.columns)])


def _described(values: list[str], rare: list[str]) -> str:
    kept = [value for value in values if value not in rare]
    text = f"one output each for {', '.join(map(repr, kept))}"
    return text + (f"; {len(rare)} rarer values share one" if rare else "; other values give zeros")


def _sorted_by_kind(
    table: pd.DataFrame, settings: PreparationSettings
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, str]]:
    numbers: list[str] = []
    categories: list[str] = []
    dropped: dict[str, str] = {}
    for name in map(str, table.columns):
        column = table[name]
        is_number = _is_number(column)
        gaps = bool(column.isna().any())
        if column.isna().all():
            dropped[name] = "empty in training"
        elif column.nunique() == 1 and not (gaps and (not is_number or settings.missing_indicator)):
            dropped[name] = "one value in training"
        elif not is_number and _names_rows(column):
            dropped[name] = "nearly every training row has a text of its own, which may say who it is"
        else:
            (numbers if is_number else categories).append(name)
    return tuple(numbers), tuple(categories), dropped


def _names_rows(column: pd.Series[Any]) -> bool:
    """Whether more than 20 values, and at least 90 % of those given, are different."""
    different = column.astype(object).map(str)[column.notna()].nunique()
    return different > _UNIQUE_FROM and different >= _UNIQUE_SHARE * int(column.notna().sum())


def _is_number(column: pd.Series[Any]) -> bool:
    from pandas.api import types

    if types.is_datetime64_any_dtype(column.dtype) or types.is_timedelta64_dtype(column.dtype):
        raise DataError(
            f"column {str(column.name)!r} holds dates or durations",
            got=str(column.dtype),
            expected="numbers, text, categories or truth values",
            todo="turn it into a number first, e.g. years",
        )
    if types.is_complex_dtype(column.dtype):
        raise DataError(f"column {str(column.name)!r} holds complex numbers", expected="real numbers")
    return types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype)


def _tidy(table: pd.DataFrame, numbers: tuple[str, ...], categories: tuple[str, ...]) -> pd.DataFrame:
    """Return numbers as float64 with NaN for gaps and all else as text with "(missing)" for gaps."""
    import pandas as pd

    tidy: dict[str, Any] = {}
    for name in numbers:
        try:
            values = table[name].to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError):
            raise DataError(
                f"column {name!r} held numbers in training and does not here", got=str(table[name].dtype)
            ) from None
        if np.isinf(values).any():
            raise NumericsError(
                f"column {name!r} holds infinity",
                got=f"the first at row {int(np.isinf(values).argmax())}",
                todo="write a gap (NaN) where a value is unknown",
            )
        tidy[name] = values
    for name in categories:
        column = table[name].astype(object)
        tidy[name] = column.map(str).where(column.notna(), MISSING).to_numpy(dtype=object)
    return pd.DataFrame(tidy)


def _transformer(numbers: tuple[str, ...], categories: tuple[str, ...], settings: PreparationSettings) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    parts: list[tuple[str, Any, list[str]]] = []
    if numbers:
        imputer = SimpleImputer(strategy="median", add_indicator=settings.missing_indicator)
        parts.append(("numbers", Pipeline([("gaps", imputer), ("scale", StandardScaler())]), list(numbers)))
    if categories:
        encoder = OneHotEncoder(
            handle_unknown="infrequent_if_exist",
            max_categories=settings.max_categories,
            sparse_output=False,
            dtype=np.float32,
        )
        parts.append(("categories", encoder, list(categories)))
    return ColumnTransformer(parts, verbose_feature_names_out=False)
