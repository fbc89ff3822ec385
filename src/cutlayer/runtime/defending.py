"""A cut's defences at work: around what is sent and received there, and around nothing where there are none.

What leaves in place of an activation is a value of its own in the step, named by the cut; what comes back for it goes
through the defences backwards before it reaches the segment. Penalties are worked out after the frame has left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..data import Records
from ..errors import CutlayerError, DataError
from ..graph.defending import label_field, raw_numbers
from ..graph.parts import Cut, Ref
from ..privacy import Defence, Facts, Moment, Noise
from ..privacy.base import acts
from ..privacy.leaks import measure_leaks
from ..schedules.actions import Action
from ..wire import Kind
from . import crossing
from .blueprint import Crossing
from .compute import total
from .party import Circumstances, Flight, LocalParty, Runner

__all__ = ["receive", "relabelled", "send"]

_MEASURED = 4
"""Batches of an epoch on which it is measured what gradients tell of labels."""
_HELD = "{} as held"


def send(party: LocalParty, action: Action) -> Runner:
    """Send over a cut; see `crossing.send`. First, what leaves is defended."""
    parcel = party.shared.blueprint.parcel(action.what)
    first = parcel[0]
    if first.kind is Kind.GRADIENT:
        return _returning(party, action, first)
    post = _Post(party, first.cut)
    changes, relabels, penalties = post.those("outgoing"), post.those("labelling"), post.those("penalty")
    honest = crossing.send(party, action, (_Shield(first).crossing if changes else first, *parcel[1:]))
    if not (changes or relabels or penalties):
        return honest
    shield = _Shield(first)

    def run(step: int, what: str) -> None:
        flight = party.flight(step)
        if changes:
            shield.raise_(flight, post, changes, step)
        if relabels and flight.training and post.label in flight.fields:
            post.relabel(flight, relabels, step)
        honest(step, what)
        if penalties and flight.training:
            post.penalise(flight, first, penalties, step)

    return run


def receive(party: LocalParty, action: Action) -> Runner:
    """Receive over a cut; see `crossing.receive`. Gradients are then looked at, and go through what left backwards."""
    parcel = party.shared.blueprint.parcel(action.what)
    first = parcel[0]
    post = _Post(party, first.cut)
    changes, looks = post.those("outgoing"), post.those("incoming")
    if first.kind is not Kind.GRADIENT or not (changes or looks):
        return crossing.receive(party, action)
    shield = _Shield(first)
    honest = crossing.receive(party, action, (shield.crossing, *parcel[1:]))
    if not changes:
        honest = crossing.receive(party, action)

    def run(step: int, what: str) -> None:
        honest(step, what)
        flight = party.flight(step)
        refs = shield.crossing.refs if changes else first.refs
        if looks:
            for ref in refs:
                post.look(flight, ref, looks, step)
        if changes:
            shield.lower(flight)

    return run


def relabelled(shared: Circumstances, party: str, records: Mapping[str, Records]) -> Mapping[str, Records]:
    """Return a label holder's records with the training labels that its defences let it train on."""
    graph = shared.blueprint.graph
    role = graph.role_of(party)
    found = dict(records)
    for cut in graph.cuts:
        defences = [d for d in cut.defences if acts(d, "relabelled")]
        label = label_field(graph, cut)
        if not defences or label not in role.fields or "train" not in found:
            continue
        rows = found["train"]
        labels = rows.fields.get(label)
        if not isinstance(labels, Tensor):
            raise DataError(
                f"field {label!r} is read when a batch asks for it, so its labels cannot be drawn once",
                party=party,
                cut=cut.name,
                todo="keep labels in memory, as a tensor",
            )
        for defence in defences:
            noise = Noise(shared.secret(party), "labels", str(defence), label)
            labels = defence.relabelled(labels, noise)
        found["train"] = Records(rows.ids, {**rows.fields, label: labels})
    return found


def _returning(party: LocalParty, action: Action, first: Crossing) -> Runner:
    """Send gradients, changed by what protects labels; on some batches of an epoch it is measured what they tell."""
    honest = crossing.send(party, action)
    post = _Post(party, first.cut)
    changes = post.those("returning")
    graph = party.shared.blueprint.graph
    watched = post.label in graph.roles[first.cut.target].fields and (
        post.label not in graph.roles[first.cut.source].fields
    )
    if not (changes or watched):
        return honest
    meter, facts = party.shared.meter, {}
    if watched:
        facts = meter.facts(party.name, first.cut.backward_name, "label leak")

    def run(step: int, what: str) -> None:
        measures = watched and facts.get("batches", (0.0,))[0] < _MEASURED
        if changes or measures:
            flight = party.flight(step)
            labels = flight.fields.get(post.label)
            for ref, index in zip(first.refs, first.indices, strict=True):
                gradient = total(flight.gradients.pop(ref, None))
                if gradient is None:
                    continue
                for defence, moment in post.moments(flight, changes, step, gradient):
                    gradient = defence.returning(gradient, moment)
                flight.gradients[ref] = [(index, gradient)]
                if measures and labels is not None:
                    measure_leaks(gradient, labels, Facts(facts))
        honest(step, what)

    return run


