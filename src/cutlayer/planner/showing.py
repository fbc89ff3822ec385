"""A plan as tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..metering.table import UNKNOWN, Cell, Table, human_bytes, human_flops, human_seconds
from .choosing import promising
from .offers import Offer

if TYPE_CHECKING:
    from .planning import Plan

__all__ = ["cuts_table", "ways_table"]

_COLUMNS = (
    "client FLOP forward", "client FLOP", "other FLOP", "client weights", "client memory", "up a row", "down a row",
    "client traffic", "all traffic", "time", "leakage",
)  # fmt: skip
_NOTE = (
    "FLOP: by PyTorch's counter, a multiply-add is two; of the whole training, of the client with the most. "
    "Traffic: whole frames, sent and received, with evaluations and hand-overs. Memory is estimated, and Python, "
    "PyTorch and the data come on top. Leakage: bias-corrected distance correlation of raw rows and "
    "what crosses first, before training."
)


def cuts_table(plan: Plan) -> Table:
    """Return every cut, by the schedule that is advised; by the first one if none is."""
    shown = (plan.best or plan.offers[0]).schedule
    rows = [_cells(plan, one, one.cut) for one in plan.offers if one.schedule == shown]
    setting = plan.setting
    title = (
        f"Every cut: {setting.clients:,} clients, {setting.rows:,} rows, batches of {setting.batch_size}, "
        f"{setting.epochs} epoch{'s' * (setting.epochs > 1)}, {shown.replace('_', ' ')}"
    )
    return Table(title=title, columns=("", "method", "cut after", *_COLUMNS), rows=tuple(rows), note=_NOTE)


def ways_table(plan: Plan) -> Table:
    """Return all ways of training at the best cut, and those without a cut."""
    cut = promising(plan.offers, plan.limits, plan.goal).first_cut
    ways = [one for one in plan.offers if one.first_cut == cut]
    rows = [_cells(plan, one, one.schedule.replace("_", " ")) for one in (*ways, *plan.rivals)]
    title = f"Ways of training, cut after {cut}, beside those without a cut"
    return Table(title=title, columns=("", "method", "schedule", *_COLUMNS), rows=tuple(rows))


def _cells(plan: Plan, one: Offer, what: str) -> tuple[Cell, ...]:
    mark = "*" if one is plan.best else ("x" if plan.limits.broken(one) else "")
    return (
        mark,
        one.method.replace("_", "-"),
        what,
        human_flops(one.client_forward_flops),
        human_flops(one.client_flops),
        human_flops(one.server_flops),
        one.client_parameters,
        human_bytes(one.client_memory_bytes),
        human_bytes(one.sample_up_bytes),
        human_bytes(one.sample_down_bytes),
        human_bytes(one.client_bytes),
        human_bytes(one.total_bytes),
        human_seconds(one.seconds),
        UNKNOWN if math.isnan(one.leakage) else f"{one.leakage:.2f}",
    )
