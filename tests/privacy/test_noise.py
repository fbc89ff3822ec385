"""A party's random numbers: the same where all is the same, and others wherever anything differs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cutlayer.privacy import Noise
from cutlayer.privacy.noise import simulated_secret

SECRET = b"a secret of the party"


def test_it_follows_from_secret_place_and_what_it_hides():
    x = torch.randn(8)
    other = x.clone()
    other[0] += 1e-6
    first = Noise(SECRET, "cut", 1, hides=x).doubles(4)
    assert (first == Noise(SECRET, "cut", 1, hides=x.clone()).doubles(4)).all()
    differing = (
        Noise(SECRET, "cut", 1), Noise(SECRET, "cut", 2, hides=x), Noise(b"another", "cut", 1, hides=x),
        Noise(SECRET, "cut", 1, hides=other),
    )  # fmt: skip
    assert all((first != noise.doubles(4)).all() for noise in differing)


@pytest.mark.parametrize(
    "content",
    [torch.tensor(1.5), torch.ones(3, 4).T, torch.zeros(2, dtype=torch.bfloat16), torch.zeros(0, 3)],
)
def test_it_hides_content_of_any_type_and_shape(content):
    drawn = Noise(SECRET, "a", hides=content).doubles(4)
    assert (drawn == Noise(SECRET, "a", hides=content).doubles(4)).all()
    assert (drawn != Noise(SECRET, "b", hides=content).doubles(4)).all()


def test_its_distributions_are_what_they_are_called():
    like, noise = torch.empty(100_001), Noise(SECRET, "moments")
    normal, laplace, uniform = noise.normal(like), noise.laplace(like), noise.uniform(like)
    assert float(normal.mean()) == pytest.approx(0, abs=0.02) and float(normal.std()) == pytest.approx(
        1, rel=0.01
    )
    assert float(laplace.std()) == pytest.approx(math.sqrt(2), rel=0.02)
    assert 0 < float(uniform.min()) < 1e-3 and 1 - 1e-3 < float(uniform.max()) <= 1
    assert sorted(noise.permutation(50).tolist()) == list(range(50))
    assert set(noise.whole(3, 1000).tolist()) == {0, 1, 2}
    assert np.unique(noise.bits(1000)).size == 1000


def test_parties_of_a_simulation_have_secrets_of_their_own():
    assert len({simulated_secret(seed, party) for seed in (0, 1) for party in ("a", "b")}) == 4
