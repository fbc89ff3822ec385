"""Pooled data before they are dealt to parties: by rows, by columns, or both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from cutlayer.data.columns import Selection, choose
from cutlayer.data.deal import Deal, Hand, deal_rows, pick_rows
from cutlayer.data.ids import repeated, some
from cutlayer.data.lazy import LazyField, spec_of
from cutlayer.data.parties import Inputs, PartyPlan, all_inputs, chosen_inputs, fill
from cutlayer.data.pool import Pool
from cutlayer.data.prepare import PreparationSettings
from cutlayer.data.records import SPLITS, Holdings, PartyData
from cutlayer.errors import DataError, nearest
from cutlayer.seeds import generator, stream

__all__ = ["Source"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Source:
    """Pooled data in named splits, before they are dealt to parties.

    Every method returns something new; the same seed gives the same result.

    Attributes:
        splits: "train" and perhaps "valid" and "test".
        classes: Names of the classes, where they have names; label ``i`` is ``classes[i]``.
        preparation: How raw columns will be prepared.
        standardize: Scale float fields at each party by its own training rows.
    """

    splits: Mapping[str, Pool]
    classes: tuple[str, ...] = ()
    preparation: PreparationSettings = field(default_factory=PreparationSettings)
    standardize: bool = False

    def __post_init__(self) -> None:
        for split in self.splits:
            if split not in SPLITS:
                raise DataError(f"unknown split {split!r}", todo=nearest(split, SPLITS))
        if "train" not in self.splits or not len(self.splits["train"]):
            raise DataError("there are no training rows", got=", ".join(self.splits) or "no splits at all")
        ids = np.concatenate([pool.ids for pool in self.splits.values()])
        if len(repeated(ids)):
            raise DataError("the splits share ids", got=some(repeated(ids)), expected="each row in one split")
        for split in self.splits:
            _check_like_train(self.splits, split)
        if self.standardize and any(isinstance(f, LazyField) for f in self.splits["train"].fields.values()):
            raise DataError(
                "standardize needs fields in memory",
                got="a lazy dataset",
                todo="scale in the dataset's transform",
            )

    def __repr__(self) -> str:
        rows = ", ".join(f"{split}: {len(pool)}" for split, pool in self.splits.items())
        train = self.splits["train"]
        fields = [f"{name} {spec_of(value)}" for name, value in train.fields.items()]
        columns = [f"{len(train.columns)} raw columns"] if train.table is not None else []
        return f"Source({rows} rows; {', '.join(fields + columns)})"

    def hold_out(
        self,
        test: float = 0.2,
        valid: float = 0.0,
        by: str | None = None,
        stratify: bool = True,
        seed: int = 0,
    ) -> Source:
        """Take test and validation rows out of the training rows.

        Args:
            test: Share of the rows for "test"; 0 for none.
            valid: Share of the rows for "valid"; 0 for none.
            by: A column whose rows stay together, e.g. the patient; it is no longer an input.
            stratify: The same share of every class, where labels are whole numbers.
            seed: Same seed, same choice.

        Raises:
            DataError: The shares are impossible, or the split is there already.
        """
        shares = {split: share for split, share in (("test", test), ("valid", valid)) if share}
        if any(not 0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
            raise DataError("shares must be at least 0 and leave training rows", got=f"{test=}, {valid=}")
        splits = dict(self.splits)
        rest = splits["train"]
        rows_before = len(rest)
        for split, share in shares.items():
            if split in splits:
                raise DataError(f"there is a {split} split already", todo=f"say {split}=0")
            strata = rest.labels() if stratify else None
            held = pick_rows(
                np.zeros(len(rest)) if strata is None else strata,
                np.arange(len(rest)) if by is None else rest.column(by),
                share * rows_before / len(rest),
                generator(seed, "hold out", split),
            )
            if not held.any():
                raise DataError(
                    f"there are too few rows or groups to hold out {share:g} for {split!r}",
                    got=f"{rows_before} rows" + (f" by {by!r}" if by else ""),
                )
            splits[split], rest = rest.select(np.flatnonzero(held)), rest.select(np.flatnonzero(~held))
        splits["train"] = rest
        if by is not None:
            splits = {split: pool.set_aside(by) for split, pool in splits.items()}
        return replace(self, splits=splits)

    def folds(self, count: int = 5, seed: int = 0) -> Iterator[Source]:
        """Yield ``count`` sources for cross-validation: each row is in "test" exactly once, else in "train".

        Args:
            count: How many folds; each holds out one share of the rows, with the same share of every class.
            seed: Same seed, same folds.

        Raises:
            DataError: There is a test split already, or a fold would be empty.
        """
        from sklearn.model_selection import KFold, StratifiedKFold

        rows = self.splits["train"]
        if "test" in self.splits:
            raise DataError("there is a test split already", todo="load the data with test=0")
        if not 2 <= count <= len(rows):
            raise DataError("cross-validation needs at least 2 folds and no more than rows", got=str(count))
        labels = rows.labels()
        state = stream(seed, "folds") % 2**32
        if labels is None:
            chosen = KFold(count, shuffle=True, random_state=state).split(np.zeros(len(rows)))
        else:
            chosen = StratifiedKFold(count, shuffle=True, random_state=state).split(
                np.zeros(len(rows)), labels
            )
        for train, test in chosen:
            yield replace(
                self, splits={**self.splits, "train": rows.select(train), "test": rows.select(test)}
            )

    def split_rows(
        self,
        n: int | None = None,
        by: str = "even",
        alpha: float = 0.5,
        seed: int = 0,
        role: str = "client",
        test: Literal["even", "first", "own"] | None = None,
    ) -> Holdings:
        """Deal whole rows to parties of one role (a horizontal study).

        Within a party, rows keep their order. Raw columns are prepared once, fitted on all training rows,
        because the parties must agree on one schema.

        Args:
            n: How many parties, ``role-0`` and so on; left out where ``by`` is a column.
            by: "even", "dirichlet" or the name of a column: one party per value, named after it.
            alpha: Concentration of the Dirichlet distribution; small: few classes per party.
            seed: Same seed, same deal.
            role: The role that all parties fill.
            test: Who gets validation and test rows, see :class:`Deal`.
        """
        if by not in ("even", "dirichlet"):
            self.splits["train"].check_column(by)
        how = Deal(n=n, by=by, alpha=alpha, seed=seed, test=test)
        hands = deal_rows(self.splits, how)
        splits = self._without_column(how)
        inputs = all_inputs(splits, self.preparation)
        names = [hand.name if how.by_column else f"{role}-{hand.name}" for hand in hands]
        plans = [
            PartyPlan(name=name, role=role, group=group, rows=hand.rows)
            for group, (name, hand) in enumerate(zip(names, hands, strict=True))
        ]
        return Holdings(tuple(fill(plan, splits, inputs, standardize=self.standardize) for plan in plans))

    def split_columns(
        self, columns: Mapping[str, Selection], labels: str | None = "server", seed: int = 0
    ) -> Holdings:
        """Give each party its own columns of all rows (a vertical study).

        Every party fills the role of its own name and has its rows in an order of its own.

        Args:
            columns: Columns by party: names, patterns like ``"blood_*"``, a slice or positions; or names
                of whole fields, e.g. ``{"radiology": ["image"]}``.
            labels: Who holds the labels: one of these parties or another; None: nobody.
            seed: Same seed, same orders.

        Raises:
            DataError: A name is unknown, or there are no labels.
        """
        return self.split(columns, labels=labels, seed=seed)

    def split(
        self,
        columns: Mapping[str, Selection],
        rows: Deal | None = None,
        labels: str | None = "server",
        labels_split: bool = False,
        seed: int = 0,
    ) -> Holdings:
        """Deal columns to roles and rows to the parties of each role.

        Group ``g`` of every role holds the same ids, each party in an order of its own. Raw columns are
        prepared once per role.

        Args:
            columns: Columns by role, see :meth:`split_columns`.
            rows: How rows are dealt: parties ``role-0`` and so on, or ``role-value`` by a column. Left out:
                one party per role, of the same name.
            labels: The role that holds the labels: one of these or another; None: nobody.
            labels_split: Whether a label role of its own has one party per group, or one for everyone.
            seed: Same seed, same orders.
        """
        splits = self._without_column(rows)
        self._check_labels(labels)
        everyone = (Hand("", {split: np.arange(len(pool)) for split, pool in splits.items()}),)
        hands = deal_rows(self.splits, rows) if rows else everyone
        parties: list[PartyData] = []
        for role, (inputs, dealt) in self._roles(splits, columns, labels, labels_split).items():
            for group, hand in enumerate(hands if dealt else everyone):
                name = f"{role}-{hand.name}" if hand.name else role
                plan = PartyPlan(name=name, role=role, group=group, rows=hand.rows, order_seed=seed)
                parties.append(fill(plan, splits, inputs, standardize=self.standardize))
        return Holdings(tuple(parties))

    def _roles(
        self,
        splits: Mapping[str, Pool],
        columns: Mapping[str, Selection],
        labels: str | None,
        labels_split: bool,
    ) -> dict[str, tuple[Inputs, bool]]:
        """Fields by role, and whether the role's rows are dealt to several parties."""
        if not columns:
            raise DataError("no party has columns", expected="e.g. {'clinic': ['age', 'bmi']}")
        roles: dict[str, tuple[Inputs, bool]] = {}
        for role, selection in columns.items():
            chosen = choose(selection, splits["train"], role)
            inputs = chosen_inputs(splits, chosen, self.preparation)
            roles[role] = (inputs.with_labels(splits) if role == labels else inputs), True
        if labels is not None and labels not in roles:
            empty = Inputs({split: {} for split in splits})
            roles[labels] = empty.with_labels(splits), labels_split
        return roles

    def _without_column(self, how: Deal | None) -> dict[str, Pool]:
        """The splits, without the column by which rows are dealt: it is the same in all rows of a party."""
        if how is None or not how.by_column:
            return dict(self.splits)
        return {split: pool.set_aside(how.by) for split, pool in self.splits.items()}

    def _check_labels(self, labels: str | None) -> None:
        if labels is not None and any("y" not in pool.fields for pool in self.splits.values()):
            raise DataError(
                "there are no labels",
                party=labels,
                todo="name the label column when loading the data, or say labels=None",
            )


def _check_like_train(splits: Mapping[str, Pool], split: str) -> None:
    train, other = splits["train"], splits[split]
    specs, others = ({n: spec_of(f) for n, f in pool.fields.items()} for pool in (train, other))
    if specs != others:
        raise DataError(
            f"the fields of {split!r} and 'train' differ",
            got=", ".join(f"{name} {spec}" for name, spec in others.items()),
            expected=", ".join(f"{name} {spec}" for name, spec in specs.items()),
        )
    if train.columns != other.columns:
        odd = sorted(set(train.columns) ^ set(other.columns)) or ["their order"]
        raise DataError(f"the raw columns of {split!r} and 'train' differ", got=", ".join(odd))
    if any(isinstance(pool.fields.get("y"), LazyField) for pool in (train, other)):
        return  # every item would have to be read
    labels, known = other.labels(), train.labels()
    if labels is None or known is None:
        return
    strangers = np.setdiff1d(labels, known)
    if len(strangers):
        raise DataError(
            f"{split!r} has classes that no training row has",
            got=some(strangers),
            expected=f"some of {some(np.unique(known), 12)}",
            todo="move rows of these classes to the training rows or leave the classes out",
        )
