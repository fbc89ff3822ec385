"""The rules of states and their copies: who has one, who may touch it, and what becomes of copies."""

from __future__ import annotations

import re

from ..errors import nearest
from .actions import Action, copy_of
from .ledger import Ledger, Made, Refused

__all__ = ["StateRules"]

_MERGED = re.compile(r"([^*]+)\*([1-9]\d*)")


class StateRules(Ledger):
    """Hand-over, copies and averages.

    A role has one state, which is with the party that first touches it, until it is handed over. Its copies
    have names of their own, ``client#3``, and are made from it: a fork stays, a copy goes to another party. A copy
    comes back by being given, and ends as part of an average or is dropped untrained.
    """

    def _party_of(self, action: Action, role: str) -> None:
        if role not in self.graph.roles:
            raise Refused(f"no role is named {role!r}", nearest(role, list(self.graph.roles)))
        for party in (action.party, action.peer):
            if self.roles.get(party) != role:
                raise Refused(f"{party!r} is not of role {role!r}")

    def _copy_of_role(self, action: Action) -> str:
        """Return the role that ``action`` names a copy of."""
        role, mark, copy = action.what.partition("#")
        if role not in self.graph.roles:
            raise Refused(f"no role is named {role!r}", nearest(role, list(self.graph.roles)))
        if not mark or not copy.isdecimal():
            raise Refused(f"{action.what!r} names no copy", f"write {role}#0 for the copy of turn 0")
        return role

    # Hand-over

    def _give(self, action: Action, frame: Made | None) -> None:
        if "#" in action.what:
            role = self._copy_of_role(action)
            if role not in (self.roles[action.party], self.roles.get(action.peer)):
                raise Refused(f"neither {action.party!r} nor {action.peer!r} is of role {role!r}")
            what = action.what
        else:
            what = self._state_handed(action)
            self._party_of(action, what)
            if (action.party, what) in self._owners:
                raise Refused(f"{action.party!r} has a state of its own, which is never handed over")
        self._hold(action, what)
        self._at_rest(action, what)
        self._made[action.party].clear()  # whoever gives its state away keeps nothing of its batches
        if "#" in action.what:
            self._end_copy(action, action.what)
        else:
            self._holder[what] = ""

    def _take(self, action: Action, frame: Made | None) -> None:
        if "#" in action.what:
            self._begin_copy(action)
        else:
            what = self._state_handed(action)
            self._party_of(action, what)
            self._holder[what] = action.party

    def _state_handed(self, action: Action) -> str:
        """Return the role whose state is handed over, whole or as an update."""
        role, mark, form = action.what.partition(":")
        if mark and form != "update":
            raise Refused(f"a state is not handed over as {form!r}", f"write {role}, or {role}:update")
        return role

    # Copies

    def _keep_own(self, action: Action, frame: Made | None) -> None:
        role = action.what
        if self.roles[action.party] != role:
            raise Refused(f"{action.party!r} is not of role {role!r}")
        if (action.party, role) in self._owners:
            raise Refused(f"{action.party!r} has a state of its own already")
        if role in self._holder:
            raise Refused(f"the state of role {role!r} is with {self._holder[role]!r} already")
        self._owners.add((action.party, role))

    def _begin_copy(self, action: Action) -> None:
        role = self._copy_of_role(action)
        if (action.party, action.what) in self._copies:
            raise Refused(
                f"there is a copy {action.what!r} here already", "give, merge or drop that one first"
            )
        self._copies.add((action.party, action.what))
        self.owed[action.party]["end", action.what, 0] = action
        for segment in self.graph.segments_of(role):
            for noted in (self._stepped, self._advanced):
                noted.pop(copy_of(segment.name, action.what.partition("#")[2]), None)

    def _end_copy(self, action: Action, what: str) -> None:
        self._copies.remove((action.party, what))
        del self.owed[action.party]["end", what, 0]

    def _fork(self, action: Action, frame: Made | None) -> None:
        role = self._copy_of_role(action)
        self._hold(action, role)
        self._at_rest(action, role)
        self._begin_copy(action)

    def _copy(self, action: Action, frame: Made | None) -> None:
        role = self._copy_of_role(action)
        self._hold(action, role)
        self._at_rest(action, role)
        if self.roles.get(action.peer) != role:
            raise Refused(f"{action.peer!r} is not of role {role!r}")

    def _drop(self, action: Action, frame: Made | None) -> None:
        role = self._copy_of_role(action)
        self._hold(action, action.what)
        self._at_rest(action, action.what)
        copy = action.what.partition("#")[2]
        for segment in self.graph.segments_of(role):
            last = self._stepped.get(copy_of(segment.name, copy))
            if last is not None:
                raise Refused(f"it was trained in step {last}, which would be lost", "merge it")
        self._made[action.party].clear()
        self._end_copy(action, action.what)

    def _keep(self, action: Action, frame: Made | None) -> None:
        role = self._copy_of_role(action)
        if self.roles[action.party] != role:
            raise Refused(f"{action.party!r} is not of role {role!r}")
        self._hold(action, action.what)
        self._at_rest(action, action.what)
        self._end_copy(action, action.what)
        self._owners.add((action.party, role))

    # Averages

    def _merge(self, action: Action, frame: Made | None) -> None:
        match = _MERGED.fullmatch(action.what)
        if match is None:
            raise Refused(f"{action.what!r} is no copy with a weight", "write client#3*120 for 120 rows")
        role = match[1].partition("#")[0]
        self._hold(action, role)  # whoever averages has the state that it becomes
        self._hold(action, match[1])
        self._at_rest(action, match[1])
        if match[1] in self._merged[role]:
            raise Refused(f"{match[1]!r} is part of this average already", "average first")
        self._merged[role].add(match[1])
        if "#" in match[1]:
            self._end_copy(action, match[1])
        self.owed[action.party].setdefault(("average", role, 0), action)

    def _average(self, action: Action, frame: Made | None) -> None:
        if self.owed[action.party].pop(("average", action.what, 0), None) is None:
            raise Refused("no copy was merged before")
        self._merged[action.what].clear()
        self._hold(action, action.what)
        self._at_rest(action, action.what)
