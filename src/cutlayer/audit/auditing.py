"""An audit: train as the study says, let parties attack what they really saw, and judge what they got.

A training gives the same bits each time, so an audit of a run sees what the parties of that run saw, and one that was
broken off goes on where it stood.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Holdings
from ..data.pool import Pool
from ..errors import AlarmError, CutlayerError
from ..graph.defending import defences_text
from ..graph.parts import Cut
from ..metering.events import Computed, Traffic
from ..metering.protection import by_epoch
from ..run import Run
from ..study import Study
from .base import Attack, Guess, Knowledge
from .columns import Attribute, Attributes
from .findings import Finding, Findings, Trained
from .hijacking import Hijacker, Hijacking
from .knowing import Given, Scene, known_at
from .pictures import save_pictures
from .scores import independent_classifier, reached_by_chance, score_inputs, score_labels
from .transcript import Sight, together, watch
from .truth import Truth
from .views import View, last_seen, views

__all__ = ["Audit", "Plan", "Setting", "labels_of"]

Told = Callable[[int, int, str], None]
"""Called with how many of the trainings and attacks are done, how many there are, and what is done now."""

_JUDGED = 5000
_STATES, _STATES_BYTES = 100, 200_000_000
_HIJACK = "hijacking"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way to train that is attacked: with or without defences, cut here or there.

    Attributes:
        name: In words, unique in an audit.
        build: Returns study and data for a seed.
        cut: Where the network is cut, in words.
    """

    name: str
    build: Callable[[int], tuple[Study, Holdings]]
    cut: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an audit does.

    Attributes:
        settings: Which trainings.
        attacks: What is tried on each, wherever it fits.
        seeds: Each training is done with each.
        rows: How many of the rows that an adversary saw last it attacks.
        given: What it knows besides.
        hijacking: How a dishonest server steers the clients, in a training of its own; None: that is not tried.
        pool: All rows before they were dealt, where they have columns that may be asked for as attributes.
    """

    settings: Sequence[Setting]
    attacks: Sequence[Attack]
    seeds: Sequence[int] = (0,)
    rows: int = 64
    given: Given = field(default_factory=Given)
    hijacking: Hijacking | None = None
    pool: Pool | None = None


class Audit:
    """Carries a plan out.

    Args:
        plan: What to do.
        findings: Where to keep what is found; what is there is not done again.
        told: Told how far it is.
    """

    def __init__(self, plan: Plan, findings: Findings, told: Told | None = None) -> None:
        self._plan, self._findings, self._told = plan, findings, told
        self._done, self._all = 0, 0

    def run(self) -> Findings:
        """Do what is not done yet; return all findings."""
        plan = self._plan
        for setting in plan.settings:
            for seed in plan.seeds:
                study, holdings = setting.build(seed)
                wanted = list(self._wanted(study))
                if not self._all:
                    self._all = len(plan.settings) * len(plan.seeds) * (1 + len(wanted))
                new = [one for one in wanted if self._key(setting, seed, *one) not in self._findings]
                self._done += len(wanted) - len(new)
                if new or ("trained", setting.name, seed) not in self._findings:
                    self._attack(setting, seed, study, holdings, new)
                else:
                    self._done += 1
        self._tell("done")
        return self._findings

    def _wanted(self, study: Study) -> Iterator[tuple[View, Attack | str]]:
        for view in views(study.graph):
            for attack in self._plan.attacks:
                if (attack.sees == "gradient") is (view.kind == "gradient"):
                    yield view, attack
            if self._plan.hijacking is not None and view.kind == "activation" and view.field:
                yield view, _HIJACK

    def _key(self, setting: Setting, seed: int, view: View, attack: Attack | str) -> tuple[object, ...]:
        return ("finding", setting.name, seed, view.party, view.where, str(attack))

    def _tell(self, what: str) -> None:
        if self._told is not None:
            self._told(self._done, self._all, what)

    def _attack(
        self,
        setting: Setting,
        seed: int,
        study: Study,
        holdings: Holdings,
        wanted: list[tuple[View, Attack | str]],
    ) -> None:
        """Train once and try everything on it."""
        attributes = Attributes(holdings, self._plan.attacks, labels_of(study), self._plan.pool)
        self._tell(f"{setting.name}, seed {seed}: training")
        parties = dict.fromkeys(view.party for view in views(study.graph))
        most = self._plan.rows + self._plan.given.leaked + 4 * study.batch_size
        every_step = _states_every(study, holdings)
        watched = {party: watch(party, most=most, states_every=every_step) for party in parties}
        truths = {party: Truth(attributes.holdings, seen) for party, (seen, _) in watched.items()}
        every = [*(each for _, each in watched.values()), *(truth.instead for truth in truths.values())]
        began = time.perf_counter()
        run = study.simulate(holdings, instead=together(*every))
        self._findings.add(_trained(setting, seed, study, run, time.perf_counter() - began))
        self._done += 1
        judge = _judge(holdings, study, seed)
        for view, attack in wanted:
            seen, _ = watched[view.party]
            scene = Scene(
                run=run,
                holdings=holdings,
                attributed=attributes.holdings,
                seen=seen,
                truth=truths[view.party],
                given=self._plan.given,
                seed=seed,
            )
            self._tell(f"{setting.name}, seed {seed}: {attack} by {view.party}")
            trial = _Trial(setting, seed, view, scene, judge, self._plan.rows, self._findings)
            if isinstance(attack, Attack):
                self._findings.add(trial.passive(attack, attributes.after(attack)))
            elif self._plan.hijacking is not None:
                self._findings.add(trial.active(study, self._plan.hijacking))
            self._done += 1


class _Trial:
    """One attack on one training."""

    def __init__(
        self, setting: Setting, seed: int, view: View, scene: Scene, judge: nn.Module | None, rows: int,
        findings: Findings,
    ) -> None:  # fmt: skip
        self._setting, self._seed, self._view, self._scene = setting, seed, view, scene
        self._judge, self._rows, self._findings = judge, rows, findings

    def passive(self, attack: Attack, asked: Attribute | str = "") -> Finding:
        """Let a curious party guess; about the attribute that is asked for, if the attack is after one.

        Args:
            attack: The attack.
            asked: The attribute; why there is none, if the attack is after one.
        """
        part, sights = last_seen(self._view, self._scene.seen, self._rows)
        field = asked.field if isinstance(asked, Attribute) else ""
        known = known_at(self._scene, self._view, sights, field)
        if why := (asked if isinstance(asked, str) else "") or attack.misfit(part, known):
            return self._finding(str(attack), attack.after, skipped=why)
        if attack.after == "labels" and self._view.has_labels:
            return self._finding(str(attack), attack.after, skipped="this party has the labels anyway")
        began = time.perf_counter()
        try:
            guess = attack.guess(part, known, self._seed)
        except CutlayerError as error:
            return self._finding(str(attack), attack.after, skipped=error.what)
        blind = attack.blind(guess, known, self._seed)
        took = time.perf_counter() - began
        if isinstance(asked, Attribute):
            guess = dataclasses.replace(guess, note=asked.words)
        return self._judged(str(attack), attack.after, guess, blind, sights, known, took, field)

    def active(self, study: Study, how: Hijacking) -> Finding:
        """Let a dishonest server steer the clients, in a training of its own."""
        party, cut = self._view.party, self._view.cut
        _, sights = last_seen(self._view, self._scene.seen, self._rows)
        known = known_at(self._scene, self._view, sights)
        if known.public_x is None or not cut.has_gradient:
            return self._finding(
                _HIJACK, "inputs", skipped="no rows like the clients' are at hand to train on"
            )
        seen, watching = watch(party, most=self._scene.seen.most)
        truth = Truth(self._scene.holdings, seen)
        hijacker = Hijacker(known.public_x, how)
        began, note = time.perf_counter(), ""
        try:
            study.simulate(self._scene.holdings, instead=together(hijacker, watching, truth.instead))
        except AlarmError as alarm:
            note = f"noticed: {alarm}"
        except CutlayerError as error:
            note = f"the training broke: {error}"
        _, sights = last_seen(self._view, seen, self._rows)
        if not sights or not hijacker.steps:
            return self._finding(_HIJACK, "inputs", skipped=note or "nothing was seen")
        activation = torch.cat([sight.rows for sight in sights])
        places = torch.arange(len(activation))
        guess = Guess(at=places, inputs=hijacker.reconstruct(activation), note=note)
        mean = known.public_x.mean(0, keepdim=True).expand(len(places), *known.public_x.shape[1:])
        blind = Guess(at=places, inputs=mean)
        scene = dataclasses.replace(self._scene, seen=seen, truth=truth)
        hijacked = _Trial(
            self._setting, self._seed, self._view, scene, self._judge, self._rows, self._findings
        )
        took = time.perf_counter() - began
        return hijacked._judged(_HIJACK, "inputs", guess, blind, sights, known, took)

    def _judged(
        self, attack: str, after: str, guess: Guess, blind: Guess, sights: list[Sight], known: Knowledge, took: float,
        attribute: str = "",
    ) -> Finding:  # fmt: skip
        view, truth, pictures, chance = self._view, self._scene.truth, {}, {}
        if after == "inputs":
            rows = truth.rows(sights, view.field)[guess.at]
            labels = truth.rows(sights, view.label)[guess.at].reshape(-1).long() if known.classes else None
            scores, guessed = (
                score_inputs(
                    one.inputs, rows, low=known.low, high=known.high, labels=labels, judge=self._judge
                )
                for one in (guess, blind)
                if one.inputs is not None
            )
            if guess.inputs is not None:
                name = f"{self._setting.name}-{self._seed}-{view.party}-{attack}"
                pictures = save_pictures(
                    self._findings.folder, name, rows, guess.inputs, known.low, known.high
                )
        else:
            right = self._right(after, guess, sights, known, attribute)
            positive = None if after == "labels" else 1
            scores, guessed = (
                score_labels(one.labels, one.scores, right, positive) for one in (guess, blind)
            )
            chance = reached_by_chance(guess.labels, guess.scores, right, positive, seed=self._seed)
        return self._finding(
            attack, after, scores=scores, blind=guessed, chance=chance, rows=len(guess.at), note=guess.note,
            seconds=took, pictures=pictures,
        )  # fmt: skip

    def _right(
        self, after: str, guess: Guess, sights: list[Sight], known: Knowledge, attribute: str
    ) -> Tensor:
        """Return what the attack should have found for the rows that it speaks of."""
        if after == "members" and known.candidates_x is not None:
            half = len(known.candidates_x) // 2
            return (torch.arange(len(known.candidates_x)) < half).long()[guess.at]
        return self._scene.truth.rows(sights, attribute or self._view.label)[guess.at].reshape(-1).long()

    def _finding(self, attack: str, after: str, **more: Any) -> Finding:
        found = Finding(
            setting=self._setting.name,
            seed=self._seed,
            party=self._view.party,
            cut=self._view.where,
            attack=attack,
            after=after,
        )
        return dataclasses.replace(found, **more)


def labels_of(study: Study) -> list[str]:
    """Return the fields that the study learns to predict, which no attack takes for a private attribute."""
    return [loss.target for loss in study.graph.losses.values() if not loss.reconstructs]


def _states_every(study: Study, holdings: Holdings) -> int:
    """Return after how many steps an adversary keeps its own weights: a hundred times, or as often as there is room."""
    rows = max((len(p.splits["train"]) for p in holdings.parties if "train" in p.splits), default=0)
    steps = study.epochs * -(-rows // study.batch_size) * len(study.graph.turns)
    size = sum(t.nbytes for s in study.graph.segments.values() for t in s.module.state_dict().values())
    most = min(_STATES, _STATES_BYTES // max(int(size), 1))
    return int(max(1, steps // max(1, most)))


def _trained(setting: Setting, seed: int, study: Study, run: Run, took: float) -> Trained:
    raw = {cut.source for cut in study.graph.cuts if _sends_raw(study, cut)}
    holders = {party for role in raw for party in study.graph.roles[role].parties}
    measured = {
        f"{what}: {name}": values[max(values)] for (_, _, what, name), values in by_epoch(run.events).items()
    }
    try:
        metrics = run.metrics("test")
    except CutlayerError:
        metrics = {}
    return Trained(
        setting=setting.name,
        seed=seed,
        defences=defences_text(study.graph.cuts),
        cut=setting.cut,
        metrics=metrics,
        bytes=sum(e.frame_bytes for e in run.events if isinstance(e, Traffic)),
        client_flops=sum(e.flops for e in run.events if isinstance(e, Computed) and e.party in holders),
        seconds=took,
        guarantees="; ".join(study.promises()),
        measured={name: value for name, value in measured.items() if not name.endswith("batches")},
    )


def _sends_raw(study: Study, cut: Cut) -> bool:
    return any(view.field for view in views(study.graph) if view.cut == cut)


def _judge(holdings: Holdings, study: Study, seed: int) -> nn.Module | None:
    """Return a classifier of raw rows that no party has, trained on what the auditor knows; None without classes."""
    for view in views(study.graph):
        for party in holdings.parties:
            rows = party.splits.get("train")
            if rows is None or rows.lazy or not {view.field, view.label} <= set(rows.fields):
                continue
            few = rows.select(torch.arange(min(len(rows), _JUDGED)))
            x, y = few.fields[view.field], few.fields[view.label]
            if (
                isinstance(x, Tensor)
                and isinstance(y, Tensor)
                and y.numel() == len(y)
                and not y.is_floating_point()
            ):
                return independent_classifier(x, y.reshape(-1), int(y.max()) + 1, seed)
    return None
