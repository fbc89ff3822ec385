"""From actions to runners: the table that says what does what, and the loop that performs any program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import perf_counter_ns

from ..metering.meter import Meter
from ..schedules.actions import Action, Op
from ..schedules.steps import Step, Template
from . import clipping, compute, copies, defending, evaluation, handover, joint
from .party import LocalParty, Runner

__all__ = ["Performer"]

Timed = tuple[Runner, str, list[int]]
"""A runner, its action's ``what`` (empty: the step's batch), and the count of calls and nanoseconds to add to."""

MAKERS: Mapping[Op, Callable[[LocalParty, Action], Runner]] = {
    Op.LOAD: compute.load,
    Op.FORWARD: compute.forward,
    Op.INFER: compute.infer,
    Op.LOSS: compute.loss,
    Op.JOIN: joint.join,
    Op.SPLIT: joint.split,
    Op.DETACH: compute.detach,
    Op.BACKWARD: compute.backward,
    Op.STEP: compute.step,
    Op.REPORT: clipping.report,
    Op.NOTE: clipping.note,
    Op.CLIP: clipping.clip,
    Op.ACCUMULATE: compute.accumulate,
    Op.ADVANCE: compute.advance,
    Op.SEND: defending.send,
    Op.RECEIVE: defending.receive,
    Op.GIVE: handover.give,
    Op.RELAY: handover.relay,
    Op.TAKE: handover.take,
    Op.OWN: copies.own,
    Op.FORK: copies.fork,
    Op.COPY: handover.copy,
    Op.MERGE: copies.merge,
    Op.AVERAGE: copies.average,
    Op.KEEP: copies.keep,
    Op.DROP: copies.drop,
    Op.SCORE: evaluation.score,
    Op.EVALUATE: evaluation.evaluate,
    Op.TELL: evaluation.tell,
    Op.HEAR: evaluation.hear,
    Op.SNAPSHOT: evaluation.snapshot,
}


class Performer:
    """One loop that performs any program, for one party or for several merged.

    An action is turned once into a *runner*, in which everything that the graph says is looked up
    already; a step's runners are kept for the next step of the same shape.

    Args:
        parties: The parties whose actions are performed here, by name.
        meter: What counts the time.

    Attributes:
        acted: Whether one of them did anything since somebody set it back.
    """

    def __init__(self, parties: Mapping[str, LocalParty], meter: Meter) -> None:
        self.parties = parties
        self.acted = False
        self._meter = meter
        # By the template's identity, since hashing its actions in every step would take time; it is kept beside.
        self._known: dict[int, tuple[Template, list[Timed]]] = {}
        self._single: dict[Action, Timed] = {}

    def perform(self, program: Iterable[Action | Step]) -> None:
        """Do every action of one's own parties in order.

        Raises:
            CutlayerError: Whatever went wrong, with party, place and step.
        """
        for item in program:
            if isinstance(item, Step):
                known = self._known.get(id(item.template))
                if known is None:
                    if any(action.step for action in item.template):
                        self._perform_several(item)
                        continue
                    known = self._known[id(item.template)] = item.template, self._runners(item.template)
                if known[1]:
                    self.acted = True
                    _run(known[1], item.step, item.batch)
            elif item.party in self.parties:
                self.acted = True
                _run([self._timed(item)], item.step, "")

    def _perform_several(self, item: Step) -> None:
        """Do a step of several batches; its shape may never come again, so each action's runner is kept by itself."""
        batches, most = item.batches, max(action.step for action in item.template)
        for action in item.template:
            party = self.parties.get(action.party)
            if party is None:
                continue
            self.acted = True
            party.span = max(
                party.span, most + 1
            )  # what it has of each batch is needed until the step is over
            single = action._replace(step=0)
            timed = self._single.get(single)
            if timed is None:
                timed = self._single[single] = self._timed(single)
            _run([timed], item.step + action.step, action.what or batches[action.step])

    def _runners(self, template: Template) -> list[Timed]:
        """Return what one's own parties do in a step of this shape."""
        own = [action for action in template if action.party in self.parties]
        runs = [self._timed(action) for action in own]
        ops = [action.op for action in own]
        if len(self.parties) == 1 and Op.LOAD in ops and Op.RECEIVE in ops[ops.index(Op.LOAD) :]:
            # A party by itself waits for others: time to read the batch that comes next.
            runs.insert(ops.index(Op.RECEIVE, ops.index(Op.LOAD)), self._ahead(own[ops.index(Op.LOAD)]))
        return runs

    def _ahead(self, load: Action) -> Timed:
        """Return the runner that reads ahead; its time is that of loading, but it is no load of its own."""
        count = self._meter.time(load.party, Op.LOAD)
        read = compute.read_ahead(self.parties[load.party], load)

        def run(step: int, what: str) -> None:
            count[0] -= 1
            read(step, what)

        return run, load.what, count

    def _timed(self, action: Action) -> Timed:
        party = self.parties[action.party]
        runner = MAKERS[action.op](party, action)
        if party.shared.instead is not None:
            runner = party.shared.instead(party, action, runner)
        return runner, action.what, self._meter.time(action.party, action.op)


def _run(runs: list[Timed], step: int, batch: str) -> None:
    began = perf_counter_ns()
    for run, what, count in runs:
        run(step, what or batch)
        ended = perf_counter_ns()
        count[0] += 1
        count[1] += ended - began
        began = ended
