"""A proof that a program can be performed, found without any model: by performing it with names alone.

Each party works through its own list; a send never blocks, a receive waits for its frame. The program
is right if every party gets to its end, every frame that was sent was received, in order, and nothing
was used before it was made.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping

from ..errors import ProgramError, nearest
from ..graph.parts import Cut, Ref
from ..graph.split_graph import SplitGraph
from .actions import Action, Op, Program

__all__ = ["check"]

ROWS_SHOWN = 12


def check(program: Iterable[Action] | Mapping[str, Iterable[Action]], graph: SplitGraph) -> int:
    """Check a merged program, or one list for each party, against ``graph``; return the number of ticks it takes.

    Raises:
        ProgramError: A receive without its send, a frame nobody receives, a use before the make, a
            deadlock; the message shows the step x party grid with the place marked.
    """
    if isinstance(program, Mapping):
        lists = {party: list(actions) for party, actions in program.items()}
    else:
        merged = Program(program)
        lists = {party: list(merged.of(party)) for party in merged.parties}
    return _Check(lists, graph).run()


class _Check:
    def __init__(self, lists: dict[str, list[Action]], graph: SplitGraph) -> None:
        self.lists = lists
        self.graph = graph
        self.cuts = {cut.name: cut for cut in graph.cuts} | {
            c.backward_name: c for c in graph.cuts if c.has_gradient
        }
        self.position = dict.fromkeys(lists, 0)
        self.channels: dict[tuple[str, str], deque[Action]] = defaultdict(deque)
        self.done: dict[str, set[tuple[object, ...]]] = defaultdict(set)
        self.away: dict[str, set[str]] = defaultdict(set)
        self.grid: list[dict[str, str]] = []
        self.roles = {party.name: party.role for party in graph.parties}

    def run(self) -> int:
        for party in self.lists:
            if party not in self.roles:
                raise ProgramError(
                    f"the program names {party!r}, who is not in the graph",
                    todo=nearest(party, list(self.roles)),
                )
        while any(self.position[p] < len(actions) for p, actions in self.lists.items()):
            row: dict[str, str] = {}
            self.grid.append(row)
            sent: list[tuple[tuple[str, str], Action]] = []
            for party, actions in self.lists.items():
                if self.position[party] == len(actions):
                    continue
                action = actions[self.position[party]]
                if self._waits(action):
                    row[party] = f"(waits: {action.op.value} {action.what})"
                    continue
                row[party] = f"@{action.step} {action.op.value} {action.what}"
                self._perform(action, sent)
                self.position[party] += 1
            for channel, action in sent:
                self.channels[channel].append(action)
            if not sent and all(cell.startswith("(waits") for cell in row.values()):
                self._deadlock()
        self._nothing_left()
        return len(self.grid)

    # What an action needs and makes

    def _perform(self, action: Action, sent: list[tuple[tuple[str, str], Action]]) -> None:
        rule: Callable[[Action], None] | None = getattr(self, f"_{action.op.value}", None)
        if action.op in (Op.SEND, Op.GIVE, Op.TELL):
            sent.append(((action.party, action.via or action.peer), action))
        if action.op is Op.RELAY:
            sent.append(((action.party, action.via), self._arrived(action)))
        elif action.op in (Op.RECEIVE, Op.TAKE, Op.HEAR):
            self._arrived(action)
        if rule is not None:
            rule(action)
        self.done[action.party].add((action.op, action.what, action.step))

    def _waits(self, action: Action) -> bool:
        return (
            action.op in (Op.RECEIVE, Op.TAKE, Op.HEAR, Op.RELAY) and not self.channels[self._channel(action)]
        )

    def _channel(self, action: Action) -> tuple[str, str]:
        """Where the frame of a receiving action comes from."""
        return (action.peer if action.op is Op.RELAY else action.via or action.peer, action.party)

    def _arrived(self, action: Action) -> Action:
        frame = self.channels[self._channel(action)].popleft()
        if (frame.what, frame.step) != (action.what, action.step):
            self._fail(
                action,
                f"the next frame from {self._channel(action)[0]} is {frame.what!r} of step {frame.step}",
            )
        return frame

    def _did(self, action: Action, *ops: Op, what: str) -> bool:
        return any((op, what, action.step) in self.done[action.party] for op in ops)

    def _segment(self, action: Action) -> None:
        segment = self.graph.segments.get(action.what)
        if segment is None:
            self._fail(
                action,
                f"no segment is named {action.what!r}",
                nearest(action.what, list(self.graph.segments)),
            )
        elif segment.role != self.roles[action.party]:
            self._fail(action, f"segment {action.what!r} is placed on role {segment.role!r}")
        elif segment.role in self.away[action.party]:
            self._fail(action, f"the state of role {segment.role!r} was given away and not taken back")

    def _forward(self, action: Action) -> None:
        self._segment(action)
        for ref in self.graph.wiring[action.what]:
            if isinstance(ref, str):
                if not any(op is Op.LOAD and step == action.step for op, _, step in self.done[action.party]):
                    self._fail(action, f"it reads the field {ref!r}, and no batch was loaded")
            elif not self._available(action, ref):
                self._fail(action, f"it reads {ref}, which is neither made nor received here in this step")

    _infer = _forward

    def _available(self, action: Action, ref: Ref) -> bool:
        role = self.roles[action.party]
        if self.graph.segments[ref.segment].role == role:
            return self._did(action, Op.FORWARD, Op.INFER, what=ref.segment)
        return self._did(action, Op.RECEIVE, what=f"{ref.segment}->{role}")

    def _loss(self, action: Action) -> None:
        loss = self.graph.losses.get(action.what)
        if loss is None:
            self._fail(
                action, f"no loss is named {action.what!r}", nearest(action.what, list(self.graph.losses))
            )
            return
        if not self._did(action, Op.FORWARD, Op.INFER, what=loss.prediction.partition(":")[0]):
            self._fail(action, f"its prediction {loss.prediction!r} is not made yet")
        if loss.target not in self.graph.roles[loss.role].fields and not self._did(
            action, Op.RECEIVE, what=f"{loss.target}->{loss.role}"
        ):
            self._fail(action, f"the label {loss.target!r} has not arrived")

    def _score(self, action: Action) -> None:
        loss = self.graph.losses.get(action.what)
        if loss is None or not self._did(action, Op.INFER, what=loss.prediction.partition(":")[0]):
            self._fail(action, "there is no prediction to score yet")

    def _backward(self, action: Action) -> None:
        self._segment(action)
        if not self._did(action, Op.FORWARD, what=action.what):
            self._fail(action, "backward before its forward")
        role = self.roles[action.party]
        for loss in self.graph.losses.values():
            if loss.prediction.partition(":")[0] == action.what and not self._did(
                action, Op.LOSS, what=loss.name
            ):
                self._fail(action, f"loss {loss.name!r} is not computed yet")
        for output in self.graph.segments[action.what].outputs:
            for reader in self.graph.consumers(Ref(action.what, output)):
                reader_role = self.graph.segments[reader].role
                if not self.graph.needs_gradient(Ref(action.what, output)):
                    continue
                if reader_role == role and not self._did(action, Op.BACKWARD, what=reader):
                    self._fail(action, f"segment {reader!r}, which reads it, has not gone backward yet")
                if reader_role != role and not self._did(
                    action, Op.RECEIVE, what=f"{action.what}<-{reader_role}"
                ):
                    self._fail(action, f"the gradient {action.what}<-{reader_role} has not been received")

    def _step(self, action: Action) -> None:
        self._segment(action)
        if not self._did(action, Op.BACKWARD, what=action.what):
            self._fail(action, "an optimizer step before the segment's backward")

    def _send(self, action: Action) -> None:
        cut = self._cut(action)
        forwards = "->" in action.what
        target = cut.target if forwards else cut.source
        if self.roles.get(action.peer) != target:
            self._fail(action, f"{action.what} goes to role {target!r}, and {action.peer!r} does not fill it")
        if cut.kind == "label":
            ready = any(op is Op.LOAD and step == action.step for op, _, step in self.done[action.party])
        elif forwards:
            ready = self._did(action, Op.FORWARD, Op.INFER, what=cut.producer)
        else:
            readers = [n for n in self.graph.order if self.graph.segments[n].role == cut.target]
            reads = [
                n
                for n in readers
                if any(isinstance(r, Ref) and r.segment == cut.producer for r in self.graph.wiring[n])
            ]
            ready = all(self._did(action, Op.BACKWARD, what=n) for n in reads)
        if not ready:
            self._fail(action, "sent before it is made")

    def _receive(self, action: Action) -> None:
        cut = self._cut(action)
        here = cut.target if "->" in action.what else cut.source
        if self.roles[action.party] != here:
            self._fail(action, f"{action.what} arrives at role {here!r}")

    def _cut(self, action: Action) -> Cut:
        if action.what not in self.cuts:
            self._fail(action, f"no cut is named {action.what!r}", nearest(action.what, list(self.cuts)))
        return self.cuts[action.what]

    def _give(self, action: Action) -> None:
        if action.what in self.away[action.party]:
            self._fail(action, f"the state of role {action.what!r} was given away before")
        self.away[action.party].add(action.what)

    def _take(self, action: Action) -> None:
        self.away[action.party].discard(action.what)

    def _evaluate(self, action: Action) -> None:
        if not any(op is Op.SCORE for op, _, _ in self.done[action.party]):
            self._fail(action, "nothing was scored before")

    # Failures

    def _fail(self, action: Action, why: str, todo: str | None = None) -> None:
        self.grid[-1][action.party] = f"@{action.step} {action.op.value} {action.what} <-- ERROR HERE"
        raise ProgramError(
            f"'{action}' cannot be performed: {why}\n{self.picture()}",
            party=action.party,
            step=action.step,
            todo=todo,
        )

    def _deadlock(self) -> None:
        waiting = [
            actions[self.position[p]] for p, actions in self.lists.items() if self.position[p] < len(actions)
        ]
        for action in waiting:
            self.grid[-1][action.party] += " <-- ERROR HERE"
        senders = "; ".join(
            f"{a.party} waits for {a.what} (step {a.step}) from {self._channel(a)[0]}" for a in waiting
        )
        what = "deadlock, nobody can go on" if len(waiting) > 1 else "a receive without its send"
        raise ProgramError(f"{what}: {senders}\n{self.picture()}")

    def _nothing_left(self) -> None:
        for (sender, receiver), frames in self.channels.items():
            if frames:
                raise ProgramError(
                    f"'{frames[0]}' is never received by {receiver}\n{self.picture()}",
                    party=sender,
                    step=frames[0].step,
                )

    def picture(self) -> str:
        """Return the last rows of the step x party grid as text."""
        rows = self.grid[-ROWS_SHOWN:]
        first = len(self.grid) - len(rows)
        parties = [p for p in self.lists if any(p in row for row in rows)]
        width = {p: max(len(p), *(len(row.get(p, "")) for row in rows)) for p in parties}
        lines = ["tick  " + "  ".join(p.ljust(width[p]) for p in parties)]
        for index, row in enumerate(rows, first):
            lines.append(f"{index:>4}  " + "  ".join(row.get(p, "").ljust(width[p]) for p in parties))
        return "\n".join(line.rstrip() for line in lines)