class _Post:
    """A party's defences at one cut, with what they need."""

    def __init__(self, party: LocalParty, cut: Cut) -> None:
        graph = party.shared.blueprint.graph
        self.party, self.cut = party, cut
        self.label = label_field(graph, cut)
        self.raw = raw_numbers(graph, cut)
        self._secret = party.shared.secret(party.name)
        meter = party.shared.meter
        self._kept = [
            (
                defence,
                Facts(meter.facts(party.name, cut.name, str(defence))),
                f"{cut.name} {place}",
            )
            for place, defence in enumerate(cut.defences)
        ]

    def those(self, method: str) -> list[int]:
        """Return the places of the defences that do anything in ``method``."""
        return [place for place, (defence, _, _) in enumerate(self._kept) if acts(defence, method)]

    def moments(
        self, flight: Flight, places: Sequence[int], step: int, hides: Tensor
    ) -> list[tuple[Defence, Moment]]:
        """Return each of these defences with its batch, and with noise for what it ``hides``."""
        fields = flight.fields
        labels = fields.get(_HELD.format(self.label), fields.get(self.label))
        found = []
        for place in places:
            defence, facts, kept = self._kept[place]
            where = self.cut.name, place, str(defence), step, int(flight.training)
            noise = Noise(self._secret, *where, hides=hides)
            found.append(
                (
                    defence,
                    Moment(
                        party=self.party.name,
                        cut=self.cut.name,
                        step=step,
                        training=flight.training,
                        fields=fields,
                        labels=labels,
                        noise=noise,
                        facts=facts,
                        memory=self.party.kept.setdefault(kept, {}),
                    ),
                )
            )
        return found

    def relabel(self, flight: Flight, places: Sequence[int], step: int) -> None:
        """Put other labels in the place of those that would be sent; the held ones are kept beside."""
        labels = held = flight.fields[self.label]
        for defence, moment in self.moments(flight, places, step, held):
            labels = defence.labelling(labels, moment)
        flight.fields = {**flight.fields, self.label: labels, _HELD.format(self.label): held}

    def penalise(self, flight: Flight, first: Crossing, places: Sequence[int], step: int) -> None:
        """Let penalties join the losses of the segment that sends."""
        inputs = tuple(flight.fields[name] for name in self.raw if name in flight.fields)
        for ref in first.refs:
            value = flight.values[ref]
            if not value.is_floating_point():
                continue
            for defence, moment in self.moments(flight, places, step, value):
                penalty = defence.penalty(inputs, value, moment)
                if penalty is not None and penalty.requires_grad:
                    flight.losses.setdefault(self.cut.producer, []).append((penalty, 1.0))

    def look(self, flight: Flight, ref: Ref, places: Sequence[int], step: int) -> None:
        """Let monitors look at a gradient that came."""
        parts = flight.gradients.pop(ref, None)
        gradient = total(parts)
        if gradient is None or parts is None:
            return
        for defence, moment in self.moments(flight, places, step, gradient):
            try:
                found = defence.incoming(gradient, moment)
            except CutlayerError as error:
                error.sender = error.sender or self.cut.target
                raise
            if found is None:
                return
            gradient = found
        flight.gradients[ref] = [(parts[0][0], gradient)]


class _Shield:
    """What leaves in place of activations: values of their own, and the way back through them."""

    def __init__(self, first: Crossing) -> None:
        self._refs = {ref: Ref(first.cut.name, ref.output) for ref in first.refs}
        self._leaves = {ref: Ref(f"{first.cut.name}/leaf", ref.output) for ref in first.refs}
        self._indices = dict(zip(first.refs, first.indices, strict=True))
        self.crossing = dataclasses.replace(first, refs=tuple(self._refs[ref] for ref in first.refs))

    def raise_(self, flight: Flight, post: _Post, places: Sequence[int], step: int) -> None:
        """Work out what leaves."""
        for ref, shown in self._refs.items():
            value = flight.values[ref].detach()
            if not value.is_floating_point():
                flight.values[shown] = value
                continue
            leaf = value.requires_grad_(flight.training)
            moments = post.moments(flight, places, step, value)
            with torch.set_grad_enabled(flight.training):
                for defence, moment in moments:
                    value = defence.outgoing(value, moment)
            flight.values[shown] = value
            if flight.training:
                flight.values[self._leaves[ref]] = leaf

    def lower(self, flight: Flight) -> None:
        """Bring the gradients that came for what left to what it was made of."""
        for ref, shown in self._refs.items():
            gradient = total(flight.gradients.pop(shown, None))
            leaf, value = flight.values.pop(self._leaves[ref], None), flight.values.pop(shown, None)
            if gradient is None or leaf is None or value is None:
                continue
            (back,) = torch.autograd.grad(value, leaf, gradient)
            flight.gradients.setdefault(ref, []).append((self._indices[ref], back))
