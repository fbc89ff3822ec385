"""Who takes part with which rows: from the parties' offers to the turns' rows, without anybody's ids.

Parties of one turn that hold other columns, or the labels, of the same rows hold the same ids; or one of them holds
more, e.g. the labels for the rows of many clients, and finds out which (:mod:`cutlayer.sessions.matching`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from ..data import PartyData
from ..errors import AlignmentError, DataError
from ..graph.reconstruction import roles_at_home
from ..graph.split_graph import SplitGraph
from ..schedules.calendar import UNLABELLED
from ..schedules.steps import data_roles
from .messages import Offer

__all__ = ["anchor", "offer_of", "turn_rows"]


def offer_of(data: PartyData | None, digest: str) -> Offer:
    """Return what ``data`` brings, in numbers: rows by split, and a hash of the sorted ids.

    Args:
        data: A party's records; None where it holds none.
        digest: The study's digest, so that the same ids give another hash in another study.
    """
    if data is None:
        return Offer()
    rows = {split: len(records) for split, records in data.splits.items() if len(records)}
    ids = {split: _hash(data.splits[split].ids, split, digest) for split in rows}
    return Offer(rows=rows, ids=ids)


def turn_rows(
    graph: SplitGraph, offers: Mapping[str, Offer], absent: Sequence[str] = ()
) -> list[dict[str, int]]:
    """Return the rows of each turn by split.

    The party of a turn with the fewest rows says how many there are; all others have at least those.

    Args:
        graph: Who takes part in which turn.
        offers: What each party brings.
        absent: Parties that do not take part now; their turns have no rows.

    Raises:
        DataError: A party brings no rows to train on.
        AlignmentError: The ids of parties of a turn differ.
    """
    roles = data_roles(graph)
    found: list[dict[str, int]] = []
    for turn in graph.turns:
        members = list(dict.fromkeys(turn[role] for role in roles))
        found.append({})
        if any(member in absent for member in turn.values()):
            continue
        for split in dict.fromkeys(s for m in members for s in offers[m].rows):
            there = [turn[role] for role in roles_at_home(graph)] if split == UNLABELLED else members
            have = [member for member in there if split in offers[member].rows]
            if have and len(have) == len(there):
                found[-1][split] = offers[anchor(there, offers, split)].rows[split]
            elif split == "train":
                lacking = next(member for member in members if member not in have)
                raise DataError(
                    f"{lacking!r} has no rows to train on",
                    expected=f"rows that match those of {', '.join(have)}",
                )
    return found


def anchor(members: Sequence[str], offers: Mapping[str, Offer], split: str) -> str:
    """Return the party of a turn whose rows count: the first of those that have the fewest.

    Raises:
        AlignmentError: Another one has as many rows, but not the same.
    """
    first = min(members, key=lambda member: offers[member].rows[split])
    for other in members:
        same = offers[first].ids[split] == offers[other].ids[split]
        if not same and offers[other].rows[split] == offers[first].rows[split]:
            raise AlignmentError(
                f"{first!r} and {other!r} do not hold the same ids in the split {split!r}",
                got=f"{offers[first].rows[split]} rows at each",
                expected="the same ids, in any order",
                todo="keep only the rows that all of them have, e.g. by a private set intersection, and join again",
            )
    return first


def _hash(ids: np.ndarray, split: str, digest: str) -> str:
    ordered = np.sort(ids)
    text = "\n".join(map(str, ordered.tolist()))
    return hashlib.sha256(
        f"cutlayer ids\n{digest}\n{split}\n{ordered.dtype.kind}\n{text}".encode()
    ).hexdigest()
