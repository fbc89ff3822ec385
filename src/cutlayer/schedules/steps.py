"""The actions of one training step and one evaluation step of a graph, from which schedules are made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..graph.parts import Cut, Ref
from ..graph.remembering import remembered
from ..graph.split_graph import SplitGraph
from .actions import Action, Op, copy_of
from .calendar import Batch

__all__ = [
    "NO_COPIES",
    "Roles",
    "Step",
    "Template",
    "cuts_without_gradient",
    "data_roles",
    "evaluation_step",
    "flat",
    "hand_over",
    "in_copy",
    "placed_on_roles",
    "prediction_step",
    "repeated",
    "training_step",
]

Template = tuple[Action, ...]
"""The actions of a step that is not numbered yet: step 0, and an empty ``what`` where the batch is to be named."""

Roles = tuple[tuple[str, Op, str, str], ...]
"""A template with roles in place of parties: (role, op, what, peer role)."""

NO_COPIES: frozenset[str] = frozenset()
_ON_SEGMENTS = frozenset({Op.FORWARD, Op.INFER, Op.BACKWARD, Op.STEP, Op.ACCUMULATE})


class Step(NamedTuple):
    """One step of a schedule: actions that are alike in every step but for its number and batch.

    Attributes:
        template: The actions. Where several batches are worked on together, their numbers of step count from
            the item's, and the number says which of the batches to load.
        step: The step's number.
        batch: The batch to load; several are joined by ``+``.
    """

    template: Template
    step: int
    batch: str

    def actions(self) -> Iterator[Action]:
        """Yield the step's actions."""
        batches = self.batches
        for action in self.template:
            yield action._replace(step=self.step + action.step, what=action.what or batches[action.step])

    @property
    def batches(self) -> list[str]:
        """The batches that are loaded, one by one."""
        return self.batch.split("+")


def flat(program: Iterable[Action | Step]) -> Iterator[Action]:
    """Yield a program's actions one by one."""
    for item in program:
        if isinstance(item, Step):
            yield from item.actions()
        else:
            yield item


def training_step(
    graph: SplitGraph,
    turn: int,
    step: int,
    batch: Batch,
    *,
    copies: frozenset[str] = NO_COPIES,
    local: bool = False,
) -> Step:
    """Return one step: load, forward over the cuts, loss, backward over the cuts, optimizer steps.

    Gradients leave before the sender's own optimizer step, so the receiver need not wait for it.

    Args:
        graph: What is trained.
        turn: Who takes part.
        step: The step's number.
        batch: The rows.
        copies: Roles whose copy with the turn's number is trained, in place of their one state.
        local: Send no gradient back where the sender has a loss of its own to train by.
    """
    return Step(_placed(graph, turn, "local" if local else "train", copies), step, str(batch))


def repeated(made: Step, batch: Batch, end: int) -> Iterator[Step]:
    """Yield ``made``, the step on ``batch``, for each batch from there to before ``end``: a step number each."""
    template, step, _ = made
    name = str(batch._replace(number=0))[:-1]
    for number in range(batch.number, end):
        yield Step(template, step, f"{name}{number}")
        step += 1


def evaluation_step(
    graph: SplitGraph, turn: int, step: int, batch: Batch, *, copies: frozenset[str] = NO_COPIES
) -> Step:
    """Return one evaluation step: load, forward without gradients, predictions and labels noted."""
    return Step(_placed(graph, turn, "evaluate", copies), step, str(batch))


def prediction_step(graph: SplitGraph, turn: int, step: int, batch: Batch) -> Step:
    """Return one step of joint inference: as in evaluation, but no labels are needed anywhere."""
    return Step(_placed(graph, turn, "predict"), step, str(batch))


def hand_over(role: str, giver: str, taker: str, step: int, via: str = "") -> Iterator[Action]:
    """Yield the hand-over of a role's segment state, directly or sealed through the party ``via``.

    ``role:update`` hands over what changed in it since the beginning, which everybody knows.
    """
    yield Action(step, giver, Op.GIVE, role, taker, via)
    if via:
        yield Action(step, via, Op.RELAY, role, giver, taker)
    yield Action(step, taker, Op.TAKE, role, giver, via)


def data_roles(graph: SplitGraph, *, labels: bool = True) -> tuple[str, ...]:
    """Return the roles that read their own data in a step; without ``labels``, only those that feed segments."""
    fields = {graph.segments[n].role for n in graph.order for r in graph.wiring[n] if isinstance(r, str)}
    if labels:
        fields |= {s.source for s in graph.shares}
        fields |= {
            loss.role for loss in graph.losses.values() if loss.target in graph.roles[loss.role].fields
        }
    return tuple(role for role in graph.roles if role in fields)


@remembered(4096)
def _placed(graph: SplitGraph, turn: int, what: str, copies: frozenset[str] = NO_COPIES) -> Template:
    """Return the template of a turn's parties; always the same object, which performers recognise."""
    party = graph.turns[turn]
    return tuple(
        Action(
            0,
            party[role],
            op,
            in_copy(word, op, turn, role in copies),
            party[peer] if peer else "",
        )
        for role, op, word, peer in placed_on_roles(graph, what)
    )


def in_copy(what: str, op: Op, turn: int, copied: bool) -> str:
    """Return ``what`` an action is about, where the turn has a copy of the role's state: the copy's segment."""
    return copy_of(what, str(turn)) if copied and op in _ON_SEGMENTS else what


def placed_on_roles(graph: SplitGraph, what: str) -> Roles:
    """Return the actions of one step on roles: to ``train``, to train with ``local`` losses, to ``evaluate``."""
    if what in ("train", "local"):
        return _training(graph, what == "local")
    return _evaluation(graph, with_labels=what == "evaluate")


