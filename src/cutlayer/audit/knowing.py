"""What an adversary knows when the training is over, besides what it saw: an audit assumes the worst."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..data import Holdings, Records
from ..graph.parts import Ref
from ..graph.split_graph import SplitGraph
from ..run import Run
from ..seeds import generator
from .base import Knowledge
from .transcript import Sight, Transcript
from .truth import Truth
from .views import View

__all__ = ["Given", "Scene", "known_at"]


@dataclass(frozen=True, kw_only=True)
class Given:
    """How much an audit lets every adversary know besides what it saw.

    Attributes:
        public: Rows like the parties' that are none of theirs, at most.
        leaked: Rows of theirs that leaked.
        hints: Rows of which the label is known.
        candidates: Rows of which it asks whether they were trained on, at most.
    """

    public: int = 1000
    leaked: int = 200
    hints: int = 5
    candidates: int = 500


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A training that was watched by one party, for the auditor.

    Attributes:
        run: What came out.
        holdings: Everybody's data.
        attributed: The same, with the attributes that are asked for as further fields.
        seen: What the party saw.
        truth: The rows behind it.
        given: What it knows besides.
        seed: From which is drawn who leaks what.
    """

    run: Run
    holdings: Holdings
    attributed: Holdings
    seen: Transcript
    truth: Truth
    given: Given
    seed: int


def known_at(scene: Scene, view: View, sights: Sequence[Sight], attribute: str = "") -> Knowledge:
    """Return what the adversary knows: more than it should, since an audit assumes the worst.

    The sender's trained segment, rows that leaked and public rows are given wherever they exist; an attack says which
    of them it needs, and so does the audit's page.

    Args:
        scene: The training.
        view: Who looks where.
        sights: What it is asked about; the rows that leaked are others.
        attribute: The field with the attribute that is asked for, of rows of which it is told; none if empty.
    """
    graph, source = scene.run.graph, scene.run.graph.roles[view.cut.source].parties
    holdings, given = scene.attributed, scene.given
    draw = generator(scene.seed, "audit", view.party, view.where)
    public, others = _held_out(holdings, source, (view.field, view.label, attribute), given, draw)
    low, high = _range(holdings, source, view.field)
    labels = _labels(holdings, view.label)
    classes = int(labels.max()) + 1 if labels is not None and _are_classes(labels) else 0
    spec = graph.roles[view.cut.source].fields.get(view.field)
    sender = _sender(graph, view)
    leaked_z, leaked_x, leaked_attribute = _leaked(view, scene, sights, (view.field, attribute))
    hints, hint_labels = _hints(view, scene, sights, classes)
    candidates_x, candidates_y = _candidates(holdings, source, view, others, given, draw)
    return Knowledge(
        shape=tuple(spec.shape) if spec is not None else (),
        low=low,
        high=high,
        classes=classes,
        rarer_share=_rarer(labels) if classes == 2 else None,
        architecture=copy.deepcopy(graph.segments[sender].module) if sender else None,
        client=scene.run.module(sender) if sender else None,
        behind=_behind(graph, view),
        own=_own(graph, scene.run, view),
        public_x=public[0],
        public_y=public[1],
        public_attribute=public[2],
        leaked_x=leaked_x,
        leaked_z=leaked_z,
        leaked_attribute=leaked_attribute,
        hints=hints,
        hint_labels=hint_labels,
        candidates_x=candidates_x,
        candidates_y=candidates_y,
    )


def _sender(graph: SplitGraph, view: View) -> str:
    """Return the segment that makes what crosses from the raw field alone, if one does."""
    inputs = graph.wiring[view.cut.producer]
    return view.cut.producer if view.field and inputs == (view.field,) else ""


def _own(graph: SplitGraph, run: Run, view: View) -> nn.Module | None:
    """Return the adversary's segment that predicts from what crosses alone, if there is one."""
    name = _predictor(graph, view) if view.kind == "activation" else ""
    return run.module(name) if name else None


def _behind(graph: SplitGraph, view: View) -> nn.Module | None:
    """Return that segment where it is the other side's, with its initial weights, which all know."""
    name = _predictor(graph, view) if view.kind == "gradient" else ""
    return copy.deepcopy(graph.segments[name].module) if name else None


def _predictor(graph: SplitGraph, view: View) -> str:
    """Return the receiver's segment that predicts from what crosses alone; empty if there is none."""
    ref = Ref(view.cut.producer, view.cut.tensors[0])
    predicts = {loss.prediction.partition(":")[0] for loss in graph.losses.values() if not loss.reconstructs}
    for name in graph.consumers(ref):
        if graph.segments[name].role == view.cut.target and graph.wiring[name] == (ref,) and name in predicts:
            return name
    return ""


Pair = tuple[Tensor | None, Tensor | None]
Three = tuple[Tensor | None, Tensor | None, Tensor | None]


