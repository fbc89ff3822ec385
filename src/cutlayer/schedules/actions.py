"""The order of work as data: actions that print, parse and compare, and programs made of them.

An action prints as one line, ``@step party op what`` and, where another party is involved, who:

.. code-block:: text

    @0 client-0 load train.0/0/0
    @0 client-0 forward head
    @0 client-0 send head->server to server
    @0 server receive head->server from client-0
    @0 server loss loss
    @0 server backward top
    @0 server send head<-server to client-0
    @0 server step top
    …
    @79 client-0 give client to client-1 via server

``head->server`` are activations of segment ``head`` on their way to role ``server``; ``head<-server``
are their gradients on the way back.

Where several parties, or one for several, train at once, a role's state has *copies*: ``client#3`` is the one
of turn 3, ``head#3`` the segment in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from ..errors import ProgramError, nearest

__all__ = ["Action", "Op", "Program", "copy_of"]


class Op(StrEnum):
    """What an action does. ``what`` names a segment unless something else is said."""

    LOAD = "load"  # what = split.turn/epoch/batch: take these rows of one's own data
    FORWARD = "forward"  # run a segment in training mode
    INFER = "infer"  # run a segment in evaluation mode, no gradient
    LOSS = "loss"  # what = loss: compare prediction and label
    SEND = "send"  # what = cut and direction
    RECEIVE = "receive"  # what = cut and direction
    JOIN = "join"  # what = cut*n or load*n: make one batch of what the n steps before have
    SPLIT = "split"  # what = cut*n: deal one batch's tensors out to the n steps before
    DETACH = "detach"  # what = cut's gradient: do without it, a loss of one's own teaches the segment
    BACKWARD = "backward"  # back-propagate through a segment
    STEP = "step"  # the segment's optimizer step
    REPORT = "report"  # what = squares or norm: a number about gradients, for another party
    NOTE = "note"  # what = squares or norm: receive it
    CLIP = "clip"  # what = bound: scale one's gradients so that the norm of all parties' is at most that
    ACCUMULATE = "accumulate"  # keep the segment's gradients, to be added to those of the next batch
    ADVANCE = "advance"  # the segment's learning-rate schedule moves on one epoch
    GIVE = "give"  # what = role, or role:update: hand the role's segment state over, or what changed in it
    TAKE = "take"  # what = role, or role:update: take it over
    RELAY = "relay"  # what = role, or role:update: pass a sealed hand-over on, unopened
    OWN = "own"  # what = role: have a state of the role of one's own from now on, never handed over
    FORK = "fork"  # what = role#copy: make a working copy of the state that one has
    COPY = "copy"  # what = role#copy: hand a copy of the role's state over and keep the state
    MERGE = "merge"  # what = role#copy*weight: add a copy to the average that is under way; it is gone then
    AVERAGE = "average"  # what = role: the average that is under way becomes the role's state
    KEEP = "keep"  # what = role#copy: let the copy be one's own state of the role from now on
    DROP = "drop"  # what = role#copy: forget a copy that was not trained
    SCORE = "score"  # what = loss: note prediction and label of this batch for the metrics
    EVALUATE = "evaluate"  # what = split/epoch: work out the metrics of all batches scored
    TELL = "tell"  # what = metrics/epoch or verdict/epoch: numbers for another party
    HEAR = "hear"  # what = metrics/epoch or verdict/epoch: receive them
    SNAPSHOT = "snapshot"  # what = epoch: keep one's own state if the verdict says it is the best so far


_PREPOSITION = {
    Op.SEND: "to", Op.RECEIVE: "from", Op.GIVE: "to", Op.TAKE: "from", Op.RELAY: "from",
    Op.COPY: "to", Op.TELL: "to", Op.HEAR: "from", Op.REPORT: "to", Op.NOTE: "from",
}  # fmt: skip
_LINE = re.compile(r"@(\d+) (\S+) ([a-z]+) (\S+)(?: (to|from) (\S+))?(?: (via|on-to) (\S+))?")


def copy_of(what: str, copy: str) -> str:
    """Return the name of a copy of a role or segment: ``head#3`` of ``head`` and ``3``; without a number, itself."""
    return f"{what}#{copy}" if copy else what


class Action(NamedTuple):
    """One thing that one party does.

    Attributes:
        step: The step it belongs to, counted over the whole training.
        party: Who does it.
        op: What kind of thing.
        what: The segment, cut, loss, role or batch it is about.
        peer: The other party, for what is sent or received.
        via: A party in between: who relays a hand-over, or for a relay whom it goes on to.
    """

    step: int
    party: str
    op: Op
    what: str
    peer: str = ""
    via: str = ""

    def __str__(self) -> str:
        text = f"@{self.step} {self.party} {self.op.value} {self.what}"
        if self.peer:
            text += f" {_PREPOSITION.get(self.op, 'with')} {self.peer}"
        if self.via:
            text += f" {'on-to' if self.op is Op.RELAY else 'via'} {self.via}"
        return text

    @staticmethod
    def parse(line: str) -> Action:
        """Return the action that ``line`` prints; the inverse of ``str``.

        Raises:
            ProgramError: The line is not an action.
        """
        line = line.strip()
        match = _LINE.fullmatch(line)
        if match is None:
            raise ProgramError(f"not an action: {line!r}", expected="'@step party op what [to|from party]'")
        step, party, word, what, _, peer, _, via = match.groups()
        if word not in Op._value2member_map_:
            raise ProgramError(f"not an action: {line!r}", todo=nearest(word, [op.value for op in Op]))
        op = Op(word)
        action = Action(int(step), party, op, what, peer or "", via or "")
        between = op in (Op.GIVE, Op.TAKE) or (op is Op.RELAY) == (via is not None)
        if str(action) != line or (op in _PREPOSITION) != (peer is not None) or not between:
            raise ProgramError(f"not an action: {line!r}", expected=f"'{_form(op)}'")
        return action


def _form(op: Op) -> str:
    """Return how an action of this kind is written."""
    form = f"@step party {op.value} what"
    if op in _PREPOSITION:
        form += f" {_PREPOSITION[op]} party"
    if op is Op.RELAY:
        form += " on-to party"
    return form + " [via party]" if op in (Op.GIVE, Op.TAKE) else form


class Program(tuple[Action, ...]):
    """Actions in order: one party's, or all parties' merged into an order in which they can be performed."""

    def __new__(cls, actions: Iterable[Action] = ()) -> Program:
        """Return the program of ``actions``."""
        return super().__new__(cls, actions)

    @property
    def parties(self) -> tuple[str, ...]:
        """The parties that act, in the order of their first action."""
        return tuple(dict.fromkeys(action.party for action in self))

    def of(self, party: str) -> Program:
        """Return what ``party`` does, in order."""
        return Program(action for action in self if action.party == party)

    def __str__(self) -> str:
        return "".join(f"{action}\n" for action in self)

    @staticmethod
    def parse(text: str) -> Program:
        """Return the program that ``text`` prints, one action a line; skip blank lines and ``#`` lines."""
        return Program(
            Action.parse(line) for line in text.splitlines() if line.strip() and not line.startswith("#")
        )
