"""``[schedule]``: which schedule, by name, and its settings; ``schedule = "splitfed"`` for one without any."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from .words import Positive, Table

__all__ = ["AnySchedule", "RoundRobinTable"]

NotNegative = Annotated[int, Field(ge=0)]


class StepsTable(Table):
    """What schedules have in common about a step; which of them one does not have, it says itself."""

    accumulate: Positive = 1
    in_flight: Positive = 1
    clip: float | None = None
    local: bool = False
    unlabelled: bool = False


class RoundRobinTable(StepsTable):
    """``name = "round_robin"``: see :class:`cutlayer.RoundRobin`."""

    name: Literal["round_robin"] = "round_robin"
    handover: Literal["peer", "server"] = "peer"
    turn: NotNegative = 0
    updates: bool = False


class RoundsTable(StepsTable):
    """What schedules have in common in which clients work at the same time."""

    round: NotNegative = 0
    sample: int | float = 1.0
    speeds: dict[str, float] = Field(default_factory=dict)
    deadline: float | None = None
    late: Literal["drop", "wait", "partial"] = "wait"
    averager: str = ""


class SplitFedTable(RoundsTable):
    """``name = "splitfed"``: see :class:`cutlayer.SplitFed`."""

    name: Literal["splitfed"]
    version: Literal[1, 2, 3] = 1
    weights: Literal["rows", "equal"] = "rows"
    personal: bool = False
    at_once: Positive = 16


class ParallelTable(RoundsTable):
    """``name = "parallel"``: see :class:`cutlayer.Parallel`."""

    name: Literal["parallel"]
    heads: Literal["own", "averaged"] = "own"
    batches: Literal["fixed", "global"] = "fixed"


class AsynchronousTable(RoundsTable):
    """``name = "asynchronous"``: see :class:`cutlayer.Asynchronous`."""

    name: Literal["asynchronous"]
    staleness: NotNegative = 4
    rate: float = 0.5
    jitter: float = 0.1


def _named(value: Any) -> Any:
    """Return the table that a word stands for; a table without a name is of round robin."""
    if isinstance(value, str):
        return {"name": value}
    return {"name": "round_robin"} | value if isinstance(value, dict) else value


AnySchedule = Annotated[
    Annotated[
        RoundRobinTable | SplitFedTable | ParallelTable | AsynchronousTable, Field(discriminator="name")
    ],
    BeforeValidator(_named),
]