def _held_out(
    holdings: Holdings,
    source: tuple[str, ...],
    names: tuple[str, str, str],
    given: Given,
    draw: np.random.Generator,
) -> tuple[Three, Records | None]:
    """Return public rows, their labels and their attribute, and the held-out rows that are left."""
    field, label, attribute = names
    for split in ("test", "valid"):
        parts = [
            p.splits[split] for p in holdings.parties if p.name in source and len(p.splits.get(split, ()))
        ]
        if parts and field and not any(part.lazy for part in parts):
            order = torch.from_numpy(draw.permutation(len(parts[0])))
            count = min(given.public, len(order) // 2)
            chosen, rest = parts[0].select(order[:count]), parts[0].select(order[count:])
            labels, told = (_labels_of(holdings, split, chosen, name) for name in (label, attribute))
            return (_tensor(chosen, field), labels, told), rest
    return (None, None, None), None


def _candidates(
    holdings: Holdings,
    source: tuple[str, ...],
    view: View,
    others: Records | None,
    given: Given,
    draw: np.random.Generator,
) -> Pair:
    """Return rows of which half were trained on, first those, then as many that were not; see `members_among`."""
    trained = [p.splits["train"] for p in holdings.parties if p.name in source and "train" in p.splits]
    if not trained or others is None or view.kind != "activation" or trained[0].lazy:
        return None, None
    count = min(given.candidates // 2, len(others), len(trained[0]))
    own = trained[0].select(torch.from_numpy(draw.permutation(len(trained[0]))[:count]))
    held = others.select(torch.arange(count))
    labels = [
        _labels_of(holdings, split, part, view.label) for split, part in (("train", own), ("test", held))
    ]
    x = [_tensor(part, view.field) for part in (own, held)]
    if any(part is None for part in (*labels, *x)):
        return None, None
    return torch.cat([t for t in x if t is not None]), torch.cat([t for t in labels if t is not None])


def _leaked(view: View, scene: Scene, attacked: Sequence[Sight], names: tuple[str, str]) -> Three:
    """Return what crossed for rows that leaked, and two of their fields: the first rows that the adversary still has.

    None of them is a row that it is asked about.
    """
    if view.kind != "activation" or not any(names):
        return None, None, None
    asked = scene.truth.ids(attacked)
    sights = scene.seen.sights("activation", cut=view.cut.name, tensor=view.cut.tensors[0], training=True)
    kept, others, count = list[Sight](), list[Tensor](), 0
    for sight in sights:
        if count >= scene.given.leaked or sight in attacked:
            break
        kept.append(sight)
        others.append(torch.from_numpy(~np.isin(scene.truth.ids([sight]), asked)))
        count += int(others[-1].sum())
    if not count:
        return None, None, None
    other = torch.cat(others)
    first, second = (scene.truth.rows(kept, name)[other] if name else None for name in names)
    return torch.cat([sight.rows for sight in kept])[other], first, second


def _hints(view: View, scene: Scene, sights: Sequence[Sight], classes: int) -> Pair:
    """Return places of rows whose label is known, as even over the classes as they come."""
    if not sights or not classes or not view.label:
        return None, None
    labels = scene.truth.rows(sights, view.label).reshape(-1).long()
    each = max(1, scene.given.hints // classes)
    places = torch.cat([(labels == value).nonzero()[:each, 0] for value in range(classes)])
    return places, labels[places]


def _range(holdings: Holdings, source: tuple[str, ...], field: str) -> tuple[float, float]:
    for party in holdings.parties:
        rows = party.splits.get("train") if party.name in source else None
        values = rows.fields.get(field) if rows is not None else None
        if isinstance(values, Tensor) and values.is_floating_point():
            low, high = float(values.min()), float(values.max())
            if low < high and (values.ndim > 2 or (low >= 0 and high <= 1)):
                return low, high
    return -math.inf, math.inf


def _labels(holdings: Holdings, label: str) -> Tensor | None:
    for party in holdings.parties:
        rows = party.splits.get("train")
        values = rows.fields.get(label) if rows is not None else None
        if isinstance(values, Tensor):
            return values
    return None


def _labels_of(holdings: Holdings, split: str, rows: Records, label: str) -> Tensor | None:
    """Return the labels of these rows, whoever holds them."""
    if label in rows.fields:
        return _tensor(rows, label)
    for party in holdings.parties:
        own = party.splits.get(split)
        if own is not None and label in own.fields and set(rows.ids) <= set(own.ids):
            return _tensor(own.select(own.rows_of(rows.ids)), label)
    return None


def _tensor(rows: Records, field: str) -> Tensor | None:
    values = rows.fields.get(field)
    return values if isinstance(values, Tensor) else None


def _are_classes(labels: Tensor) -> bool:
    whole = labels.float()
    return labels.numel() == len(labels) and torch.equal(whole, whole.round()) and float(whole.min()) >= 0


def _rarer(labels: Tensor | None) -> float | None:
    """Return the share of the rarer of two classes."""
    if labels is None:
        return None
    share = float(labels.float().mean())
    return min(share, 1 - share)
