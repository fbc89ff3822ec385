"""Who of a study could look where."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph.defending import label_field, raw_numbers
from ..graph.parts import Cut
from ..graph.split_graph import SplitGraph
from .transcript import Sight, Transcript

__all__ = ["View", "last_seen", "views"]


@dataclass(frozen=True, kw_only=True)
class View:
    """One party that could look at one cut.

    Attributes:
        party: The adversary.
        cut: The cut.
        kind: What it sees there: ``"activation"`` or ``"gradient"``.
        field: The raw field that what crosses is made of, where it is one alone.
        label: The label of the loss behind the cut.
        has_labels: Whether the adversary has them anyway.
    """

    party: str
    cut: Cut
    kind: str
    field: str
    label: str
    has_labels: bool

    @property
    def where(self) -> str:
        """The name of the frames it sees."""
        return self.cut.name if self.kind == "activation" else self.cut.backward_name


def views(graph: SplitGraph) -> list[View]:
    """Return who could look where: the first party of each role that receives something over a cut."""
    found = []
    for cut in graph.cuts:
        if cut.kind != "activation":
            continue
        fields, label = raw_numbers(graph, cut), label_field(graph, cut)
        shared = {(share.field, share.target) for share in graph.shares}
        for kind, role in (("activation", cut.target), ("gradient", cut.source)):
            has = label in graph.roles[role].fields or (label, role) in shared
            if (kind == "gradient" and not cut.has_gradient) or (
                has and not (kind == "activation" and fields)
            ):
                continue  # nothing comes there, or it has what there is to find out
            found.append(
                View(
                    party=graph.roles[role].parties[0],
                    cut=cut,
                    kind=kind,
                    field=fields[0] if len(fields) == 1 else "",
                    label=label,
                    has_labels=has,
                )
            )
    return found


def last_seen(view: View, seen: Transcript, rows: int) -> tuple[Transcript, list[Sight]]:
    """Return what the adversary saw of the last training rows at its cut, at least ``rows`` if there are so many.

    Beside gradients stands what it had sent for them.
    """
    found = seen.sights(view.kind, cut=view.cut.name, tensor=view.cut.tensors[0], training=True)
    kept, count = list[Sight](), 0
    for sight in reversed(found):
        if count >= rows:
            break
        kept.insert(0, sight)
        count += len(sight.rows)
    part = Transcript(seen.party, max(seen.most, count))
    steps = {sight.step for sight in kept}
    sent = seen.sights("activation", cut=view.cut.name, training=True) if view.kind == "gradient" else []
    for sight in seen.sights(training=True):
        if sight in kept or (sight.step in steps and (sight.kind in ("own", "label") or sight in sent)):
            part.keep(sight)
    part.states = seen.states
    return part, kept
