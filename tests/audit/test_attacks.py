"""What holds for every attack: it follows from the seed, and leaves what it is given as it was."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from audited_digits import audited

from cutlayer.audit.attributes import AttributeInference
from cutlayer.audit.base import Attack, Knowledge
from cutlayer.audit.decoding import Decoding, Shadow
from cutlayer.audit.inversion import Inversion
from cutlayer.audit.labels import ActivationClusters, Completion, CosineLabels, GradientClusters, NormLabels
from cutlayer.audit.membership import Membership
from cutlayer.audit.pcat import Pcat
from cutlayer.audit.transcript import Transcript
from cutlayer.audit.unsplit import UnSplit
from cutlayer.audit.unsplit_labels import UnSplitLabels
from cutlayer.errors import StudyError

ATTACKS = [
    Inversion(steps=2, rows=4), Decoding(steps=2, rows=4), Shadow(steps=2, rows=4), UnSplit(rounds=1, steps=2, rows=4),
    Pcat(steps=2, rows=4, each=1, begin=0.95), NormLabels(), CosineLabels(), GradientClusters(), ActivationClusters(),
    UnSplitLabels(steps=2), Completion(steps=2), AttributeInference(steps=2), Membership(),
]  # fmt: skip


def everything(run) -> Knowledge:
    """Return more than any one adversary knows."""
    hints = torch.arange(40)
    return run.known(
        client=run.client, own=run.own, architecture=run.fresh, behind=run.own, hints=hints, hint_labels=hints % 10,
        public_x=run.public_x, public_y=run.public_y, public_attribute=run.public_y % 2,
        candidates_x=run.public_x[:9], candidates_y=run.public_y[:9], rarer_share=0.1,
    )  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.word)
def test_it_follows_from_the_seed_and_changes_nothing_that_it_is_given(attack):
    run = audited()
    known = everything(run)
    seen = run.at_client if attack.sees == "gradient" else run.at_server
    assert attack.misfit(seen, known) is None
    before = {
        n: [p.clone() for p in getattr(known, n).parameters()] for n in ("client", "own", "architecture")
    }
    torch.manual_seed(1)
    one = attack.guess(seen, known, 5)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    two = attack.guess(seen, known, 5)
    assert torch.equal(state, torch.random.get_rng_state())
    for name in ("at", "inputs", "labels", "scores"):
        first, second = getattr(one, name), getattr(two, name)
        assert (first is None) == (second is None)
        assert first is None or torch.equal(first, second)
    for name, parameters in before.items():
        module = getattr(known, name)
        assert all(torch.equal(a, b) for a, b in zip(parameters, module.parameters(), strict=True))
        assert all(p.grad is None for p in module.parameters())
    assert attack.blind(one, known, 5).at is one.at


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.word)
def test_it_says_who_does_it_with_what_and_what_it_lacks(attack):
    assert attack.word and attack.adversary and attack.needs and attack.source
    assert attack.after in ("inputs", "labels", "members", "attribute")
    assert str(attack).partition(":")[0] == attack.word
    assert len({a.word for a in ATTACKS}) == len(ATTACKS)
    nothing, ignorant = Transcript("server"), Knowledge(shape=(1, 8, 8))
    assert attack.misfit(nothing, ignorant)
    with pytest.raises(StudyError, match=f"attack '{attack.word}' cannot be tried"):
        attack.guess(nothing, ignorant, 0)


def test_knowledge_that_cannot_be_is_refused():
    with pytest.raises(StudyError, match="the range of inputs is empty; got 1 to 0"):
        Knowledge(shape=(4,), low=1, high=0)
    with pytest.raises(StudyError, match="leaked_x and leaked_z are of different rows; got 3 and 2 rows"):
        Knowledge(shape=(4,), leaked_x=torch.zeros(3, 4), leaked_z=torch.zeros(2, 4))
    known = Knowledge(shape=(4,), low=0, high=1)
    with pytest.raises(StudyError, match="does not know public_x"):
        known.tensor("public_x")
    with pytest.raises(StudyError, match="does not know client"):
        known.module("client")
    assert known.blind_input().tolist() == [0.5] * 4
    assert known.blind_label() == 0
    commonest = dataclasses.replace(known, public_y=torch.tensor([3, 3, 1]), leaked_x=torch.ones(2, 4))
    assert commonest.blind_label() == 3
    assert commonest.blind_input().tolist() == [1.0] * 4


def test_an_attack_that_is_not_written_says_so():
    run = audited()
    with pytest.raises(StudyError, match="does not say how it guesses"):
        Attack().guess(run.at_server, run.known(), 0)
    assert Attack().misfit(run.at_server, run.known()) is None
    guess = Membership().guess(run.at_server, everything(run), 0)
    with pytest.raises(StudyError, match="what a blind guess is"):
        Attack().blind(guess, run.known(), 0)
