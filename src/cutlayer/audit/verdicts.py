"""From findings to words and tables: how much each attack got, beside a blind guess, in each setting."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .findings import Finding, Trained

__all__ = ["AFTER", "Verdict", "main_measure", "spread", "verdicts", "worst"]

AFTER = {
    "inputs": "reconstruct records",
    "labels": "find out labels",
    "members": "find out who was trained on",
    "attribute": "find out a private attribute",
}
_MEASURES = {
    "inputs": ("ssim", "r2", "distance_correlation_corrected"),
    "labels": ("leak_auc", "label_accuracy", "purity"),
    "members": ("leak_auc",),
    "attribute": ("label_accuracy",),
}
_NAMES = {
    "ssim": "SSIM",
    "r2": "R²",
    "leak_auc": "leak AUC",
    "label_accuracy": "accuracy",
    "purity": "purity of groups",
    "distance_correlation_corrected": "distance correlation (corrected)",
}
_WORDS = (
    (0.75, "nearly everything"),
    (0.4, "much"),
    (0.15, "something"),
    (0.01, "hardly more than a guess"),
    (float("-inf"), "no more than a guess"),
)
"""From which share of the way from a blind guess to the whole truth on a word is used."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one attack got in one setting, over all seeds.

    Attributes:
        setting: The setting.
        party: The adversary.
        cut: Where it looked.
        attack: The attack.
        after: What it was after.
        measure: The main measure's name.
        score: Its mean over the seeds.
        deviation: Its standard deviation over the seeds; 0 with one.
        blind: What a guess gets that saw nothing, the mean over the seeds.
        chance: What the attack's guesses get by luck, once in twenty; what is not above it counts for nothing.
        share: How far it got from a blind guess to all there is, 0 to 1.
        word: The same in words.
        seeds: How many.
        rows: Rows attacked in each.
        others: The other measures, by name: mean and blind.
        notes: What was noted.
        pictures: Of the first seed.
    """

    setting: str
    party: str
    cut: str
    attack: str
    after: str
    measure: str
    score: float
    deviation: float
    blind: float
    chance: float
    share: float
    word: str
    seeds: int
    rows: int
    others: dict[str, tuple[float, float]]
    notes: tuple[str, ...]
    pictures: dict[str, str]

    @property
    def name(self) -> str:
        """The attack without its settings, but with the attribute that it is after."""
        word, _, settings = self.attack.partition(":")
        attribute = settings.partition(",")[0].removeprefix("of=") if self.after == "attribute" else ""
        return f"{word} {attribute}" if attribute else word


def verdicts(found: Iterable[Finding]) -> list[Verdict]:
    """Return a verdict for each attack, party, cut and setting of which something came out."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for one in found:
        if not one.skipped and one.scores:
            groups.setdefault((one.setting, one.party, one.cut, one.attack), []).append(one)
    return [_verdict(group) for group in groups.values()]


def main_measure(after: str, scores: Iterable[str]) -> str:
    """Return the name of the measure by which an attack is judged first."""
    known = set(scores)
    return next((name for name in _MEASURES.get(after, ()) if name in known), next(iter(known), ""))


def worst(all_: Sequence[Verdict], setting: str, party: str, after: str) -> Verdict | None:
    """Return the attack that got furthest."""
    fitting = [v for v in all_ if (v.setting, v.party, v.after) == (setting, party, after)]
    return max(fitting, key=lambda verdict: verdict.share, default=None)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation; the latter is 0 of one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def metric_of(trained: Sequence[Trained]) -> str:
    """Return the name of the metric by which the task is judged first."""
    known = dict.fromkeys(name for one in trained for name in one.metrics)
    return next((name for name in ("accuracy", "auc", "r2", "loss") if name in known), "")


def _verdict(group: Sequence[Finding]) -> Verdict:
    first = group[0]
    measure = main_measure(first.after, set.intersection(*(set(one.scores) for one in group)))
    score, deviation = spread([one.scores[measure] for one in group])
    blind = statistics.fmean([one.blind.get(measure, 0.0) for one in group])
    luck = statistics.fmean([one.chance.get(measure, blind) for one in group])
    chance = blind + (luck - blind) / math.sqrt(
        len(group)
    )  # luck of several seeds is less, as that of any mean
    share = min(1.0, max(0.0, (score - blind) / (1 - blind))) if score > chance and blind < 1 else 0.0
    others = {
        name: (
            statistics.fmean([one.scores[name] for one in group if name in one.scores]),
            statistics.fmean([one.blind.get(name, float("nan")) for one in group]),
        )
        for name in first.scores
        if name != measure
    }
    return Verdict(
        setting=first.setting,
        party=first.party,
        cut=first.cut,
        attack=first.attack,
        after=first.after,
        measure=_NAMES.get(measure, measure),
        score=score,
        deviation=deviation,
        blind=blind,
        chance=chance,
        share=share,
        word=next(word for least, word in _WORDS if share >= least),
        seeds=len(group),
        rows=first.rows,
        others=others,
        notes=tuple(dict.fromkeys(one.note for one in group if one.note)),
        pictures=dict(first.pictures),
    )
