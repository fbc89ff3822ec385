"""Words and shares of verdicts: what luck reaches with so few rows counts for nothing."""

from __future__ import annotations

import pytest

from cutlayer.audit.findings import Finding
from cutlayer.audit.verdicts import verdicts


def found(score: float, luck: float | None, seed: int = 0) -> Finding:
    return Finding(
        setting="as it is", seed=seed, party="client", cut="top<-client", attack="norm", after="labels", rows=64,
        scores={"leak_auc": score}, blind={"leak_auc": 0.5}, chance={} if luck is None else {"leak_auc": luck},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "luck", "word", "share"),
    [
        ([0.64], 0.68, "no more than a guess", 0.0),
        ([0.64], None, "something", 0.28),
        ([0.64], 0.6, "something", 0.28),
        ([0.95], 0.68, "nearly everything", 0.9),
        ([0.64] * 4, 0.68, "something", 0.28),
        ([0.3], 0.68, "no more than a guess", 0.0),
    ],
)
def test_what_luck_reaches_is_no_more_than_a_guess(scores, luck, word, share):
    (verdict,) = verdicts(found(score, luck, seed) for seed, score in enumerate(scores))
    assert verdict.word == word
    assert verdict.share == pytest.approx(share)
    assert verdict.blind == 0.5
    reached = 0.5 if luck is None else 0.5 + (luck - 0.5) / len(scores) ** 0.5
    assert verdict.chance == pytest.approx(reached)