@remembered(64)
def _training(graph: SplitGraph, local: bool = False) -> Roles:
    alone = {cut.name for cut in cuts_without_gradient(graph)} if local else set()
    actions = [(role, Op.LOAD, "", "") for role in data_roles(graph)]
    actions += _forward(graph, Op.FORWARD, labels=True)
    actions += [(loss.role, Op.LOSS, loss.name, "") for loss in graph.losses.values()]
    waiting: dict[str, list[Cut]] = {}
    for name in reversed(graph.order):
        role = graph.segments[name].role
        if name not in graph.trainable:
            continue
        due = {cut.target for cut in waiting.get(role, []) if cut.producer == name}
        for cut in [cut for cut in waiting.get(role, []) if cut.target in due]:
            actions.append((role, Op.RECEIVE, cut.backward_name, cut.target))  # in the order they were sent
            waiting[role].remove(cut)
        actions += [
            (role, Op.DETACH, cut.backward_name, "")
            for cut in _cuts_of(graph, name)
            if cut.name in alone and cut.has_gradient
        ]
        actions.append((role, Op.BACKWARD, name, ""))
        for cut in [cut for cut in _returned(graph, name) if cut.name not in alone]:
            actions.append((role, Op.SEND, cut.backward_name, cut.source))
            waiting.setdefault(cut.source, []).append(cut)
        if any(p.requires_grad for p in graph.segments[name].module.parameters()):
            actions.append((role, Op.STEP, name, ""))
    return tuple(actions)


def cuts_without_gradient(graph: SplitGraph) -> tuple[Cut, ...]:
    """Return the cuts whose sender needs no gradient back: each segment behind it leads to a loss of its own role."""
    taught: set[str] = set()
    for name in reversed(graph.order):
        role = graph.segments[name].role
        losses = [loss for loss in graph.losses.values() if loss.prediction.partition(":")[0] == name]
        readers = [n for n in graph.order if any(_is(r, name) for r in graph.wiring[n])]
        if losses or any(graph.segments[n].role == role and n in taught for n in readers):
            taught.add(name)
    return tuple(cut for cut in graph.cuts if cut.kind == "activation" and cut.producer in taught)


def _is(ref: object, segment: str) -> bool:
    return isinstance(ref, Ref) and ref.segment == segment


@remembered(64)
def _evaluation(graph: SplitGraph, with_labels: bool) -> Roles:
    actions = [(role, Op.LOAD, "", "") for role in data_roles(graph, labels=with_labels)]
    actions += _forward(graph, Op.INFER, labels=with_labels)
    scored = [loss for loss in graph.losses.values() if with_labels or not loss.reconstructs]
    actions += [(loss.role, Op.SCORE, loss.name, "") for loss in scored]
    return tuple(actions)


def _forward(graph: SplitGraph, run: Op, *, labels: bool) -> list[tuple[str, Op, str, str]]:
    """Run the segments in order; each cut's tensors are sent when made and received just before use.

    Shared labels ride in the frame of the first activations that go the same way: ``head->server+y->server``.
    """
    shared = [cut for cut in graph.cuts if cut.kind == "label" and labels]
    riders: dict[str, list[Cut]] = {}
    alone: list[Cut] = []
    for label in shared:
        ways = [
            c
            for n in graph.order
            for c in _cuts_of(graph, n)
            if (c.source, c.target) == (label.source, label.target)
        ]
        (riders.setdefault(ways[0].name, []) if ways else alone).append(label)
    actions: list[tuple[str, Op, str, str]] = [(cut.source, Op.SEND, cut.name, cut.target) for cut in alone]
    waiting: dict[str, list[tuple[Cut, str]]] = {}
    for cut in alone:
        waiting.setdefault(cut.target, []).append((cut, cut.name))
    for name in graph.order:
        role = graph.segments[name].role
        needed = {ref.segment for ref in graph.wiring[name] if not isinstance(ref, str)}
        due = {cut.source for cut, _ in waiting.get(role, []) if cut.producer in needed}
        for cut, word in [pair for pair in waiting.get(role, []) if pair[0].source in due]:
            actions.append((role, Op.RECEIVE, word, cut.source))  # all that one sender sent, in its order
            waiting[role].remove((cut, word))
        actions.append((role, run, name, ""))
        for cut in _cuts_of(graph, name):
            word = "+".join([cut.name, *(label.name for label in riders.get(cut.name, ()))])
            actions.append((role, Op.SEND, word, cut.target))
            waiting.setdefault(cut.target, []).append((cut, word))
    for role, pairs in waiting.items():
        actions += [(role, Op.RECEIVE, word, cut.source) for cut, word in pairs]
    return actions


def _cuts_of(graph: SplitGraph, segment: str) -> list[Cut]:
    return [cut for cut in graph.cuts if cut.kind == "activation" and cut.producer == segment]


def _returned(graph: SplitGraph, name: str) -> list[Cut]:
    """The cuts whose gradients can leave once ``name`` is done: its role's last backward that feeds them."""
    role = graph.segments[name].role
    found = []
    for cut in graph.cuts_into(role):
        readers = [c for c in graph.order if graph.segments[c].role == role and _reads(graph, c, cut)]
        # Backward runs in reverse, so the first reader is the last to finish.
        if cut.has_gradient and readers and readers[0] == name:
            found.append(cut)
    return found


def _reads(graph: SplitGraph, segment: str, cut: Cut) -> bool:
    return any(not isinstance(r, str) and r.segment == cut.producer for r in graph.wiring[segment])
