"""What each action needs and makes, with names alone: the rules by which a program is right.

Every value (a loaded batch, a segment's output, a gradient) carries the step, the mode and the batch it
comes from. Who uses it takes each one exactly once, so nothing can be used before it is made, used
twice, or made and left over. Work that was begun is *owed* until it is finished: a forward its backward,
a backward its optimizer step, a score its evaluation.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable

from ..data.records import SPLITS, UNLABELLED
from ..errors import nearest
from ..graph.parts import Cut, Loss, Ref
from ..graph.reconstruction import taught_at_home
from ..graph.split_graph import SplitGraph
from .actions import Action, Op
from .calendar import Batch, Calendar
from .ledger import Made, Refused, at_home
from .state_rules import StateRules

__all__ = ["Made", "Refused", "Rules"]


_BOUND = re.compile(r"[0-9]*\.?[0-9]+(e[+-]?[0-9]+)?")


class Rules(StateRules):
    """What all parties have, use and owe while a program is performed with names alone.

    Args:
        graph: The graph that the program is for.
        calendar: How many batches each turn has; without it, a batch may have any number.
    """

    def __init__(self, graph: SplitGraph, calendar: Calendar | None = None) -> None:
        super().__init__(graph)
        self.calendar = calendar
        self._cuts = {cut.name: cut for cut in graph.cuts}
        self._cuts |= {cut.backward_name: cut for cut in graph.cuts if cut.has_gradient}
        self._inputs = {name: self._things_read(name) for name in graph.order}
        self._returns = {name: self._gradients_of(name) for name in graph.order}
        self._readers = {cut.backward_name: self._readers_of(cut) for cut in graph.cuts if cut.has_gradient}
        self._losses: dict[str, list[Loss]] = {name: [] for name in graph.order}
        for loss in graph.losses.values():
            self._losses[loss.prediction.partition(":")[0]].append(loss)
        taught = taught_at_home(graph)
        self._at_home = {
            name: tuple(f"backward {n}" for n in graph.order if n in taught and self._reads(n, name))
            for name in taught
        }
        self._own = {
            n for n in graph.order if any(p.requires_grad for p in graph.segments[n].module.parameters())
        }
        self._parts: dict[tuple[str, str], dict[int, Made]] = defaultdict(dict)
        self._trained: dict[str, dict[str, int]] = defaultdict(dict)
        self._scored: dict[str, str] = {}
        self._normed: dict[str, int] = {}
        self._rounds: dict[str, set[str]] = defaultdict(set)
        self._evaluated: dict[str, set[str]] = defaultdict(set)
        self._verdicts: dict[str, set[str]] = defaultdict(set)
        self._rules: dict[Op, Callable[[Action, Made | None], Made | None]] = {
            Op.LOAD: self._load, Op.FORWARD: self._run, Op.INFER: self._run, Op.LOSS: self._loss,
            Op.SCORE: self._score, Op.BACKWARD: self._backward, Op.STEP: self._step,
            Op.ADVANCE: self._advance, Op.SEND: self._send, Op.RECEIVE: self._receive, Op.GIVE: self._give,
            Op.TAKE: self._take, Op.EVALUATE: self._evaluate, Op.TELL: self._tell, Op.HEAR: self._hear,
            Op.SNAPSHOT: self._snapshot, Op.OWN: self._keep_own, Op.FORK: self._fork, Op.COPY: self._copy,
            Op.MERGE: self._merge, Op.AVERAGE: self._average, Op.DROP: self._drop, Op.KEEP: self._keep,
            Op.JOIN: self._joining, Op.SPLIT: self._split, Op.DETACH: self._detach,
            Op.ACCUMULATE: self._accumulate, Op.REPORT: self._report, Op.NOTE: self._note, Op.CLIP: self._clip,
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

    def _reads(self, segment: str, other: str) -> bool:
        """Return whether a gradient of ``segment`` flows back into ``other``."""
        refs = [ref for ref in self.graph.wiring[segment] if isinstance(ref, Ref) and ref.segment == other]
        return segment in self.graph.trainable and any(map(self.graph.needs_gradient, refs))

    def _losses_on(self, segment: str, batch: str) -> list[Loss]:
        """Return the losses of a segment's outputs that rows of ``batch`` have what they need for."""
        return [loss for loss in self._losses[segment] if loss.reconstructs or not at_home(batch)]

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

    # Training and evaluation

    def _load(self, action: Action, frame: Made | None) -> None:
        try:
            batch = Batch.parse(action.what)
            known = batch.split in (*SPLITS, UNLABELLED) and min(batch[1:]) >= 0
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
        name, owed = self._placed(action), self.owed[action.party]
        training = action.op is Op.FORWARD
        for (kind, what, _), before in owed.items():
            begun = what == action.what and (kind == "step" or (kind == "backward" and not training))
            if begun or (what == name and kind in ("score", "loss")):
                raise Refused(f"its {kind} of step {before.step} is still to be done")
        batch = self._use_all(action, self._inputs[name], name, training)
        if at_home(batch) and not (training and name in taught_at_home(self.graph)):
            raise Refused(
                f"the batch {batch} has no labels: only encoders and decoders of a party's own are trained on it",
                "a loss that makes an input again says which these are, Loss(reconstructs=True)",
            )
        if training:
            self._train(action, name, batch)
            if name in self.graph.trainable:
                owed["backward", action.what, action.step] = action
        if self._losses_on(name, batch):
            owed["loss" if training else "score", name, 0] = action
        self._make(action, name, training, batch)

    def _train(self, action: Action, name: str, batches: str) -> None:
        """Note that ``name`` trains on batches, each of the split ``train`` and once only."""
        for batch in batches.split("+"):
            if not batch.startswith("train.") and not at_home(batch):
                todo = "forward takes batches of the split 'train', infer those of any"
                raise Refused(f"the batch {batch} is not for training", todo)
            last = self._trained[name].setdefault(batch, action.step)
            if last != action.step:
                raise Refused(f"the batch {batch} was trained on in step {last} before")

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
        if at_home(batch) and not loss.reconstructs:
            raise Refused(f"the batch {batch} has no labels for loss {loss.name!r}")
        self._make(action, f"loss {loss.name}", True, batch)
        self._settle(action, "loss", segment)

    def _score(self, action: Action, frame: Made | None) -> None:
        loss, label = self._compared(action, False)
        segment = loss.prediction.partition(":")[0]
        labelled = (action.party, label) in self._times
        batch = self._use_all(action, (segment, label) if labelled else (segment,), action.what, False)
        round_ = _round(batch)
        pending = self._scored.setdefault(action.party, round_) if labelled else round_
        if pending != round_:
            raise Refused(f"the scores of {pending} are not evaluated yet")
        self._make(action, f"score {loss.name}", False, batch)
        self._settle(action, "score", segment)
        if labelled:
            self.owed[action.party]["evaluate", round_, 0] = action

    def _settle(self, action: Action, kind: str, segment: str) -> None:
        """A prediction's last loss (or score) settles what its segment owes."""
        times = {self._times.get((action.party, f"{kind} {loss.name}"), 0) for loss in self._losses[segment]}
        if len(times) == 1:
            self.owed[action.party].pop((kind, segment, 0), None)

    def _detach(self, action: Action, frame: Made | None) -> None:
        cut = self._cuts.get(action.what)
        if cut is None or action.what == cut.name:
            gradients = [name for name in self._cuts if "<-" in name]
            raise Refused(f"no cut's gradient is named {action.what!r}", nearest(action.what, gradients))
        begun = [a for (kind, _, _), a in self.owed[action.party].items() if kind == "backward"]
        made = self._made[action.party].get(cut.producer, {}).get(action.step)
        if made is None or not begun:
            raise Refused(f"the segment {cut.producer!r} was not run here in this step")
        if len(self._returns[cut.producer]) == 1 and not self._losses[cut.producer]:
            raise Refused(
                f"nothing else would teach segment {cut.producer!r}", "give its role a loss of its own"
            )
        self._make(action, action.what, True, made.batch)

    def _backward(self, action: Action, frame: Made | None) -> None:
        name = self._placed(action)
        owed = self.owed[action.party]
        if ("backward", action.what, action.step) not in owed:
            raise Refused("backward before its forward")
        if before := owed.get(("step", action.what, 0)):
            raise Refused(f"its step of step {before.step} is still to be done", "step, or accumulate")
        forward = self._made[action.party][name][action.step]
        returns = self._at_home[name] if at_home(forward.batch) else self._returns[name]
        needs = (*(f"loss {loss.name}" for loss in self._losses_on(name, forward.batch)), *returns)
        batch = self._use_all(action, needs, f"backward {name}", True) or forward.batch
        if batch != forward.batch:
            raise Refused(f"its forward was on batch {forward.batch}, the gradients come from {batch}")
        self._make(action, f"backward {name}", True, batch)
        del owed["backward", action.what, action.step]
        if name in self._own:
            owed["step", action.what, 0] = action

    def _step(self, action: Action, frame: Made | None) -> None:
        self._use(action, f"backward {self._placed(action)}", "step")
        owed = self.owed[action.party]
        if owed.pop(("step", action.what, 0), None) is None:
            raise Refused("the segment has no parameters to train")
        if before := owed.get(("clip", "gradients", 0)):
            raise Refused(f"the gradients of step {before.step} are still to be clipped")
        owed.pop(("step after accumulating", action.what, 0), None)
        for (kind, what, step), _ in owed.items():
            if kind == "backward" and what == action.what:
                raise Refused(f"the backward of step {step}, begun with these weights, is still to be done")
        key = self._state_of(action)
        if self._advanced.get(key, 0) > action.step:
            raise Refused(f"its learning rate moved on before, at step {self._advanced[key]}")
        self._stepped[key] = action.step

    def _accumulate(self, action: Action, frame: Made | None) -> None:
        self._use(action, f"backward {self._placed(action)}", "step")
        owed = self.owed[action.party]
        if owed.pop(("step", action.what, 0), None) is None:
            raise Refused("the segment has no parameters to train")
        owed.setdefault(("step after accumulating", action.what, 0), action)

    def _report(self, action: Action, frame: Made | None) -> None:
        if action.what not in ("squares", "norm"):
            raise Refused("only squares and norms are reported", nearest(action.what, ["squares", "norm"]))
        owed = self.owed[action.party]
        for (kind, what, _), begun in owed.items():
            if kind == "backward":
                raise Refused(f"the backward of {what!r} in step {begun.step} is still to be done")
        if action.what == "squares":
            owed["norm", "gradients", 0] = action
        else:
            self._normed[action.party] = action.step
        if any(kind == "step" for kind, _, _ in owed):
            owed["clip", "gradients", 0] = action

    def _note(self, action: Action, frame: Made | None) -> None:
        if action.what not in ("squares", "norm"):
            raise Refused("only squares and norms are noted", nearest(action.what, ["squares", "norm"]))
        if action.what == "norm":
            self.owed[action.party].pop(("norm", "gradients", 0), None)
        elif self._normed.get(action.party, -1) >= action.step:
            raise Refused("the norm of this step was worked out before")

    def _clip(self, action: Action, frame: Made | None) -> None:
        if not _BOUND.fullmatch(action.what):
            raise Refused(f"{action.what!r} is no bound", "write a number above 0, such as 1.5")
        owed = self.owed[action.party]
        if ("norm", "gradients", 0) in owed:
            raise Refused("the norm of all parties' gradients is not known here yet", "note it first")
        if not any(kind == "step" for kind, _, _ in owed):
            raise Refused("there are no gradients to clip")
        self._normed[action.party] = action.step
        owed.pop(("clip", "gradients", 0), None)

    def _advance(self, action: Action, frame: Made | None) -> None:
        segment = self.graph.segments.get(action.what)
        if segment is None or self._holder.get(segment.role) != action.party:  # an average is of any role
            self._placed(action)
        if action.what not in self._own:
            raise Refused("the segment has no parameters to train")
        key = self._state_of(action)
        if self._advanced.get(key, -1) >= action.step:
            raise Refused(f"its learning rate moved on before, at step {self._advanced[key]}")
        if self._stepped.get(key, -1) >= action.step:
            raise Refused(f"the segment's optimizer step {self._stepped[key]} was done before")
        self._advanced[key] = action.step

    def _state_of(self, action: Action) -> str:
        """Return the name of the segment's state, with the party where each has one of its own."""
        role = self.graph.segments[action.what.partition("#")[0]].role
        return f"{action.what} of {action.party}" if (action.party, role) in self._owners else action.what

    # Cuts

    def _ends(self, action: Action) -> tuple[Cut, bool]:
        """Return the cut and whether the frame goes forwards; sender and receiver must be its ends."""
        cut = self._cuts.get(action.what)
        if cut is None:
            raise Refused(f"no cut is named {action.what!r}", nearest(action.what, list(self._cuts)))
        forwards = action.what == cut.name
        ends = (cut.source, cut.target) if forwards else (cut.target, cut.source)
        parties = (action.peer, action.party) if action.op is Op.RECEIVE else (action.party, action.peer)
        for party, role in zip(parties, ends, strict=True):
            if action.op is Op.SPLIT and not party:
                continue
            if self.roles.get(party) != role:
                raise Refused(
                    f"{action.what} goes from role {ends[0]!r} to {ends[1]!r}, "
                    f"and {party!r} is not of role {role!r}"
                )
        return cut, forwards

    def _send(self, action: Action, frame: Made | None) -> Made:
        parts = [self._send_part(action._replace(what=what)) for what in action.what.split("+")]
        for part in parts:
            if at_home(part.batch):
                raise Refused(f"the batch {part.batch} has no labels: nothing that is made of it leaves")
        batches = {part.batch for part in parts}
        if len(batches) > 1:
            raise Refused(f"its parts come from different batches: {', '.join(sorted(batches))}")
        return next((part for part in parts if part.training is not None), parts[0])

    def _send_part(self, action: Action) -> Made:
        dealt = self._parts[action.party, action.what].pop(action.step, None)
        if dealt is not None:
            return dealt
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

    # Several batches as one

    def _joining(self, action: Action, frame: Made | None) -> None:
        what, count = _counted(action)
        for part in what.split("+"):
            if part != "load" and (part not in self._cuts or self._far_end(part) != self.roles[action.party]):
                raise Refused(f"nothing named {part!r} arrives here", nearest(part, [*self._cuts, "load"]))
            self._join(action, part, count)

    def _split(self, action: Action, frame: Made | None) -> None:
        what, count = _counted(action)
        cut = self._cuts.get(what)
        if cut is None:
            raise Refused(f"no cut is named {what!r}", nearest(what, list(self._cuts)))
        made = self._send_part(action._replace(op=Op.SPLIT, what=what))
        batches = made.batch.split("+")
        if len(batches) != count:
            raise Refused(f"{what} is of {len(batches)} batches, not {count}")
        parts = self._parts[action.party, what]
        for number, batch in enumerate(batches):
            step = action.step - count + number
            parts[step] = made._replace(step=step, batch=batch)

    def _far_end(self, what: str) -> str:
        cut = self._cuts[what]
        return cut.target if what == cut.name else cut.source

    # Verdict

    def _evaluate(self, action: Action, frame: Made | None) -> None:
        pending = self._scored.get(action.party)
        if pending is None:
            raise Refused("nothing was scored before")
        if pending != action.what:
            raise Refused(f"what was scored is {pending}")
        for (kind, name, _), begun in self.owed[action.party].items():
            if kind == "score":
                raise Refused(f"the score of segment {name!r} in step {begun.step} is still to be done")
        if pending in self._rounds[action.party]:
            raise Refused(f"{pending} was evaluated before", "evaluate once, when all is scored")
        self._rounds[action.party].add(pending)
        del self._scored[action.party]
        self.owed[action.party].pop(("evaluate", pending, 0))
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


def _counted(action: Action) -> tuple[str, int]:
    """Return what ``cut*n`` names."""
    what, _, count = action.what.partition("*")
    if not count.isdecimal() or int(count) < 1:
        raise Refused(f"{action.what!r} does not say of how many steps", f"write {what}*4 for the 4 before")
    return what, int(count)


def _round(batch: str) -> str:
    """The evaluation that a batch belongs to: ``valid/3`` for ``valid.0/3/1``."""
    parsed = Batch.parse(batch.partition("+")[0])
    return f"{parsed.split}/{parsed.epoch}"
