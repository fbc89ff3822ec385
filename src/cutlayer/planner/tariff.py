"""What each action of a program costs: FLOPs and frames, as the meters would count them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

from ..errors import StudyError
from ..schedules.actions import Action, Op
from ..schedules.calendar import TRAINED, Batch, Calendar
from ..schedules.steps import Step, Template, cuts_without_gradient
from ..study import Study
from ..wire import Kind
from .counting import Counter, Counts
from .framing import Frame, Framing, States, frame_bytes

__all__ = ["Cost", "Priced", "Tariff"]

_NUMBERS = {Op.TELL: ("numbers", 2), Op.REPORT: ("number", 1)}
_DIRECTIONS = {Op.FORWARD: "forward", Op.BACKWARD: "backward", Op.INFER: "infer"}


class Cost(NamedTuple):
    """What one action costs.

    Attributes:
        segment: Which it computes, if it does.
        direction: Forward, backward or infer.
        flops: Its FLOPs.
        frames: What it sends, each as the meters note it.
        phase: Training, evaluation or hand-over.
        to: To whom.
    """

    segment: str = ""
    direction: str = ""
    flops: int = 0
    frames: tuple[Frame, ...] = ()
    phase: str = ""
    to: str = ""

    @property
    def sent_bytes(self) -> int:
        """Bytes of the frame with all that rides in it."""
        return sum(frame.frame_bytes for frame in self.frames)


class Priced(NamedTuple):
    """An action with its cost.

    Attributes:
        action: What is done, by whom.
        cost: What it costs.
        rows: Rows of the batch it is done with; 0 where it is of none.
        training: Whether that is a batch that is trained on.
    """

    action: Action
    cost: Cost
    rows: int
    training: bool = False


_FREE = Cost()


class Tariff:
    """Prices the items of a study's program, which come in the order of the program.

    Args:
        study: Whose.
        calendar: Which rows when.
        counter: What knows the segments' FLOPs; they are counted unless given.

    Raises:
        StudyError: Hand-overs of updates, whose size depends on what is learned.
    """

    def __init__(self, study: Study, calendar: Calendar, counter: Counts | None = None) -> None:
        if getattr(study.schedule, "updates", False):
            raise StudyError(
                "the size of updates depends on what is learned, so it cannot be told beforehand",
                todo="plan with RoundRobin(updates=False): whole states, which are larger",
            )
        graph = study.graph
        local = getattr(study.schedule, "local", False)
        silent = frozenset(cut.name for cut in cuts_without_gradient(graph)) if local else frozenset()
        self.counter = counter or Counter(graph, silent)
        self.states = States(graph, study.optimizers)
        self.calendar = calendar
        self._framing = Framing(graph)
        self._relayed: dict[tuple[str, str], int] = {}
        self._steps: dict[tuple[int, tuple[int, ...]], tuple[Template, list[Priced]]] = {}

    def of(self, items: Iterable[Action | Step]) -> Iterator[list[Priced]]:
        """Yield the priced actions of each item."""
        for item in items:
            if isinstance(item, Step):
                yield self._step(item)
            else:
                yield [Priced(item, self._single(item), 0)]

    def _step(self, item: Step) -> list[Priced]:
        batches = [Batch.parse(name) for name in item.batches]
        sizes = tuple(map(self.calendar.size, batches))
        training = batches[0].split in TRAINED
        key = (id(item.template), (*sizes, training))
        known = self._steps.get(key)
        if known is None:  # the template is kept, so that no other gets its number
            known = self._steps[key] = item.template, list(self._priced(item.template, sizes, training))
        for priced in known[1]:
            if priced.action.op is Op.STEP:
                self.states.step(_plain(priced.action.what))
        return known[1]

    def _priced(self, template: Template, sizes: tuple[int, ...], training: bool) -> Iterator[Priced]:
        for action in template:
            rows = sizes[action.step] if action.step < len(sizes) else sum(sizes)
            yield Priced(action, self._cost(action, rows, training), rows, training)

    def _cost(self, action: Action, rows: int, training: bool) -> Cost:
        if action.op in _DIRECTIONS:
            segment, direction = _plain(action.what), _DIRECTIONS[action.op]
            flops = getattr(self.counter.of(segment, rows), direction)
            return Cost(segment=segment, direction=direction, flops=flops)
        if action.op is Op.SEND:
            phase = "training" if training else "evaluation"
            return Cost(frames=self._framing.of(action.what, rows), phase=phase, to=action.peer)
        return self._numbers(action) if action.op in _NUMBERS else _FREE

    def _single(self, action: Action) -> Cost:
        """Return what an action by itself costs, between steps."""
        op = action.op
        if op in (Op.GIVE, Op.COPY):
            memory = op is Op.GIVE and "#" not in action.what
            whole, tensors = self.states.handed(action.what, action.peer, memory=memory)
            self._relayed[action.what, action.peer] = whole
            return _handed(action.what, whole, tensors, action.via or action.peer)
        if op is Op.RELAY:
            return _handed(action.what, self._relayed[action.what, action.via], 0, action.via)
        if op is Op.ADVANCE:
            self.states.advance(action.what)
        return self._numbers(action) if op in _NUMBERS else _FREE

    def _numbers(self, action: Action) -> Cost:
        """Return what a few numbers for another party cost: metrics, a verdict, a norm."""
        title, count = _NUMBERS[action.op]
        size = frame_bytes(action.what, [(title, torch.float64, (count,))])
        what = action.what.partition("/")[0]
        kind = Kind.VERDICT if what == "verdict" else Kind.STATISTICS
        phase = "evaluation" if action.op is Op.TELL else "training"
        cut = what if action.op is Op.TELL else "gradient norm"
        return Cost(frames=(Frame(cut, kind, size, 8 * count),), phase=phase, to=action.peer)


def _handed(what: str, whole: int, tensors: int, to: str) -> Cost:
    cut = f"hand-over of {_plain(what)}"
    return Cost(frames=(Frame(cut, Kind.HANDOVER, whole, tensors),), phase="hand-over", to=to)


def _plain(what: str) -> str:
    """Return the segment or role of which ``what`` may be a copy or an update."""
    return what.partition("#")[0].partition(":")[0]
