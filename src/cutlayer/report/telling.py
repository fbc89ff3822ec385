"""What a run's gradients told of labels, in words that need no statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..metering.events import Event, Placed
from ..metering.protection import by_epoch

__all__ = ["Told", "told_of_labels"]

LEAK = "leak AUC by "
_BY = {"norm": "size", "cosine": "direction"}
_GRADES = (
    (0.75, "nearly everything about"),
    (0.40, "much about"),
    (0.15, "something about"),
    (float("-inf"), "hardly anything about"),
)
"""From which share of the way between a guess and certainty on: the words of an audit."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """How much was told, at its worst.

    Attributes:
        title: In a few words.
        text: In a sentence or two.
        grave: Whether somebody should do something about it.
    """

    title: str
    text: str
    grave: bool


def told_of_labels(events: Sequence[Event]) -> Told | None:
    """Return what gradients told of labels in the worst epoch, by the best measure; None if nothing was measured."""
    leaks = [
        (max(values.values()), cut, name.removeprefix(LEAK))
        for (_, cut, _, name), values in by_epoch(events).items()
        if name.startswith(LEAK)
    ]
    if not leaks:
        return None
    auc, cut, by = max(leaks)
    share = 2 * auc - 1
    grade = next(words for least, words in _GRADES if share >= least)
    roles = {event.segment: event.role for event in events if isinstance(event, Placed)}
    segment = cut.partition("<-")[0]
    text = (
        f"The {_BY.get(by, by)} alone of a row's gradient, as {roles.get(segment, segment)} receives it over {cut}, "
        f"tells the row's label with an AUC of {auc:.2f} in the worst epoch: 0.5 is a guess, 1 is certainty."
    )
    if share >= _GRADES[2][0]:
        text += " What lowers it: defences (docs/defences.md). What an attacker makes of it: cutlayer audit."
    return Told(title=f"Gradients told {grade} labels", text=text, grave=share >= _GRADES[1][0])
