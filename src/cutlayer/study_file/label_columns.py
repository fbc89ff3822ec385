"""Several servers, each with a label column of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from ..data import PartyData, Records, Source, frame
from ..errors import DataError, nearest

__all__ = ["label_holders", "set_aside"]


def set_aside(source: Source, columns: Collection[str]) -> Source:
    """Return the source in which ``columns`` are no longer inputs.

    Raises:
        DataError: There is no such column.
    """
    train = source.splits["train"]
    for name in columns:
        if name not in train.columns and name not in train.about:
            raise DataError(
                f"there is no label column {name!r}", todo=nearest(name, ["y", *train.columns, *train.about])
            )
    splits = dict(source.splits)
    for name in columns:
        splits = {split: pool.set_aside(name) for split, pool in splits.items()}
    return replace(source, splits=splits)


def label_holders(source: Source, columns: Mapping[str, str]) -> tuple[PartyData, ...]:
    """Return one party for each server, which holds its column of all rows as the field ``y``.

    Args:
        source: Data in which the columns are set aside.
        columns: Column by server.
    """
    return tuple(_holder(source, server, column) for server, column in columns.items())


def _holder(source: Source, server: str, column: str) -> PartyData:
    import pandas as pd

    ids = np.concatenate([pool.ids for pool in source.splits.values()])
    values = np.concatenate([np.asarray(pool.about[column], dtype=object) for pool in source.splits.values()])
    # All splits together, so that a class has the same number in each.
    table = pd.DataFrame({"id": ids, column: pd.Series(list(values)).infer_objects()})
    labels = frame(table, id="id", label=column).splits["train"]
    records: dict[str, Records] = {}
    done = 0
    for split, pool in source.splits.items():
        rows = labels.select(np.arange(done, done + len(pool)))
        records[split] = Records(rows.ids, {"y": rows.fields["y"]})
        done += len(pool)
    return PartyData(server, server, records)
