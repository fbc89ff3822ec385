"""How rows are dealt to parties, and which rows are held out for validation and test."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cutlayer.data.ids import some
from cutlayer.data.pool import Pool
from cutlayer.errors import DataError
from cutlayer.seeds import generator

__all__ = ["Deal", "Hand", "deal_rows", "pick_rows"]


@dataclass(frozen=True, kw_only=True)
class Deal:
    """How rows are dealt to parties.

    Attributes:
        n: How many parties; left out where ``by`` is a column.
        by: "even": at random, equal numbers. "dirichlet": label skew, every class is dealt in shares drawn
            from a symmetric Dirichlet distribution (Yurochkin et al., ICML 2019, section 4.1). Anything
            else: the name of a column; one party for each of its values.
        alpha: Concentration of the Dirichlet distribution; small: few classes per party.
        seed: Same seed, same deal.
        test: Who gets the validation and test rows. "even": dealt at random, equal numbers. "first": all to
            the first party. "own": every party those that carry its value of the column. Left out: "own" by
            a column, else "even".
    """

    n: int | None = None
    by: str = "even"
    alpha: float = 0.5
    seed: int = 0
    test: Literal["even", "first", "own"] | None = None

    def __post_init__(self) -> None:
        if self.by_column and self.n is not None:
            raise DataError(
                f"by={self.by!r} names a column, whose values say how many parties there are",
                got=f"n={self.n}",
                todo="leave n out, or use by='even' or by='dirichlet'",
            )
        if not self.by_column and (self.n is None or self.n < 1):
            raise DataError(f"by={self.by!r} needs a number of parties", got=f"n={self.n}", expected="n >= 1")
        if not self.alpha > 0:
            raise DataError("alpha must be positive", got=str(self.alpha))
        if self.test not in (None, "even", "first", "own"):
            raise DataError(f"unknown value test={self.test!r}", expected="'even', 'first' or 'own'")
        if self.test == "own" and not self.by_column:
            raise DataError("test='own' needs a column", got=f"by={self.by!r}", todo="use 'even' or 'first'")

    @property
    def by_column(self) -> bool:
        """Whether a column says who gets which row."""
        return self.by not in ("even", "dirichlet")


@dataclass(frozen=True)
class Hand:
    """What one party is dealt.

    Attributes:
        name: Number of the party, or the value of the column it stands for, fit for a file name.
        rows: Positions by split, ascending; a split without rows is left out.
    """

    name: str
    rows: Mapping[str, np.ndarray]


def deal_rows(splits: Mapping[str, Pool], how: Deal) -> tuple[Hand, ...]:
    """Deal the rows of every split.

    Raises:
        DataError: More parties than rows, no labels to deal by, or no such column.
    """
    train = splits["train"]
    if how.by_column:
        values = train.column(how.by)
        names, owner = np.unique(values, return_inverse=True)
    else:
        n = how.n or 1
        if n > len(train):
            raise DataError(
                "there are more parties than training rows", got=f"{n} parties, {len(train)} rows"
            )
        names = np.arange(n).astype(str)
        rng = generator(how.seed, "deal", how.by, "train")
        owner = (
            _even(len(train), n, rng) if how.by == "even" else _dirichlet(_labels(train), n, how.alpha, rng)
        )
    owners = {"train": owner}
    for split, pool in splits.items():
        if split != "train":
            owners[split] = _held_out_owner(split, pool, names, how)
    dealt = {split: _rows_by_owner(owner, len(names)) for split, owner in owners.items()}
    return tuple(
        Hand(
            _fit_for_a_name(str(name)),
            {split: rows[party] for split, rows in dealt.items() if len(rows[party])},
        )
        for party, name in enumerate(names)
    )


def pick_rows(strata: np.ndarray, groups: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Choose about ``share`` of the rows, whole groups at a time, the same share of every stratum.

    A stratum always keeps at least one group. Where every row is its own group, the number of rows is
    exact but for rounding.

    Args:
        strata: Stratum of each row, [rows].
        groups: Group of each row, [rows]; a group belongs to the stratum of its first row.
        share: Between 0 and 1.
        rng: Source of the choice.

    Returns:
        Chosen or not, bool [rows].
    """
    _, first, group_of_row = np.unique(groups, return_index=True, return_inverse=True)
    sizes = np.bincount(group_of_row)
    stratum_of_group = strata[first]
    chosen = np.zeros(len(sizes), bool)
    due = 0.0
    for stratum in np.unique(stratum_of_group):
        members = rng.permutation(np.flatnonzero(stratum_of_group == stratum))
        due = min(due, 1.0) + share * float(sizes[members].sum())
        for group in members[:-1]:
            if due < 0.5:
                break
            if sizes[group] <= due + 0.5:
                chosen[group] = True
                due -= float(sizes[group])
    return chosen[group_of_row]


def _even(rows: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Owner of each row; numbers of rows differ by at most one."""
    owner = np.empty(rows, np.int64)
    owner[rng.permutation(rows)] = np.arange(rows) % n
    return owner


def _dirichlet(labels: np.ndarray, n: int, alpha: float, rng: np.random.Generator) -> np.ndarray:
    """Owner of each row; whom the draw left empty takes one row from the party that has most."""
    owner = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        ends = np.round(np.cumsum(rng.dirichlet(np.full(n, alpha)))[:-1] * len(rows))
        owner[rows] = np.searchsorted(ends, np.arange(len(rows)), side="right")
    counts = np.bincount(owner, minlength=n)
    for party in np.flatnonzero(counts == 0):
        giver = int(counts.argmax())
        owner[np.flatnonzero(owner == giver)[-1]] = party
        counts[giver] -= 1
        counts[party] = 1
    return owner


def _labels(pool: Pool) -> np.ndarray:
    labels = pool.labels()
    if labels is None:
        raise DataError(
            "by='dirichlet' deals by label",
            got="a field 'y' that is not one whole number per row" if "y" in pool.fields else "no field 'y'",
            todo="use by='even'",
        )
    return labels


def _held_out_owner(split: str, pool: Pool, names: np.ndarray, how: Deal) -> np.ndarray:
    way = how.test or ("own" if how.by_column else "even")
    if way == "first":
        return np.zeros(len(pool), np.int64)
    if way == "even":
        return _even(len(pool), len(names), generator(how.seed, "deal", how.by, split))
    values = pool.column(how.by)
    strangers = np.setdiff1d(values, names)
    if len(strangers):
        raise DataError(
            f"column {how.by!r} has values in {split!r} that training rows lack",
            got=some(strangers),
            expected=some(names),
            todo="use test='even' or test='first'",
        )
    return np.searchsorted(names, values)


def _fit_for_a_name(value: str) -> str:
    return re.sub(r"[^\w.-]+", "-", value)


def _rows_by_owner(owner: np.ndarray, n: int) -> list[np.ndarray]:
    order = np.argsort(owner, kind="stable")
    return np.split(order, np.searchsorted(owner[order], np.arange(1, n)))
