"""A proof that a program can be performed, found without any model: by performing it with names alone.

Each party works through its own list; a send never blocks, a receive waits for its frame. The program is
right if every party gets to its end, every frame that was sent was received, in order, and every action
found what it needs (see :mod:`cutlayer.schedules.rules`). All parties' programs merged into one must be in
an order in which one thread can perform them.

Only batches of the split ``train`` are trained on; any split may be evaluated. With a calendar, no batch is
loaded that its turn does not have.

What a right program does not promise: that every row is trained on, that metrics are measured, that a
learning-rate schedule moves on or a snapshot is kept, when averages are taken, what copies weigh in them, or to
which norm gradients are clipped. Leaving these out, or doing them otherwise, gives another right program.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple, NoReturn

from ..errors import ProgramError, nearest
from ..graph.split_graph import SplitGraph
from .actions import Action, Op, Program
from .calendar import Calendar
from .rules import Made, Refused, Rules

__all__ = ["check"]

ROWS_SHOWN = 12
_RECEIVING = frozenset({Op.RECEIVE, Op.TAKE, Op.HEAR, Op.NOTE, Op.RELAY})
_SENDING = frozenset({Op.SEND, Op.GIVE, Op.COPY, Op.TELL, Op.REPORT, Op.RELAY})

Channel = tuple[str, str]


def check(
    program: Iterable[Action] | Mapping[str, Iterable[Action]],
    graph: SplitGraph,
    calendar: Calendar | None = None,
) -> int:
    """Check a merged program, or one list for each party, against ``graph``; return how many ticks it takes.

    In a tick every party that does not wait does one action.

    Args:
        program: The actions.
        graph: Who has which segments, and which cuts there are.
        calendar: How many batches each turn has; without it, a batch that nobody has is not found.

    Raises:
        ProgramError: A receive without its send, a frame nobody receives, a use before the make, work
            left undone, a hand-over that is missing, training on rows that are held out, a deadlock,
            or no action at all; the message shows the step x party grid with the place marked.
    """
    if isinstance(program, Mapping):
        return _Check({party: list(actions) for party, actions in program.items()}, graph, calendar).run()
    merged = Program(program)
    lists: dict[str, list[Action]] = {}
    for action in merged:
        lists.setdefault(action.party, []).append(action)
    ticks = _Check(lists, graph, calendar).run()
    _in_order(merged)
    return ticks


class _Frame(NamedTuple):
    """A frame on its way: the action that first sent it, and what it carries."""

    action: Action
    made: Made | None


class _Check:
    def __init__(
        self, lists: Mapping[str, list[Action]], graph: SplitGraph, calendar: Calendar | None
    ) -> None:
        if not any(lists.values()):
            raise ProgramError("the program is empty", todo="yield the actions of a step, e.g. training_step")
        self.rules = Rules(graph, calendar)
        for party in lists:
            if party not in self.rules.roles:
                raise ProgramError(
                    f"the program names {party!r}, who is not in the graph",
                    todo=nearest(party, list(self.rules.roles)),
                )
        self.lists = lists
        self.position = dict.fromkeys(lists, 0)
        self.channels: dict[Channel, deque[_Frame]] = defaultdict(deque)
        self.waiting: dict[str, Action] = {}
        self.ticks = 0
        self.rows: deque[dict[str, str]] = deque(maxlen=ROWS_SHOWN)

    def run(self) -> int:
        """Perform all lists; return the number of ticks."""
        busy = [party for party, actions in self.lists.items() if actions]
        while busy:
            row: dict[str, str] = {}
            self.rows.append(row)
            self.ticks += 1
            sent: list[tuple[Channel, _Frame]] = []
            for party in busy:
                self._one(party, row, sent)
            woken = self._deliver(sent)
            still = [p for p in busy if p not in self.waiting and self.position[p] < len(self.lists[p])]
            busy = [*still, *(p for p in woken if p not in still)]
        if self.waiting:
            self._deadlock()
        self._nothing_left()
        return self.ticks

    def _one(self, party: str, row: dict[str, str], sent: list[tuple[Channel, _Frame]]) -> None:
        """Do the next action of ``party``, unless it must wait for a frame."""
        action = self.lists[party][self.position[party]]
        if action.op in _RECEIVING and not self.channels[_channel(action)]:
            row[party] = f"(waits: {action.op.value} {action.what})"
            self.waiting[party] = action
            return
        row[party] = f"@{action.step} {action.op.value} {action.what}"
        try:
            frame = self._arrived(action) if action.op in _RECEIVING else None
            made = self.rules.perform(action, frame.made if frame else None)
        except Refused as error:
            row[party] += " <-- ERROR HERE"
            raise ProgramError(
                f"'{action}' cannot be performed: {error}\n{self.picture()}",
                party=party, step=action.step, todo=error.todo,
            ) from None  # fmt: skip
        if action.op is Op.RELAY and frame is not None:
            sent.append(((party, action.via), frame))
        elif action.op in _SENDING:
            sent.append(((party, action.via or action.peer), _Frame(action, made)))
        self.position[party] += 1

    def _arrived(self, action: Action) -> _Frame:
        """Take the next frame from the channel and compare it with what the action expects."""
        frame = self.channels[_channel(action)].popleft()
        first, (sender, _) = frame.action, _channel(action)
        if (first.what, first.step) != (action.what, action.step) or _MATES[first.op] != _mate(action.op):
            raise Refused(f"the next frame from {sender} is '{first}'")
        to, origin = (action.via, action.peer) if action.op is Op.RELAY else (action.party, action.peer)
        if (first.peer, first.party) != (to, origin):
            raise Refused(f"the frame that {sender} passes on is '{first}'")
        return frame

    def _deliver(self, sent: list[tuple[Channel, _Frame]]) -> list[str]:
        """Put frames into their channels; return the parties that need not wait any more."""
        woken = []
        for channel, frame in sent:
            self.channels[channel].append(frame)
            receiver = channel[1]
            if receiver in self.waiting and _channel(self.waiting[receiver]) == channel:
                del self.waiting[receiver]
                woken.append(receiver)
        return woken

    # Failures

    def _deadlock(self) -> NoReturn:
        for party, action in self.waiting.items():
            self.rows[-1][party] = f"(waits: {action.op.value} {action.what}) <-- ERROR HERE"
        waits = [
            f"{a.party} waits for {a.what} (step {a.step}) from {_channel(a)[0]}"
            for a in self.waiting.values()
        ]
        what = "deadlock, nobody can go on" if len(waits) > 1 else "a receive without its send"
        raise ProgramError(f"{what}: {'; '.join(waits)}\n{self.picture()}")

    def _nothing_left(self) -> None:
        for (_, receiver), frames in self.channels.items():
            if frames:
                first = frames[0].action
                raise ProgramError(
                    f"'{first}' is never received by {receiver}\n{self.picture()}",
                    party=first.party,
                    step=first.step,
                )
        for party, owed in self.rules.owed.items():
            for (kind, name, _), begun in owed.items():
                raise ProgramError(
                    f"'{begun}' was done, and its {kind} ({name}) never is\n{self.picture()}",
                    party=party,
                    step=begun.step,
                )

    def picture(self) -> str:
        """Return the last rows of the step x party grid as text."""
        parties = [p for p in self.lists if any(p in row for row in self.rows)]
        width = {p: max(len(p), *(len(row.get(p, "")) for row in self.rows)) for p in parties}
        lines = ["tick  " + "  ".join(p.ljust(width[p]) for p in parties)]
        for index, row in enumerate(self.rows, self.ticks - len(self.rows)):
            lines.append(f"{index:>4}  " + "  ".join(row.get(p, "").ljust(width[p]) for p in parties))
        return "\n".join(line.rstrip() for line in lines)


_MATES = {
    Op.SEND: "cut",
    Op.GIVE: "hand-over",
    Op.COPY: "hand-over",
    Op.TELL: "numbers",
    Op.REPORT: "squares and norms",
}


def _mate(op: Op) -> str:
    return {Op.RECEIVE: "cut", Op.HEAR: "numbers", Op.NOTE: "squares and norms"}.get(op, "hand-over")


def _channel(action: Action) -> Channel:
    """Where the frame of a receiving action comes from."""
    return (action.peer if action.op is Op.RELAY else action.via or action.peer, action.party)


def _in_order(merged: Program) -> None:
    """Refuse a merged program in which a receive stands before its send."""
    frames: dict[Channel, int] = defaultdict(int)
    for action in merged:
        if action.op in _RECEIVING:
            frames[_channel(action)] -= 1
            if frames[_channel(action)] < 0:
                raise ProgramError(
                    f"'{action}' stands before its send, so one thread cannot perform the merged program",
                    party=action.party, step=action.step,
                    todo="put the send first, or check one list for each party",
                )  # fmt: skip
        if action.op in _SENDING:
            frames[action.party, action.via or action.peer] += 1
