"""Private attributes of rows that an audit asks for: further fields, named columns of tables, told as classes.

The auditor puts an attribute beside everybody's rows, for the truth and for the rows that an adversary is told of; the
study trains without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data import Holdings, PartyData, Records
from ..data.pool import Pool
from ..errors import StudyError, nearest
from .attributes import AttributeInference
from .base import Attack

__all__ = ["Attribute", "Attributes", "attribute_of"]

_FEW = 10
"""Numbers of at most so many values are classes as they are; others are held against their median."""
_MOST = 50
_TOLD = 5
_GAP = "(missing)"
_SAY = "`cutlayer audit --attribute NAME`, in Python AttributeInference(of=NAME)"


@dataclass(frozen=True, eq=False, kw_only=True)
class Attribute:
    """An attribute of rows as classes from 0.

    Attributes:
        name: The column or field.
        words: What the classes are.
        field: Under which name ``holdings`` have it.
        holdings: Everybody's data, and the attribute beside the rows of one role [N], int64.
    """

    name: str
    words: str
    field: str
    holdings: Holdings


def attribute_of(
    holdings: Holdings, name: str, labels: Sequence[str] = (), pool: Pool | None = None
) -> Attribute:
    """Return the attribute ``name`` of the rows of ``holdings``.

    Words, and numbers of few values, are classes as they are. Of other numbers it is asked whether they are above
    their median; where there is a gap they are not.

    Args:
        holdings: Everybody's data.
        name: A column of ``pool``, or a field with one value a row, or a column of a prepared table.
        labels: Fields that are no attributes, since the task is to predict them.
        pool: All rows before they were dealt, where there are more columns than what became fields.

    Raises:
        StudyError: There is no such column or field, or it is no attribute: the label, one value only, or too many.
    """
    known = list(_known(holdings, labels, pool))
    if name not in known:
        raise StudyError(
            f"no attribute {name!r} can be asked for" + (": it is the label" if name in labels else ""),
            expected="a column of the data, or a further field with one value a row",
            todo=nearest(name, known) if known else "there is none in these data",
        )
    found = _pooled(holdings, name, pool) or _held(holdings, name)
    classes, words = _classes(
        name, np.concatenate([values for parts in found.values() for values in parts.values()])
    )
    field, places = f"attribute {name}", iter(classes)
    told = {
        party: {split: _take(places, len(values)) for split, values in parts.items()}
        for party, parts in found.items()
    }
    parties = (
        _with(party, field, told[party.name]) if party.name in told else party for party in holdings.parties
    )
    return Attribute(name=name, words=words, field=field, holdings=Holdings(tuple(parties)))


class Attributes:
    """The attributes that attacks are after.

    Args:
        holdings: Everybody's data.
        attacks: All that will be tried.
        labels: Fields that are no attributes.
        pool: All rows before they were dealt.

    Attributes:
        holdings: Everybody's data with the attributes beside.

    Raises:
        StudyError: An attack is after something that is no attribute.
    """

    def __init__(
        self,
        holdings: Holdings,
        attacks: Iterable[Attack],
        labels: Sequence[str] = (),
        pool: Pool | None = None,
    ) -> None:
        self._known = list(_known(holdings, labels, pool))
        self._found: dict[str, Attribute] = {}
        self.holdings = holdings
        for name in dict.fromkeys(attack.of for attack in attacks if isinstance(attack, AttributeInference)):
            if name:
                self._found[name] = attribute_of(self.holdings, name, labels, pool)
                self.holdings = self._found[name].holdings

    def after(self, attack: Attack) -> Attribute | str:
        """Return what an attack is after; in words why nothing, where none was named; empty for other attacks."""
        if not isinstance(attack, AttributeInference):
            return ""
        return self._found.get(attack.of) or self._how_to_name_one()

    def _how_to_name_one(self) -> str:
        if not self._known:
            return "no attribute was named, and the data have no column or further field to name"
        some = ", ".join(map(repr, self._known[:_TOLD]))
        more = f" and {len(self._known) - _TOLD} more" if len(self._known) > _TOLD else ""
        return f"no attribute was named: say {_SAY}; there are {some}{more}"


def _known(holdings: Holdings, labels: Sequence[str], pool: Pool | None) -> Iterator[str]:
    """Yield each name once that can be asked for."""
    names = dict.fromkeys([*pool.about, *pool.columns] if pool is not None else ())
    for party in holdings.parties:
        names |= dict.fromkeys(name for name, spec in party.specs().items() if spec.shape in ((), (1,)))
        prepared = party.preparation
        if prepared is not None:
            names |= dict.fromkeys((*prepared.numbers, *prepared.categories))
    return (name for name in names if name not in labels)


Found = Mapping[str, Mapping[str, np.ndarray]]
"""By party and split, the values of its rows [N]: numbers or words."""


def _pooled(holdings: Holdings, name: str, pool: Pool | None) -> Found | None:
    """Return the values of a column of the pooled rows, at the parties of the role that is named first."""
    if pool is None or name not in (*pool.about, *pool.columns):
        return None
    table = pool.table
    values = np.asarray(
        table[name] if table is not None and name in pool.columns else pool.about[name], dtype=object
    )
    place = {row: number for number, row in enumerate(pool.ids.tolist())}
    first = holdings.roles[holdings.parties[0].role]
    return {
        party: {
            split: values[[place[row] for row in records.ids.tolist()]]
            for split, records in holdings.party(party).splits.items()
        }
        for party in first
    }


def _held(holdings: Holdings, name: str) -> Found:
    """Return the values that the parties of one role hold, as a field or in a prepared table."""
    role = next(p.role for p in holdings.parties if name in _known(Holdings((p,)), (), None))
    parties = [holdings.party(party) for party in holdings.roles[role]]
    return {
        party.name: {split: _column(party, records, name) for split, records in party.splits.items()}
        for party in parties
    }


def _column(party: PartyData, records: Records, name: str) -> np.ndarray:
    """Return a field [N], or what a prepared table has of a raw column [N]."""
    if name in records.fields:
        return records.batch(torch.arange(len(records)))[name].reshape(-1).numpy()
    prepared, table = party.preparation, records.fields["x"]
    if prepared is None or not isinstance(table, Tensor):
        raise StudyError(f"rows in {party.name!r} lack the column {name!r}", party=party.name)
    if name in prepared.numbers:
        return table[:, prepared.names.index(name)].numpy()
    own = [
        place for place, output in enumerate(prepared.names) if _made_of(output, prepared.categories) == name
    ]
    words = [prepared.names[place].removeprefix(f"{name}_") for place in own] + ["another"]
    chosen = table[:, own].numpy()
    which = np.where(chosen.any(axis=1), chosen.argmax(axis=1), len(own))
    return np.array(words, dtype=object)[which]


def _made_of(output: str, categories: Sequence[str]) -> str:
    """Return the column of words that an output of a preparation is made of; empty if it is of none."""
    return max((name for name in categories if output.startswith(f"{name}_")), key=len, default="")


def _classes(name: str, values: np.ndarray) -> tuple[np.ndarray, str]:
    """Return values [N] as classes from 0, and in words what they are.

    Raises:
        StudyError: All are one, or they are too many.
    """
    numbers = _as_numbers(values)
    if numbers is not None:
        given = numbers[~np.isnan(numbers)]
        if len(np.unique(given)) > _FEW:
            median = float(np.median(given))
            above = np.nan_to_num(numbers, nan=median) > median
            return above.astype(np.int64), f"whether {name} is above {median:.4g}, its median"
        values = np.array([_GAP if np.isnan(number) else f"{number:g}" for number in numbers], dtype=object)
    texts = np.array([_GAP if _is_gap(value) else str(value) for value in values])
    kinds, classes = np.unique(texts, return_inverse=True)
    if not 1 < len(kinds) <= _MOST:
        raise StudyError(
            f"{name!r} is no attribute to find out",
            got=f"{len(kinds)} different values",
            expected=f"numbers, or 2 to {_MOST} different words",
            todo="name another column",
        )
    return classes.reshape(-1).astype(np.int64), f"{name}: " + ", ".join(kinds.tolist())


def _as_numbers(values: np.ndarray) -> np.ndarray | None:
    """Return values [N] as float64 with NaN for gaps; None if one is a word or a truth."""
    if any(isinstance(value, str | bool | np.bool_) for value in values.tolist()):
        return None
    return np.array([np.nan if _is_gap(value) else float(value) for value in values])


def _is_gap(value: object) -> bool:
    return value is None or value != value or type(value).__name__ == "NAType"


def _take(places: Iterator[np.int64], count: int) -> Tensor:
    """Return the next classes [count], int64."""
    return torch.tensor([int(next(places)) for _ in range(count)], dtype=torch.int64)


def _with(party: PartyData, field: str, told: Mapping[str, Tensor]) -> PartyData:
    """Return a party's data with a further field."""
    splits = {
        split: Records(records.ids, {**records.fields, field: told[split]})
        for split, records in party.splits.items()
    }
    return dataclasses.replace(party, splits=splits)
