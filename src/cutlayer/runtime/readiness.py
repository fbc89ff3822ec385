"""What can be known before training about data that would fail in the middle of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from ..data import Holdings
from ..errors import DataError, StudyError, nearest
from ..graph.joined import Joined
from ..graph.parts import Ref
from ..graph.split_graph import SplitGraph
from ..metering.metrics import METRICS, task_of
from ..schedules.calendar import TRAINED
from .cohorts import Cohorts
from .stopping import EarlyStopping

__all__ = ["check_data"]


def check_data(
    graph: SplitGraph,
    holdings: Holdings,
    cohorts: Cohorts,
    *,
    batch_size: int,
    drop_last: bool,
    pooled: bool = False,
    unlabelled: bool = False,
    metrics: Sequence[str],
    stopping: EarlyStopping | None,
) -> None:
    """Find out before training what would fail in the middle of it.

    Args:
        graph: What is trained.
        holdings: Who holds what.
        cohorts: The turns' common rows.
        batch_size: Rows in a training batch.
        drop_last: Whether an epoch's last batch is left out where it is not full.
        pooled: Whether a batch is drawn over all turns' rows, so that a turn's part may be one row.
        unlabelled: Whether rows without labels are trained on.
        metrics: Names of metrics, or none for all that fit.
        stopping: What early stopping goes by, if there is any.

    Raises:
        DataError: Roles or fields are not what the graph says, or there is nothing to train on.
        StudyError: A metric does not fit, or a batch of one row cannot be trained on.
    """
    places = {party.name: party.role for party in graph.parties}
    for party in holdings.parties:
        place = places.get(party.name, party.role)
        if place != party.role:
            raise DataError(
                f"{party.name!r} fills the role {party.role!r} in the data and {place!r} in the graph",
                todo="name roles alike in graph and data",
            )
    for role in graph.roles.values():
        known = holdings.fields(role.name) if role.name in holdings.roles else {}
        for name, spec in role.fields.items():
            if role.name in holdings.roles and name not in known:
                raise DataError(
                    f"role {role.name!r} does not hold the field {name!r}",
                    todo=nearest(name, list(known)),
                )
            if (
                spec is not None
                and known
                and (tuple(known[name].shape), known[name].dtype) != (spec.shape, spec.dtype)
            ):
                raise DataError(
                    f"field {name!r} of role {role.name!r} has another shape or type than the graph",
                    got=f"{known[name].dtype} {tuple(known[name].shape)}",
                    expected=str(spec),
                    todo="build the graph from these holdings",
                )
    if not any(rows.get("train") for rows in cohorts.rows):
        raise DataError("nobody has rows to train on", todo="give the split 'train' to the parties")
    train = [rows.get("train", 0) for rows in cohorts.rows]
    if drop_last and all(rows < batch_size for rows in ([sum(train)] if pooled else train)):
        raise StudyError(
            "with drop_last there is nothing to train on: nobody has a full batch",
            got=f"batch_size={batch_size}, at most {max(train)} rows",
            todo="choose smaller batches, or drop_last=False",
        )
    _check_metrics(graph, holdings, metrics, stopping)
    trained = TRAINED if unlabelled else ("train",)
    left = {rows[split] % batch_size for rows in cohorts.rows for split in trained if rows.get(split)}
    if batch_size == 1 or pooled or (1 in left and not drop_last):
        _try_one_row(graph, holdings, batch_size)


def _check_metrics(
    graph: SplitGraph, holdings: Holdings, metrics: Sequence[str], stopping: EarlyStopping | None
) -> None:
    """Find metrics that do not fit their loss's task, where prediction and label are known before training."""
    shares = graph.shares
    for number, loss in enumerate(graph.losses.values()):
        segment, _, output = loss.prediction.partition(":")
        made = graph.specs.get(Ref(segment, output or graph.segments[segment].outputs[0]))
        sources = [s.source for s in shares if (s.field, s.target) == (loss.target, loss.role)]
        holders = [role for role in (loss.role, *sources) if role in holdings.roles]
        labels = [known[loss.target] for r in holders if loss.target in (known := holdings.fields(r))]
        if made is None or not labels:
            continue
        pair = [torch.empty((2, *spec.shape), dtype=spec.dtype, device="meta") for spec in (made, labels[0])]
        task = task_of(loss, *pair)
        judged = stopping is not None and (stopping.loss == loss.name or (not stopping.loss and not number))
        asked = () if loss.reconstructs else tuple(metrics)
        for name in (*asked, *([stopping.metric] if stopping is not None and judged else [])):
            if name not in METRICS[task]:
                raise StudyError(
                    f"metric {name!r} does not fit a {task} task, that of loss {loss.name!r}",
                    todo=nearest(name, METRICS[task]),
                )


def _try_one_row(graph: SplitGraph, holdings: Holdings, batch_size: int) -> None:
    """There will be a batch of one row: see whether the network can train on it."""
    network = copy.deepcopy(Joined(graph)).train()
    try:
        with torch.random.fork_rng(devices=[]):
            network({role: holdings.example(role, 1) for role in holdings.roles})
    except ValueError as error:
        raise StudyError(
            f"there are batches of one row, on which the network cannot train: {error}",
            todo=f"choose another batch_size than {batch_size}, or drop_last=True",
        ) from error
