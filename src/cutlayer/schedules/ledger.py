"""What all parties have, use and owe while a program is performed with names alone."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from ..data.records import UNLABELLED
from ..errors import nearest
from ..graph.split_graph import SplitGraph
from .actions import Action, copy_of

__all__ = ["Ledger", "Made", "Refused", "at_home", "in_words"]


_REMEMBERED = 256
"""Steps of which it is known what a party made, the latest ones."""


class Refused(Exception):
    """An action that cannot be performed: why, and what to do about it."""

    def __init__(self, why: str, todo: str | None = None) -> None:
        super().__init__(why)
        self.todo = todo


class Made(NamedTuple):
    """A value at a party.

    Attributes:
        times: How often it was made there, this time included.
        step: The step it belongs to.
        training: Whether it was made in training mode; None where that makes no difference.
        batch: The batch it comes from.
    """

    times: int
    step: int
    training: bool | None
    batch: str


class Ledger:
    """The books of all parties: what each has made, used and owes, and who holds which state.

    Args:
        graph: The graph that the program is for.
    """

    def __init__(self, graph: SplitGraph) -> None:
        self.graph = graph
        self.roles = {party.name: party.role for party in graph.parties}
        self.owed: dict[str, dict[tuple[str, str, int], Action]] = defaultdict(dict)
        """By party: kind, name and step of what was begun; step 0 where there can be but one at a time."""
        self._made: dict[str, dict[str, dict[int, Made]]] = defaultdict(dict)
        """What was made, by party, thing and step."""
        self._times: dict[tuple[str, str], int] = {}
        self._unused: dict[tuple[str, str], dict[int, Made]] = defaultdict(dict)
        self._used: dict[tuple[str, str, str], int] = {}
        self._used_at_home: dict[tuple[str, str, str], int] = {}
        self._holder: dict[str, str] = {}
        self._owners: set[tuple[str, str]] = set()
        self._copies: set[tuple[str, str]] = set()
        self._merged: dict[str, set[str]] = defaultdict(set)
        self._stepped: dict[str, int] = {}
        self._advanced: dict[str, int] = {}

    # Making and using

    def _make(self, action: Action, thing: str, training: bool | None, batch: str) -> Made:
        key = action.party, thing
        known = self._made[action.party].setdefault(thing, {})
        known.pop(action.step, None)
        if at_home(batch):  # what is made of it need not go everywhere
            made = known[action.step] = Made(0, action.step, training, batch)
        else:
            times = self._times[key] = self._times.get(key, 0) + 1
            made = Made(times, action.step, training, batch)
            known[action.step] = self._unused[key][action.step] = made
        if len(known) > _REMEMBERED:
            del known[next(iter(known))]
        return made

    def _use(self, action: Action, thing: str, by: str) -> Made:
        """Return ``thing``, of this step and not used by ``by`` before."""
        made = self._made[action.party].get(thing, {}).get(action.step)
        if made is None:
            raise Refused(f"it needs {in_words(thing)}, which is neither made nor received here in this step")
        if at_home(made.batch):
            if self._used_at_home.get((action.party, by, thing)) == action.step:
                raise Refused(f"it used {in_words(thing)} of this step already")
            self._used_at_home[action.party, by, thing] = action.step
            return made
        used = self._used.get((action.party, by, thing), 0)
        if made.times <= used:
            raise Refused(f"it used {in_words(thing)} already, which was made only once since")
        if made.times > used + 1:
            raise Refused(f"{in_words(thing)} was made twice, and the first was left over")
        self._used[action.party, by, thing] = made.times
        self._unused.pop((action.party, thing), None)
        return made

    def _join(self, action: Action, thing: str, count: int) -> Made:
        """Make one of the ``count`` that the steps before made, none of them used yet."""
        key = action.party, thing
        parts = self._unused.pop(key, {})
        steps = range(action.step - count, action.step)
        if list(parts) != list(steps):
            raise Refused(
                f"it joins {in_words(thing)} of steps {steps[0]} to {steps[-1]}, "
                f"those there are of steps {', '.join(map(str, parts)) or 'none'}"
            )
        batch = "+".join(part.batch for part in parts.values())
        self._times[key] -= count - 1
        made = Made(self._times[key], action.step, parts[steps[-1]].training, batch)
        self._made[action.party][thing] = {action.step: made}
        return made

    def _use_all(self, action: Action, things: tuple[str, ...], by: str, training: bool | None) -> str:
        """Use ``things`` and return the batch that they all come from."""
        batch = ""
        for thing in things:
            made = self._use(action, thing, by)
            if training is not None and made.training is (not training):
                mode = "training" if made.training else "evaluation"
                raise Refused(f"{in_words(thing)} was made for {mode}")
            if batch and made.batch != batch:
                raise Refused(f"{in_words(thing)} comes from batch {made.batch}, the rest from {batch}")
            batch = made.batch
        return batch

    def _placed(self, action: Action) -> str:
        """Check that the segment is on this party's role, and its state here; return its name without the copy's."""
        name, _, copy = action.what.partition("#")
        segment = self.graph.segments.get(name)
        if segment is None:
            raise Refused(f"no segment is named {name!r}", nearest(name, self.graph.order))
        if segment.role != self.roles[action.party]:
            raise Refused(f"segment {name!r} is placed on role {segment.role!r}")
        self._hold(action, copy_of(segment.role, copy))
        return name

    def _hold(self, action: Action, role: str) -> None:
        """Check that the state, or the copy of it, is with the party; who first touches a state has it."""
        if (action.party, role) in self._owners or (action.party, role) in self._copies:
            return
        if "#" in role:
            raise Refused(
                f"there is no copy {role!r} here", "fork it, or copy it there and take it here first"
            )
        holder = self._holder.setdefault(role, action.party)
        if holder != action.party:
            where = f"is with {holder!r} and" if holder else "is on its way and"
            raise Refused(
                f"the state of role {role!r} {where} was not handed over to {action.party!r}",
                "give it there and take it here first",
            )

    def _at_rest(self, action: Action, role: str) -> None:
        """Check that no segment of the role's state, or of the copy of it, has work under way here."""
        name, _, copy = role.partition("#")
        segments = {copy_of(segment.name, copy) for segment in self.graph.segments_of(name)}
        for (kind, what, _), begun in self.owed[action.party].items():
            if what in segments and kind not in ("end", "average"):
                raise Refused(f"the {kind} of segment {what!r} in step {begun.step} is still to be done")


def at_home(batch: str) -> bool:
    """Return whether a batch is of rows without labels, which stay at home."""
    return batch.startswith(f"{UNLABELLED}.")


def in_words(thing: str) -> str:
    """Return what is meant by the name of a thing that a party makes."""
    if thing == "load":
        return "a loaded batch"
    kind, _, name = thing.partition(" ")
    if name:
        return f"the {kind} of {name!r}"
    return f"the gradient {thing}" if "<-" in thing else f"{thing!r}"
