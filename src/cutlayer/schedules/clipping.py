"""Clipping by the norm of the whole network's gradient: parties exchange one number each."""

from __future__ import annotations

from ..graph.remembering import remembered
from ..graph.split_graph import SplitGraph
from .actions import Action, Op
from .steps import Step, Template

__all__ = ["clipped"]


def clipped(graph: SplitGraph, step: Step, bound: float) -> Step:
    """Return ``step`` with its gradients scaled, before any optimizer steps, to a norm of at most ``bound``.

    Each party tells the sum of squares of its gradients to the one that computes the graph's first loss, which
    tells everyone the norm of all. Where several parties compute that loss, each for its own rows, a party that
    serves them all does so instead, if there is one. Copies of a state count as parameters of their own.
    """
    return step._replace(template=_template(graph, step.template, bound))


@remembered(4096)
def _template(graph: SplitGraph, template: Template, bound: float) -> Template:
    steps = [action for action in template if action.op is Op.STEP]
    rest = [action for action in template if action.op is not Op.STEP]
    last = max(action.step for action in template)
    holders = list(dict.fromkeys(action.party for action in steps))
    judge = _judge(graph, template)
    others = [party for party in holders if party != judge]
    for party in others:
        rest.append(Action(last, party, Op.REPORT, "squares", judge))
        rest.append(Action(last, judge, Op.NOTE, "squares", party))
    for party in others:
        rest.append(Action(last, judge, Op.REPORT, "norm", party))
        rest.append(Action(last, party, Op.NOTE, "norm", judge))
    rest += [Action(last, party, Op.CLIP, f"{bound:g}") for party in holders]
    return (*rest, *steps)


def _judge(graph: SplitGraph, template: Template) -> str:
    """Return the party that works out the norm."""
    acting = {action.party for action in template}
    first, *others = [p for p in graph.roles[graph.label_roles[0]].parties if p in acting]
    serving = [role.parties[0] for role in graph.roles.values() if len(role.parties) == 1] if others else []
    return next((party for party in serving if party in acting), first)
