"""Which records all parties hold: the intersection of their ids.

The ids are compared as they are. Parties that must not show theirs to each other run a private set
intersection first and hand its result to the study.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import numpy as np

from cutlayer.data.ids import as_ids, some
from cutlayer.errors import AlignmentError, DataError

__all__ = ["common_ids"]


def common_ids(party_ids: Mapping[str, np.ndarray], *, strict: bool = False) -> np.ndarray:
    """Return the ids that every party holds, sorted.

    Args:
        party_ids: Ids by party, each (rows,) of int64 or text, in any order.
        strict: Refuse ids that some party lacks, instead of leaving them out.

    Raises:
        AlignmentError: Ids are repeated at a party, are numbers here and text there, have nothing in
            common, or (``strict``) do not match completely.
    """
    if not party_ids:
        raise AlignmentError("there is no party whose ids could be aligned")
    ids = {party: _checked(party, values) for party, values in party_ids.items()}
    _one_type(ids)
    common: np.ndarray = reduce(lambda a, b: np.intersect1d(a, b, assume_unique=True), ids.values())
    if not len(common):
        raise AlignmentError(
            "the parties have no id in common",
            got="; ".join(f"{party}: {some(values, 2) or 'no rows'}" for party, values in ids.items()),
            todo="check that every party uses the same kind of id, written the same way",
        )
    if strict:
        _all_match(ids, common)
    return np.sort(common)


def _checked(party: str, values: np.ndarray) -> np.ndarray:
    try:
        return as_ids(values, party=party)
    except DataError as error:
        raise AlignmentError(
            error.what, party=party, got=error.got, expected=error.expected, todo=error.todo
        ) from error


def _one_type(ids: Mapping[str, np.ndarray]) -> None:
    kinds = {party: "text" if values.dtype.kind == "U" else "whole numbers" for party, values in ids.items()}
    if len(set(kinds.values())) > 1:
        raise AlignmentError(
            "ids of different types cannot be compared",
            got=", ".join(f"{kind} at {party}" for party, kind in kinds.items()),
            expected="the same type at every party",
            todo="convert them at one side; leading zeros matter in text",
        )


def _all_match(ids: Mapping[str, np.ndarray], common: np.ndarray) -> None:
    alone = {party: values[~np.isin(values, common)] for party, values in ids.items()}
    if any(len(values) for values in alone.values()):
        raise AlignmentError(
            f"not every id is held by every party ({len(common)} are)",
            got="; ".join(
                f"{party}: {len(values)} unmatched" + (f" ({some(values, 3)})" if len(values) else "")
                for party, values in alone.items()
            ),
            expected="the same ids at every party (strict=True)",
        )
