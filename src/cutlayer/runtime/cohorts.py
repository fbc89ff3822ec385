"""Which rows the parties of each turn have in common, and in which order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from ..data import Holdings, Records, common_ids
from ..errors import DataError
from ..graph.reconstruction import roles_at_home
from ..graph.split_graph import SplitGraph
from ..schedules.calendar import UNLABELLED
from ..schedules.steps import data_roles

__all__ = ["Cohorts"]


class Cohorts:
    """The turns' common rows.

    Where one party alone has data in a turn, its rows count in its own order. Where several have,
    the rows whose ids all of them have count, in the order of the ids.

    Args:
        graph: Who takes part in which turn.
        holdings: Their data.
        labels: Whether label holders take part (not needed to predict).

    Attributes:
        rows: For each turn, the number of common rows by split.
        ids: For each turn, the common ids by split, in their order.
        positions: By party, for each (split, turn) its rows in the common order, where that differs from its own.
    """

    def __init__(self, graph: SplitGraph, holdings: Holdings, *, labels: bool = True) -> None:
        self.rows: list[dict[str, int]] = []
        self.ids: list[dict[str, np.ndarray]] = []
        self.positions: dict[str, dict[tuple[str, int], Tensor]] = {}
        roles = data_roles(graph, labels=labels)
        parties = {party.name: party for party in holdings.parties}
        for index, turn in enumerate(graph.turns):
            members = list(dict.fromkeys(turn[role] for role in roles))
            for member in members:
                if member not in parties:
                    raise DataError(
                        f"no data for {member!r}, who takes part in training",
                        got=", ".join(parties) or "nobody",
                        todo="name parties alike in graph and data, or build the graph with clients= the holdings",
                    )
            self.rows.append({})
            self.ids.append({})
            splits = dict.fromkeys(s for m in members for s in parties[m].splits)
            for split in splits:
                records = {m: parties[m].splits[split] for m in members if split in parties[m].splits}
                there = [turn[role] for role in roles_at_home(graph)] if split == UNLABELLED else members
                self._align(index, split, there, {m: r for m, r in records.items() if m in there})

    def digest(self, holdings: Holdings) -> str:
        """Return a hash of who holds which fields and of the rows' ids by turn and split; not of the values."""
        digest = hashlib.sha256()
        for role in holdings.roles:
            fields = sorted((name, str(spec)) for name, spec in holdings.fields(role).items())
            digest.update(f"{role}: {fields}\n".encode())
        for turn, splits in enumerate(self.ids):
            for split, ids in sorted(splits.items()):
                digest.update(f"{turn} {split}: {len(ids)} {ids.dtype}\n".encode())
                digest.update(np.ascontiguousarray(ids).tobytes())
        return digest.hexdigest()

    def _align(self, turn: int, split: str, members: list[str], records: Mapping[str, Records]) -> None:
        have = {m: r for m, r in records.items() if len(r)}
        if not have:
            return
        if len(have) < len(members):
            lacking = sorted(set(members) - set(have))
            if split == "train":
                raise DataError(
                    f"{lacking[0]!r} has no rows to train on",
                    expected=f"rows that match those of {', '.join(have)}",
                )
            return
        if len(members) == 1:
            only = have[members[0]]
            self.rows[turn][split] = len(only)
            self.ids[turn][split] = only.ids
            return
        common = common_ids({m: r.ids for m, r in have.items()})
        self.rows[turn][split] = len(common)
        self.ids[turn][split] = common
        for member, own in have.items():
            self.positions.setdefault(member, {})[split, turn] = own.rows_of(common)
