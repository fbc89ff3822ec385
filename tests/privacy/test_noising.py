"""Noise on activations: what is added has the stated law, what leaves is bounded, gradients go through."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cutlayer.errors import StudyError
from cutlayer.privacy import Facts, Moment, Noise, Place
from cutlayer.privacy.noising import GaussianNoise, LaplaceNoise, NoiseOnly, clip_rows

SECRET = bytes(range(32))


def moment(step: int = 0, training: bool = True) -> Moment:
    return Moment(
        party="client",
        cut="head->server",
        step=step,
        training=training,
        fields={},
        labels=None,
        noise=Noise(SECRET, "cut", step),
        facts=Facts(),
        memory={},
    )


def rows(count: int = 256, scale: float = 1.0) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(count, 4, 8, 8) * scale


def kurtosis(sample: torch.Tensor) -> float:
    centred = sample.double() - sample.double().mean()
    return float((centred**4).mean() / (centred**2).mean() ** 2)


@pytest.mark.parametrize(
    ("defence", "deviation", "order", "peak"),
    [
        (GaussianNoise(clip=2.0, noise=1.5), 3.0, 2, 3.0),
        (LaplaceNoise(clip=2.0, noise=1.5), 3.0 * math.sqrt(2), 1, 6.0),
    ],
)
def test_the_noise_really_added_has_the_stated_deviation_and_law(defence, deviation, order, peak):
    now, x = moment(), rows()
    left = defence.outgoing(x, now)
    clipped = clip_rows(x, defence.clip, order, Facts())
    added = (left - clipped).double()
    assert float(added.std()) == pytest.approx(deviation, rel=0.01)
    assert float(added.mean()) == pytest.approx(0, abs=4 * deviation / math.sqrt(added.numel()))
    assert kurtosis(added) == pytest.approx(peak, rel=0.07)
    assert now.facts.read()["deviation added"] == pytest.approx(deviation, rel=0.01)


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=8),
    st.floats(0.01, 100),
    st.sampled_from([1.0, 2.0]),
)
def test_no_row_is_longer_than_the_bound_and_short_ones_stay(values, clip, order):
    x = torch.tensor(values)
    kept = clip_rows(x, clip, order, Facts())
    assert bool((torch.linalg.vector_norm(kept.double(), ord=order, dim=1) <= clip * (1 + 1e-5)).all())
    short = torch.linalg.vector_norm(x, ord=order, dim=1) <= clip
    assert torch.equal(kept[short], x[short])


def test_facts_tell_of_norms_before():
    now = moment()
    x = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    GaussianNoise(clip=1.0, noise=0.0).outgoing(x, now)
    assert now.facts.read() == {"norm before clipping": pytest.approx(2.75), "rows clipped": 0.5}


@pytest.mark.parametrize("order", [1.0, 2.0])
def test_the_gradient_goes_through_clipping(order):
    torch.manual_seed(0)
    x = torch.cat((torch.randn(4, 5).double() * 3, torch.randn(4, 5).double() * 0.01))
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda t: clip_rows(t, 1.0, order, Facts()), (x,))
    zero = torch.zeros(2, 3, requires_grad=True)
    clip_rows(zero, 1.0, order, Facts()).sum().backward()
    assert torch.equal(zero.grad, torch.ones(2, 3))


def test_noise_is_added_in_evaluation_too_and_repeats_only_where_all_repeats():
    defence, x = GaussianNoise(clip=1.0, noise=1.0), rows(8)
    first = defence.outgoing(x, moment(training=False))
    assert torch.equal(first, defence.outgoing(x, moment(training=False)))
    assert not torch.equal(first, defence.outgoing(x, moment(step=1, training=False)))


@pytest.mark.parametrize(("law", "deviation"), [("laplace", 0.5 * math.sqrt(2)), ("gaussian", 0.5)])
def test_noise_alone_neither_clips_nor_promises(law, deviation):
    now, x = moment(), rows(scale=100)
    added = NoiseOnly(scale=0.5, law=law).outgoing(x, now) - x
    assert float(added.std()) == pytest.approx(deviation, rel=0.01)
    assert "differential privacy" in NoiseOnly.leaves
    assert set(now.facts.read()) == {"deviation added"}


def test_wrong_settings_and_places_are_told():
    with pytest.raises(StudyError, match="gaussian: clip cannot be that; got 0; expected a number above 0"):
        GaussianNoise(clip=0, noise=1)
    with pytest.raises(StudyError, match="laplace: noise cannot be that; got -1"):
        LaplaceNoise(clip=1, noise=-1)
    with pytest.raises(StudyError, match="law cannot be that"):
        NoiseOnly(scale=1, law="uniform")
    place = Place(cut="body->tail", shape=(4,), raw=(), labels="target", sent_labels=False, gradient=True)
    assert "no rows" in (GaussianNoise(clip=1, noise=1).misfit(place) or "")
