"""What a split of a network costs, before anything is trained: FLOPs, bytes, memory, time, by cut and by party."""

from __future__ import annotations

from .choosing import Limits
from .events import Line
from .forecast import Forecast
from .offers import Offer
from .pace import World
from .planning import Plan, plan
from .rehearsal import Rehearsed, rehearse
from .setting import SCHEDULES

__all__ = [
    "SCHEDULES", "Forecast", "Limits", "Line", "Offer", "Plan", "Rehearsed", "World", "plan", "rehearse",
]  # fmt: skip
