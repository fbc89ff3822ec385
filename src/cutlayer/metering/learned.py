"""How well a run learned: losses and metrics by epoch, from its events alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .events import Ended, Event, Measured
from .merging import merged, only_averaged
from .reading import all_of, ended_epochs, finished, last, viewer
from .table import Cell, Table

__all__ = ["averaged_metrics", "losses", "measured", "merged_metrics", "metrics"]

Row = tuple[Cell, ...]


def losses(events: Sequence[Event]) -> Table:
    """Return the training loss by epoch: the mean over its rows, as they were when their batch came.

    A party's own log tells of the losses that are computed there.
    """
    epochs, party = list(ended_epochs(events).values()), viewer(events)
    names = list(dict.fromkeys(name for e in epochs for name in e.losses))
    if party and not names:
        return Table(
            title="Training by epoch",
            columns=("epoch", "steps", "time (s)"),
            rows=tuple((e.epoch + 1, e.steps, e.seconds) for e in epochs),
            note=f"No loss is computed at {party}. Steps are those of all parties; epochs count from 1.",
        )
    whose = f" at {party}" if party else ""
    return Table(
        title="Training by epoch",
        columns=("epoch", "steps", "rows", *names, "time (s)"),
        rows=tuple(
            (e.epoch + 1, e.steps, e.rows, *(e.losses.get(n) for n in names), e.seconds) for e in epochs
        ),
        note=f"Losses are means over the epoch's rows{whose}, each at the weights of its step. Epochs count from 1.",
    )


def metrics(events: Sequence[Event]) -> Table:
    """Return metrics by epoch, split and loss, over the rows of all label holders together."""
    groups = measured(events)
    figures = {key: merged(group) for key, group in groups.items()}
    names = list(dict.fromkeys(name for found in figures.values() for name in found))
    several = len({loss for _, _, loss in groups}) > 1
    rows: list[Row] = []
    for (epoch, split, loss), found in figures.items():
        head: Row = (epoch + 1, split, loss) if several else (epoch + 1, split)
        count = sum(e.rows for e in groups[epoch, split, loss])
        rows.append((*head, count, *(found.get(name) for name in names)))
    columns = ("epoch", "split", *(("loss of",) if several else ()), "rows", *names)
    note = _holders(list(groups.values()), viewer(events))
    return Table(title="Metrics by epoch", columns=columns, rows=tuple(rows), note=note)


def _holders(groups: Sequence[Sequence[Measured]], viewer: str) -> str:
    """Return what a reader must know of how the label holders' metrics came together."""
    holders = max((len(group) for group in groups), default=0)
    if holders < 2:
        if viewer and groups:
            return f"Over all rows that are measured at {viewer}; what others measure is not in its log."
        return "Over all rows of the label holder's split." if groups else ""
    means = {name: None for group in groups for name in only_averaged(group)}
    told = []
    if any(name not in means for group in groups for e in group for name in e.metrics):
        told.append(
            f"Over all rows of {holders} label holders together, from sums that each works out over its own."
        )
    if means:
        told.append(
            f"{', '.join(map(_written, means))}: means over {holders} label holders, weighted by their rows, which "
            "differ from the values over all rows; a holder whose labels cannot define a metric is left out of it."
        )
    return " ".join(told)


def _written(metric: str) -> str:
    return metric.upper() if metric in ("auc", "f1", "mae", "rmse", "r2") else metric


def merged_metrics(events: Sequence[Event], split: str, loss: str) -> dict[str, float]:
    """Return the metrics of ``split`` that belong to the run's final weights, over all label holders.

    That is the epoch that was kept, if training went back to its best, else the last one measured.
    """
    return merged(group) if (group := _final(events, split, loss)) else {}


def averaged_metrics(events: Sequence[Event], split: str, loss: str) -> list[str]:
    """Return which of :func:`merged_metrics` are only means over label holders, weighted by their rows."""
    return only_averaged(_final(events, split, loss))


def _final(events: Sequence[Event], split: str, loss: str) -> list[Measured]:
    """Return what each label holder measured at the run's final weights."""
    found = {
        epoch: group for (epoch, s, name), group in measured(events).items() if (s, name) == (split, loss)
    }
    if not found:
        return []
    ended = last(events, Ended)
    kept = ended.best_epoch if ended is not None and finished(events) else max(found)
    return found.get(kept, found[max(found)])


def measured(events: Iterable[Event]) -> dict[tuple[int, str, str], list[Measured]]:
    """Return what was measured by epoch, split and loss, each party's last word."""
    final = {(e.epoch, e.split, e.loss, e.party): e for e in all_of(events, Measured)}
    groups: dict[tuple[int, str, str], list[Measured]] = {}
    for e in sorted(final.values(), key=lambda e: e.epoch):
        groups.setdefault((e.epoch, e.split, e.loss), []).append(e)
    return groups
