"""Few labels: what a study with many labelled rows becomes when most of the labels are put away."""

from __future__ import annotations

import numpy as np

from cutlayer.data.records import UNLABELLED, Holdings, PartyData, Records
from cutlayer.errors import DataError
from cutlayer.seeds import generator

__all__ = ["hide_labels"]


def hide_labels(holdings: Holdings, keep: float, seed: int = 0, label: str = "y") -> Holdings:
    """Keep the labels of a share of each party's training rows; the rest become its split ``unlabelled``.

    These records have no field ``label`` any more. Validation and test rows stay as they are.

    Args:
        holdings: Parties that hold records and labels both.
        keep: The share of the training rows that stays labelled, above 0 and below 1; at least one row of each party.
        seed: Same seed, same rows.
        label: The field that holds the labels.

    Raises:
        DataError: ``keep`` is no such share, or a party has no labels, or nothing but labels.
    """
    if not 0 < keep < 1:
        raise DataError("the share of rows that keep their labels is above 0 and below 1", got=f"keep={keep}")
    return Holdings(tuple(_hide(party, keep, seed, label) for party in holdings.parties))


def _hide(party: PartyData, keep: float, seed: int, label: str) -> PartyData:
    train = party.splits.get("train")
    if train is None or UNLABELLED in party.splits:
        return party
    if label not in train.fields or len(train.fields) < 2:
        raise DataError(
            f"the party does not hold both records and the label {label!r}",
            party=party.name,
            got=", ".join(train.fields),
            todo="build the records of the split 'unlabelled' yourself, with Holdings.of",
        )
    order = generator(seed, "labels", party.name).permutation(len(train))
    count = max(1, round(keep * len(train)))
    labelled, rest = np.sort(order[:count]), train.select(np.sort(order[count:]))
    splits = {**party.splits, "train": train.select(labelled)}
    if len(rest):
        inputs = {name: field for name, field in rest.fields.items() if name != label}
        splits[UNLABELLED] = Records(rest.ids, inputs)
    return PartyData(party.name, party.role, splits, party.group, party.preparation)
