"""From a run's events to what its defences did and what was measured of leaks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from .events import Began, Defended, Event
from .reading import all_of, last
from .table import Cell, Table

__all__ = ["by_epoch", "protection"]

_NOTES = {
    "": "Means over the epoch.",
    "leak AUC": "Leak AUC: how well the size or direction of a row's gradient tells its label to the party that "
    "receives it; 0.5 is a guess, 1 tells all.",
    "distance correlation": "Distance correlation: 0 is independent; within a small batch even independent data shows "
    "a high one, which the baseline (pairs permuted) tells and the corrected one leaves out.",
}
"""What measures mean, by a word in their names."""


def protection(events: Sequence[Event]) -> Table:
    """Return what was measured at each cut by each defence, in the first and in the last epoch.

    Parties of one role are told as one row, the mean over them.
    """
    rows: list[tuple[Cell, ...]] = []
    for (who, cut, defence, name), values in by_epoch(events).items():
        if name == "batches":
            continue  # how many were looked at, not what was found
        epochs = sorted(values)
        rows.append((who, cut, defence, name, values[epochs[0]], values[epochs[-1]], len(epochs)))
    columns = ("at", "cut", "what", "measure", "first epoch", "last epoch", "epochs")
    names = {str(row[3]) for row in rows}
    note = " ".join(text for word, text in _NOTES.items() if any(word in name for name in names))
    return Table(title="Defences and leaks", columns=columns, rows=tuple(rows), note=note)


def by_epoch(events: Sequence[Event]) -> dict[tuple[str, str, str, str], dict[int, float]]:
    """Return each measure by role or party, cut, defence and name, by epoch."""
    began = last(events, Began)
    roles = dict(began.parties) if began is not None else {}
    found: dict[tuple[str, str, str, str], dict[int, list[float]]] = {}
    for event in all_of(events, Defended):
        for name, value in event.facts.items():
            key = (roles.get(event.party, event.party), event.cut, event.defence, name)
            found.setdefault(key, defaultdict(list))[event.epoch].append(value)
    return {
        key: {epoch: sum(values) / len(values) for epoch, values in epochs.items()}
        for key, epochs in found.items()
    }
