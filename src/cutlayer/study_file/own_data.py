"""One party's own records, from its own folder, without anybody else's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data import PartyData, Records, Source
from ..errors import DataError, StudyError
from ..seeds import stream
from .data_tables import DataTable, KnownTable
from .dealing import few_labels, read_source, seed_of
from .graph_tables import ChainTable
from .reading import in_table
from .records_file import RECORDS, read_records

if TYPE_CHECKING:
    from .reading import StudyFile

__all__ = ["own_records"]


def own_records(file: StudyFile, party: str, role: str, folder: Path) -> PartyData:
    """Return what ``party`` holds: ``records.safetensors``, or what ``[data]`` reads in ``folder``.

    All rows found are the party's own; columns are those of its role. Rows are held out as the study says: by
    chance where the party has inputs and labels, and else by id, so that all who hold a part of a row agree.

    Raises:
        DataError: No such folder, nothing in it that the study reads, damaged or unfit data.
        StudyError: The study reads data that are in no folder.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", party=party, todo="name the folder of your own data")
    if (folder / RECORDS).is_file():
        return read_records(folder / RECORDS, party, role)
    table = file.tables.data
    if isinstance(table, KnownTable):
        raise StudyError(
            f"{folder} holds no {RECORDS}, and {table.source!r} is read from no folder",
            party=party,
            todo="name a folder that `cutlayer deal` made, or a source with a path in [data]",
        )
    with in_table(file, "data"):
        whole = isinstance(file.tables.graph, ChainTable) and table.labels is None
        found = _whole_rows(file, table, role, folder) if whole else _part(file, table, role, folder)
        return replace(found, name=party)


def _whole_rows(file: StudyFile, table: DataTable, role: str, folder: Path) -> PartyData:
    """Return inputs and labels of rows that nobody else knows."""
    source = read_source(file, table, folder)
    held = table.hold_out
    if held is not None:
        seed = seed_of(file, held.seed)
        source = source.hold_out(held.test, held.valid, held.by, held.stratify, seed)
    if table.rows is not None:
        source = _aside(source, (table.rows.by,))
    return few_labels(file, source.split_rows(1, role=role)).parties[0]


def _part(file: StudyFile, table: DataTable, role: str, folder: Path) -> PartyData:
    """Return the inputs or the labels of rows of which others hold the rest."""
    roles = file.tables.roles
    labels = _labels(file, table)
    update: dict[str, object] = {name: [] for name in ("drop", "about") if hasattr(table, name)}
    if role in labels:
        update |= {name: labels[role] for name in ("label",) if hasattr(table, name)}
    source = read_source(file, table.model_copy(update=update), folder, labelled=role in labels)
    by = (table.rows.by,) if table.rows is not None else ()
    aside = {*getattr(table, "drop", ()), *getattr(table, "about", ()), *labels.values(), *by}
    source = _held_out_by_id(file, _aside(source, aside))
    if role not in roles.inputs:
        splits = {s: Records(pool.ids, {"y": pool.fields["y"]}) for s, pool in source.splits.items()}
        return PartyData(role, role, splits)
    columns = (table.columns or {}).get(role, "*")
    return source.split({role: columns}, labels=role if role in labels else None).parties[0]


def _labels(file: StudyFile, table: DataTable) -> dict[str, str]:
    """Return the label column of each role that holds labels."""
    if isinstance(table.labels, dict):
        return table.labels
    graph = file.tables.graph
    holder = graph.server if isinstance(graph, ChainTable) else graph.label_holders[0]
    return {holder: str(getattr(table, "label", None) or getattr(table, "y", "y"))}


def _aside(source: Source, columns: set[str] | tuple[str, ...]) -> Source:
    """Return the source in which these columns, where there are such, are no inputs."""
    splits = dict(source.splits)
    for name in sorted(columns):
        splits = {split: pool.set_aside(name) for split, pool in splits.items()}
    return replace(source, splits=splits)


def _held_out_by_id(file: StudyFile, source: Source) -> Source:
    """Hold rows out by a number drawn from each row's id, the same wherever the row is."""
    held = file.tables.data.hold_out
    if held is None:
        return source
    if held.by is not None:
        raise StudyError(
            f"hold_out by = {held.by!r} needs a column that not all parties have",
            todo="drop by; each party's rows are then held out by their ids",
        )
    seed, train = seed_of(file, held.seed), source.splits["train"]
    drawn = np.array([stream(seed, "hold out", str(id)) / 2**63 for id in train.ids.tolist()])
    chosen = {
        "test": drawn < held.test,
        "valid": (drawn >= held.test) & (drawn < held.test + held.valid),
        "train": drawn >= held.test + held.valid,
    }
    splits = dict(source.splits)
    for split, rows in chosen.items():
        if split != "train" and split in splits and rows.any():
            raise DataError(f"there is a {split} split already", todo=f"say {split} = 0 in [data.hold_out]")
        if rows.any():
            splits[split] = train.select(np.flatnonzero(rows))
    return replace(source, splits=splits)
