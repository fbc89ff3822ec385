"""WHEN: the order of work as data, a checker that proves it, and the schedules that write it."""

from .actions import Action, Op, Program
from .asynchronous import Asynchronous
from .base import Schedule, program_of
from .calendar import Calendar, Leave
from .check import check
from .parallel import Parallel
from .round_robin import RoundRobin
from .splitfed import SplitFed

__all__ = [
    "Action",
    "Asynchronous",
    "Calendar",
    "Leave",
    "Op",
    "Parallel",
    "Program",
    "RoundRobin",
    "Schedule",
    "SplitFed",
    "check",
    "program_of",
]
