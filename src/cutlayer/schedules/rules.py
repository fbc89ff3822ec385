"""What each action needs and makes, with names alone: the rules by which a program is right.

Every value (a loaded batch, a segment's output, a gradient) carries the step, the mode and the batch it
comes from. Who uses it takes each one exactly once, so nothing can be used before it is made, used
twice, or made and left over. Work that was begun is *owed* until it is finished: a forward its backward,
a backward its optimizer step, a score its evaluation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from ..data.records import SPLITS
from ..errors import nearest
from ..graph.parts import Cut, Loss, Ref
from ..graph.split_graph import SplitGraph
from .actions import Action, Op
from .calendar import Batch, Calendar

__all__ = ["Made", "Refused", "Rules"]


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


class Rules:
    """What all parties have, use and owe while a program is performed with names alone.

    Args:
        graph: The graph that the program is for.
        calendar: How many batches each turn has; without it, a batch may have any number.
    """

    def __init__(self, graph: SplitGraph, calendar: Calendar | None = None) -> None:
        self.graph, self.calendar = graph, calendar
        self.roles = {party.name: party.role for party in graph.parties}
        self.owed: dict[str, dict[tuple[str, str], Action]] = defaultdict(dict)
        self._cuts = {cut.name: cut for cut in graph.cuts}
        self._cuts |= {cut.backward_name: cut for cut in graph.cuts if cut.has_gradient}
        self._inputs = {name: self._things_read(name) for name in graph.order}
        self._returns = {name: self._gradients_of(name) for name in graph.order}
        self._readers = {cut.backward_name: self._readers_of(cut) for cut in graph.cuts if cut.has_gradient}
        self._losses: dict[str, list[Loss]] = {name: [] for name in graph.order}
        for loss in graph.losses.values():
            self._losses[loss.prediction.partition(":")[0]].append(loss)
        self._own = {
            n for n in graph.order if any(p.requires_grad for p in graph.segments[n].module.parameters())
        }
        self._made: dict[tuple[str, str], Made] = {}
        self._used: dict[tuple[str, str, str], int] = {}
        self._holder: dict[str, str] = {}
        self._trained: dict[str, dict[str, int]] = defaultdict(dict)
        self._stepped: dict[str, int] = {}
        self._advanced: dict[str, int] = {}
        self._scored: dict[str, str] = {}
        self._evaluated: dict[str, set[str]] = defaultdict(set)
        self._verdicts: dict[str, set[str]] = defaultdict(set)
        self._rules: dict[Op, Callable[[Action, Made | None], Made | None]] = {
            Op.LOAD: self._load, Op.FORWARD: self._run, Op.INFER: self._run, Op.LOSS: self._loss,
            Op.SCORE: self._score, Op.BACKWARD: self._backward, Op.STEP: self._step,
            Op.ADVANCE: self._advance, Op.SEND: self._send, Op.RECEIVE: self._receive, Op.GIVE: self._give,
            Op.TAKE: self._take, Op.EVALUATE: self._evaluate, Op.TELL: self._tell, Op.HEAR: self._hear,
            Op.SNAPSHOT: self._snapshot,
        }  # fmt: skip

    def perform(self, action: Action, frame: Made | None) -> Made | None:
        """Do ``action``, with what the frame carries that it received; return what its own frame carries.

        Raises:
            Refused: It cannot be performed now.
        """
        rule = self._rules.get(action.op)
        return rule(action, frame) if rule is not None else frame

    # The graph's answers, looked up once

    def _things_read(self, segment: str) -> tuple[str, ...]:
        """What a segment reads, each once: ``load``, a segment of its own role, or a cut into its role."""
        role = self.graph.segments[segment].role
        things = []
        for ref in self.graph.wiring[segment]:
            if not isinstance(ref, Ref):
                things.append("load")
            elif self.graph.segments[ref.segment].role == role:
                things.append(ref.segment)
            else:
                things.append(f"{ref.segment}->{role}")
        return tuple(dict.fromkeys(things))

    def _gradients_of(self, segment: str) -> tuple[str, ...]:
        """What a segment's backward waits for: readers of its own role, or gradients that come over a cut."""
        own = self.graph.segments[segment].role
        things = []
        for ref in (Ref(segment, output) for output in self.graph.segments[segment].outputs):
            for reader in self.graph.consumers(ref) if self.graph.needs_gradient(ref) else ():
                role = self.graph.segments[reader].role
                things.append(f"backward {reader}" if role == own else f"{segment}<-{role}")
        return tuple(dict.fromkeys(things))

    def _readers_of(self, cut: Cut) -> tuple[str, ...]:
        """The backwards that a cut's gradients are made by."""
        refs = {
            Ref(cut.producer, name)
            for name, back in zip(cut.tensors, cut.returns_gradient, strict=True)
            if back
        }
        readers = [
            s.name for s in self.graph.segments_of(cut.target) if refs & set(self.graph.wiring[s.name])
        ]
        return tuple(f"backward {name}" for name in readers)

    # Making and using

    def _make(self, action: Action, thing: str, training: bool | None, batch: str) -> Made:
        before = self._made.get((action.party, thing))
        made = Made(1 if before is None else before.times + 1, action.step, training, batch)
        self._made[action.party, thing] = made
        return made

    def _use(self, action: Action, thing: str, by: str) -> Made:
        """Return ``thing``, of this step and not used by ``by`` before."""
        made = self._made.get((action.party, thing))
        if made is None or made.step != action.step:
            raise Refused(
                f"it needs {_in_words(thing)}, which is neither made nor received here in this step"
            )
        used = self._used.get((action.party, by, thing), 0)
        if made.times == used:
            raise Refused(f"it used {_in_words(thing)} already, which was made only once since")
        if made.times > used + 1:
            raise Refused(f"{_in_words(thing)} was made twice, and the first was left over")
        self._used[action.party, by, thing] = made.times
        return made

    def _use_all(self, action: Action, things: tuple[str, ...], by: str, training: bool | None) -> str:
        """Use ``things`` and return the batch that they all come from."""
        batch = ""
        for thing in things:
            made = self._use(action, thing, by)
            if training is not None and made.training is (not training):
                mode = "training" if made.training else "evaluation"
                raise Refused(f"{_in_words(thing)} was made for {mode}")
            if batch and made.batch != batch:
                raise Refused(f"{_in_words(thing)} comes from batch {made.batch}, the rest from {batch}")
            batch = made.batch
        return batch

    def _placed(self, action: Action) -> None:
        """Check that the segment is on this party's role, and that this party has its state now."""
        segment = self.graph.segments.get(action.what)
        if segment is None:
            raise Refused(f"no segment is named {action.what!r}", nearest(action.what, self.graph.order))
        if segment.role != self.roles[action.party]:
            raise Refused(f"segment {action.what!r} is placed on role {segment.role!r}")
        self._hold(action, segment.role)

    def _hold(self, action: Action, role: str) -> None:
        holder = self._holder.setdefault(role, action.party)
        if holder != action.party:
            where = f"is with {holder!r} and" if holder else "is on its way and"
            raise Refused(
                f"the state of role {role!r} {where} was not handed over to {action.party!r}",
                "give it there and take it here first",
            )

    # Training and evaluation

    def _load(self, action: Action, frame: Made | None) -> None:
        try:
            batch = Batch.parse(action.what)
            known = batch.split in SPLITS and min(batch[1:]) >= 0
            turn = self.graph.turns[batch.turn] if known else None
        except (ValueError, IndexError):
            turn = None
        if turn is None:
            raise Refused(f"{action.what!r} names no batch", "write split.turn/epoch/batch, train.0/0/3")
        if turn.get(self.roles[action.party]) != action.party:
            raise Refused(f"{action.party!r} does not take part in turn {batch.turn}")
        if self.calendar is not None:
            count = self.calendar.batches(batch.turn, batch.split)
            if batch.number >= count:
                has = f"turn {batch.turn} has {count or 'no'} {'batch' if count == 1 else 'batches'}"
                raise Refused(f"{has} of the split {batch.split!r}", "batches are counted from 0")
        self._make(action, "load", None, action.what)

    def _run(self, action: Action, frame: Made | None) -> None:
        self._placed(action)
        training = action.op is Op.FORWARD
        name, owed = action.what, self.owed[action.party]
        for kind in ("backward", "step", "score", "loss"):
            before = owed.get((kind, name))
            if before is not None:
                raise Refused(f"its {kind} of step {before.step} is still to be done")
        batch = self._use_all(action, self._inputs[name], name, training)
        if training:
            if not batch.startswith("train."):
                todo = "forward takes batches of the split 'train', infer those of any"
                raise Refused(f"the batch {batch} is not for training", todo)
            last = self._trained[name].setdefault(batch, action.step)
            if last != action.step:
                raise Refused(f"the batch {batch} was trained on in step {last} before")
            if name in self.graph.trainable:
                owed["backward", name] = action
        if self._losses[name]:
            owed["loss" if training else "score", name] = action
        self._make(action, name, training, batch)

    def _compared(self, action: Action, training: bool) -> tuple[Loss, str]:
        """Use the prediction; return the loss and where its label comes from."""
        loss = self.graph.losses.get(action.what)
        if loss is None:
            raise Refused(f"no loss is named {action.what!r}", nearest(action.what, list(self.graph.losses)))
        if self.roles[action.party] != loss.role:
            raise Refused(f"loss {loss.name!r} is placed on role {loss.role!r}")
        label = "load" if loss.target in self.graph.roles[loss.role].fields else f"{loss.target}->{loss.role}"
        return loss, label

    def _loss(self, action: Action, frame: Made | None) -> None:
        loss, label = self._compared(action, True)
        segment = loss.prediction.partition(":")[0]
        batch = self._use_all(action, (segment, label), action.what, True)
        self._make(action, f"loss {loss.name}", True, batch)
        self._settle(action, "loss", segment)

    def _score(self, action: Action, frame: Made | None) -> None:
        loss, label = self._compared(action, False)
        segment = loss.prediction.partition(":")[0]
        labelled = (action.party, label) in self._made
        batch = self._use_all(action, (segment, label) if labelled else (segment,), action.what, False)
        round_ = _round(batch)
        pending = self._scored.setdefault(action.party, round_) if labelled else round_
        if pending != round_:
            raise Refused(f"the scores of {pending} are not evaluated yet")
        self._make(action, f"score {loss.name}", False, batch)
        self._settle(action, "score", segment)
        if labelled:
            self.owed[action.party]["evaluate", round_] = action

    def _settle(self, action: Action, kind: str, segment: str) -> None:
        """A prediction's last loss (or score) settles what its segment owes."""
        done = [self._made.get((action.party, f"{kind} {loss.name}")) for loss in self._losses[segment]]
        counts = {made.times if made else 0 for made in done}
        if len(counts) == 1:
            self.owed[action.party].pop((kind, segment), None)

    def _backward(self, action: Action, frame: Made | None) -> None:
        self._placed(action)
        name = action.what
        begun = self.owed[action.party].get(("backward", name))
        if begun is None or begun.step != action.step:
            raise Refused("backward before its forward")
        needs = (*(f"loss {loss.name}" for loss in self._losses[name]), *self._returns[name])
        forward = self._made[action.party, name]
        batch = self._use_all(action, needs, f"backward {name}", True) or forward.batch
        if batch != forward.batch:
            raise Refused(f"its forward was on batch {forward.batch}, the gradients come from {batch}")
        self._make(action, f"backward {name}", True, batch)
        del self.owed[action.party]["backward", name]
        if name in self._own:
            self.owed[action.party]["step", name] = action

    def _step(self, action: Action, frame: Made | None) -> None:
        self._placed(action)
        self._use(action, f"backward {action.what}", "step")
        if self.owed[action.party].pop(("step", action.what), None) is None:
            raise Refused("the segment has no parameters to train")
        if self._advanced.get(action.what, 0) > action.step:
            raise Refused(f"its learning rate moved on before, at step {self._advanced[action.what]}")
        self._stepped[action.what] = action.step

    def _advance(self, action: Action, frame: Made | None) -> None:
        self._placed(action)
        if action.what not in self._own:
            raise Refused("the segment has no parameters to train")
        if self._advanced.get(action.what, -1) >= action.step:
            raise Refused(f"its learning rate moved on before, at step {self._advanced[action.what]}")
        if self._stepped.get(action.what, -1) >= action.step:
            raise Refused(f"the segment's optimizer step {self._stepped[action.what]} was done before")
        self._advanced[action.what] = action.step

    # Cuts

    def _ends(self, action: Action) -> tuple[Cut, bool]:
        """Return the cut and whether the frame goes forwards; sender and receiver must be its ends."""
        cut = self._cuts.get(action.what)
        if cut is None:
            raise Refused(f"no cut is named {action.what!r}", nearest(action.what, list(self._cuts)))
        forwards = action.what == cut.name
        ends = (cut.source, cut.target) if forwards else (cut.target, cut.source)
        sender, receiver = (
            (action.party, action.peer) if action.op is Op.SEND else (action.peer, action.party)
        )
        for party, role in ((sender, ends[0]), (receiver, ends[1])):
            if self.roles.get(party) != role:
                raise Refused(
                    f"{action.what} goes from role {ends[0]!r} to {ends[1]!r}, "
                    f"and {party!r} is not of role {role!r}"
                )
        return cut, forwards

    def _send(self, action: Action, frame: Made | None) -> Made:
        parts = [self._send_part(action._replace(what=what)) for what in action.what.split("+")]
        batches = {part.batch for part in parts}
        if len(batches) > 1:
            raise Refused(f"its parts come from different batches: {', '.join(sorted(batches))}")
        return next((part for part in parts if part.training is not None), parts[0])

    def _send_part(self, action: Action) -> Made:
        cut, forwards = self._ends(action)
        if cut.kind == "label":
            return self._use(action, "load", action.what)
        if forwards:
            return self._use(action, cut.producer, action.what)
        batch = self._use_all(action, self._readers[action.what], action.what, True)
        return Made(0, action.step, True, batch)

    def _receive(self, action: Action, frame: Made | None) -> None:
        for what in action.what.split("+"):
            self._ends(action._replace(what=what))
            if frame is not None:
                self._make(action, what, frame.training, frame.batch)

    # Hand-over

    def _role(self, action: Action) -> None:
        for party in (action.party, action.peer):
            if self.roles.get(party) != action.what:
                raise Refused(f"{party!r} is not of role {action.what!r}")

    def _give(self, action: Action, frame: Made | None) -> None:
        self._role(action)
        self._hold(action, action.what)
        for (kind, name), begun in self.owed[action.party].items():
            if name in self.graph.segments:
                raise Refused(f"the {kind} of segment {name!r} in step {begun.step} is still to be done")
        self._holder[action.what] = ""

    def _take(self, action: Action, frame: Made | None) -> None:
        self._role(action)
        self._holder[action.what] = action.party

    # Verdict

    def _evaluate(self, action: Action, frame: Made | None) -> None:
        pending = self._scored.get(action.party)
        if pending is None:
            raise Refused("nothing was scored before")
        if pending != action.what:
            raise Refused(f"what was scored is {pending}")
        for (kind, name), begun in self.owed[action.party].items():
            if kind == "score":
                raise Refused(f"the score of segment {name!r} in step {begun.step} is still to be done")
        del self._scored[action.party]
        self.owed[action.party].pop(("evaluate", pending))
        self._evaluated[action.party].add(action.what.partition("/")[2])

    def _tell(self, action: Action, frame: Made | None) -> None:
        what, _, epoch = action.what.partition("/")
        if what not in ("metrics", "verdict"):
            raise Refused("only metrics and verdicts are told", nearest(what, ["metrics", "verdict"]))
        if epoch not in self._evaluated[action.party]:
            raise Refused(f"nothing was evaluated here in epoch {epoch}")
        if what == "verdict":
            self._verdicts[action.party].add(epoch)

    def _hear(self, action: Action, frame: Made | None) -> None:
        what, _, epoch = action.what.partition("/")
        if epoch in self._verdicts[action.party]:
            raise Refused(f"the verdict of epoch {epoch} is known here already")
        if what == "verdict":
            self._verdicts[action.party].add(epoch)

    def _snapshot(self, action: Action, frame: Made | None) -> None:
        if action.what not in self._verdicts[action.party]:
            raise Refused(f"the verdict of epoch {action.what} is not known here yet")


def _in_words(thing: str) -> str:
    if thing == "load":
        return "a loaded batch"
    kind, _, name = thing.partition(" ")
    if name:
        return f"the {kind} of {name!r}"
    return f"the gradient {thing}" if "<-" in thing else f"{thing!r}"


def _round(batch: str) -> str:
    """The evaluation that a batch belongs to: ``valid/3`` for ``valid.0/3/1``."""
    parsed = Batch.parse(batch)
    return f"{parsed.split}/{parsed.epoch}"
