"""From ``[data]`` to holdings: who holds which rows, columns and labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .. import data
from ..data import Deal, Holdings, PreparationSettings, Source
from ..errors import StudyError
from .data_tables import CsvTable, DataTable, ImagesTable, KnownTable, NpzTable, ParquetTable, RowsTable
from .graph_tables import ChainTable, MergedTable
from .label_columns import label_holders, set_aside
from .people import named
from .reading import in_table

if TYPE_CHECKING:
    from .reading import StudyFile

__all__ = ["few_labels", "holdings_of", "is_at_hand", "pooled", "read_source", "seed_of"]


def holdings_of(file: StudyFile) -> Holdings:
    """Read the data and deal them."""
    table, graph = file.tables.data, file.tables.graph
    with in_table(file, "data"):
        source = _source(file, table)
        if isinstance(graph, ChainTable):
            return few_labels(file, _dealt_by_rows(file, source, graph))
        return few_labels(file, _dealt_by_columns(file, source, graph))


def few_labels(file: StudyFile, people: Holdings) -> Holdings:
    """Return the holdings with as few labels as ``[data]`` says; the rest of the rows have none."""
    share = file.tables.data.labelled
    return people if share is None else data.hide_labels(people, share, file.tables.study.seed)


def pooled(file: StudyFile) -> Holdings:
    """Read the data and deal them to parties of the names that ``[parties]`` says."""
    return named(file, holdings_of(file))


def is_at_hand(file: StudyFile) -> bool:
    """Return whether the pooled data can be read here: known ones, or those at the path that the file says."""
    path = getattr(file.tables.data, "path", None)
    return path is None or (file.path.parent / path).exists()


def _source(file: StudyFile, table: DataTable) -> Source:
    """Read the pooled data and hold rows out."""
    source = read_source(file, table, file.path.parent)
    held = table.hold_out
    if held is None:
        return source
    seed = seed_of(file, held.seed)
    return source.hold_out(test=held.test, valid=held.valid, by=held.by, stratify=held.stratify, seed=seed)


def read_source(file: StudyFile, table: DataTable, folder: Path, labelled: bool = True) -> Source:
    """Read the source of ``[data]`` whole.

    Args:
        file: The study.
        table: Its data, or what a party has of them.
        folder: What paths are relative to.
        labelled: Whether there are labels in it.
    """
    match table:
        case NpzTable():
            x = table.x if isinstance(table.x, str) else tuple(table.x)
            return data.npz(
                folder / table.path,
                x,
                table.y if labelled else None,
                about=tuple(table.about),
                scale=table.scale,
                standardize=table.standardize,
            )
        case CsvTable():
            return data.csv(
                folder / table.path,
                table.id,
                table.label if labelled else None,
                drop=table.drop,
                about=table.about,
                separator=table.separator,
                preparation=PreparationSettings(**table.preparation.model_dump()),
            )
        case ParquetTable():
            return data.parquet(
                folder / table.path,
                table.id,
                table.label if labelled else None,
                drop=table.drop,
                about=table.about,
                preparation=PreparationSettings(**table.preparation.model_dump()),
            )
        case ImagesTable():
            return data.images(
                folder / table.path, _size(table), lazy=table.lazy, standardize=table.standardize
            )
        case KnownTable():
            known = {
                "digits": data.digits,
                "breast_cancer": data.breast_cancer,
                "mnist5k": data.mnist5k,
                "nhanes": data.nhanes,
            }
            return known[table.source](test=0)
    raise StudyError(f"{file.path.name}: [data] is of no known kind", got=type(table).__name__)


def _size(table: ImagesTable) -> int | tuple[int, int] | None:
    if table.size is None or isinstance(table.size, int):
        return table.size
    if len(table.size) != 2:
        raise StudyError("size is a side, or [height, width]", got=str(table.size))
    return table.size[0], table.size[1]


def _dealt_by_rows(file: StudyFile, source: Source, graph: ChainTable) -> Holdings:
    rows = file.tables.data.rows or RowsTable(parties=1)
    seed = seed_of(file, rows.seed)
    if file.tables.data.labels is None:
        return source.split_rows(rows.parties, by=rows.by, alpha=rows.alpha, seed=seed, test=rows.test)
    return source.split({"client": "*"}, rows=_deal(file, rows), labels=graph.server, seed=seed)


def _dealt_by_columns(file: StudyFile, source: Source, graph: MergedTable) -> Holdings:
    table = file.tables.data
    columns = table.columns if table.columns is not None else data.NHANES_INSTITUTIONS
    rows = _deal(file, table.rows) if table.rows is not None else None
    labels = table.labels if isinstance(table.labels, dict) else {graph.label_holders[0]: "y"}
    own = {"y", getattr(table, "label", "y"), getattr(table, "y", "y")}
    others = {server: column for server, column in labels.items() if column not in own}
    first = [server for server in labels if server not in others]
    if len(first) > 1:
        raise StudyError(
            f"the servers {', '.join(first)} would have the same labels",
            todo="name another column in [data.labels]",
        )
    source = set_aside(source, others.values())
    dealt = source.split(columns, rows=rows, labels=first[0] if first else None, seed=file.tables.study.seed)
    return Holdings((*dealt.parties, *label_holders(source, others)))


def _deal(file: StudyFile, rows: RowsTable) -> Deal:
    return Deal(n=rows.parties, by=rows.by, alpha=rows.alpha, seed=seed_of(file, rows.seed), test=rows.test)


def seed_of(file: StudyFile, own: int | None) -> int:
    """Return a table's own seed, or the study's."""
    return file.tables.study.seed if own is None else own
