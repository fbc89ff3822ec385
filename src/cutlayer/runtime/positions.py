"""Positions in the program: where snapshots are due, and where a party acts next."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..errors import ProgramError, StudyError
from ..schedules.actions import Action, Op
from ..schedules.steps import Step

__all__ = ["START", "Position", "next_own", "points"]

_HAND_OVER = frozenset({Op.GIVE, Op.RELAY, Op.TAKE})
_NUMBER = "(0|[1-9][0-9]{0,14})"
_TEXT = re.compile(f"{_NUMBER}/{_NUMBER}")


class Position(NamedTuple):
    """Before item number ``item`` of the program of ``epoch``; positions are ordered as the program is.

    ``0/0`` is the start, ``3/120`` is before the item number 120 of epoch 3, and after epoch 3 comes ``4/0``.

    Attributes:
        epoch: The epoch, counted from 0.
        item: The item of the epoch's training program, counted from 0.
    """

    epoch: int
    item: int

    def __str__(self) -> str:
        return f"{self.epoch}/{self.item}"

    @staticmethod
    def parse(text: str) -> Position:
        """Return the position that ``text`` prints; the inverse of ``str``.

        Raises:
            ProgramError: The text is not a position.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ProgramError(f"not a position: {text[:80]!r}", expected="'epoch/item', such as '3/120'")
        return Position(int(match[1]), int(match[2]))


START = Position(0, 0)
"""Before anything is done."""


def points(items: Iterable[Action | Step], every: int) -> Iterator[tuple[Action | Step, bool]]:
    """Yield each item of an epoch's training program, and whether a snapshot is due after it.

    One is due after every ``every``-th step of the epoch, and after each run of actions that hand a role's state
    over (not its copies, which go and come all the time); never between giving and taking, when nobody has it.
    One item is looked at ahead.

    Args:
        items: The program of one epoch.
        every: Steps from one snapshot to the next.

    Raises:
        StudyError: ``every`` is less than 1.
    """
    if every < 1:
        raise StudyError("snapshots are at least 1 step apart", got=str(every), expected="1 or more")
    return _points(iter(items), every)


def _points(items: Iterator[Action | Step], every: int) -> Iterator[tuple[Action | Step, bool]]:
    item = next(items, None)
    steps = 0
    while item is not None:
        following = next(items, None)
        if isinstance(item, Step):
            steps += 1
            due = steps % every == 0
        else:
            due = _hands_over(item) and not _hands_over(following)
        yield item, due
        item = following


def _hands_over(item: Action | Step | None) -> bool:
    return isinstance(item, Action) and item.op in _HAND_OVER and "#" not in item.what


def next_own(items: Iterable[Action | Step], party: str, start: int = 0) -> int | None:
    """Return the index of the first item from ``start`` on in which ``party`` acts; None if there is none."""
    acts: dict[int, bool] = {}  # by the identity of templates, of which a program has few for its many steps
    templates = []
    for index, item in enumerate(items):
        if index < start:
            continue
        if isinstance(item, Action):
            if item.party == party:
                return index
            continue
        known = acts.get(id(item.template))
        if known is None:
            known = acts[id(item.template)] = any(action.party == party for action in item.template)
            templates.append(item.template)  # kept while its identity stands for it
        if known:
            return index
    return None
