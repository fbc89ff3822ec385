"""Marvell's noise: as little as a general solver finds, of the covariance that it says, and as hiding as it says."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import nn

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.metering.events import Defended
from cutlayer.privacy import Facts, Moment, Noise, Place, defence_of
from cutlayer.privacy.leaks import cosine_leak, norm_leak
from cutlayer.privacy.marvell import Classes, Marvell, Variances, least_noise, sum_of_divergences

NONE = Variances(first_along=0.0, first_across=0.0, second_along=0.0, second_across=0.0)


def moment(labels, step=0):
    return Moment(
        party="server", cut="head->server", step=step, training=True, fields={}, labels=labels,
        noise=Noise(b"the label holder's secret", step), facts=Facts(), memory={},
    )  # fmt: skip


def numbers(noise):
    return [getattr(noise, field.name) for field in dataclasses.fields(noise)]


def batch(rows=1000, share=0.16, width=8):
    generator = torch.Generator().manual_seed(0)
    classes = (torch.arange(rows) < share * rows).long()
    direction = torch.nn.functional.normalize(torch.rand(width, generator=generator), dim=0)
    wrong = torch.where(classes == 1, -0.85, 0.15)[:, None]
    spread = torch.where(classes == 1, 0.06, 0.02)[:, None]
    return wrong * direction + spread * torch.randn(rows, width, generator=generator), classes


some = st.builds(
    Classes,
    share=st.floats(0.02, 0.98),
    first=st.floats(1e-3, 3),
    second=st.floats(1e-3, 3),
    gap=st.floats(0.01, 30),
    width=st.integers(1, 200),
)


@settings(deadline=None, max_examples=60)
@given(of=some, error=st.floats(0.05, 0.48))
def test_the_goal_is_met_exactly_or_without_noise(of, error):
    most = (2 - 4 * error) ** 2
    found = least_noise(of, most)
    reached = sum_of_divergences(of, found)
    if sum_of_divergences(of, NONE) <= most:
        assert found == NONE
    else:
        assert reached == pytest.approx(most, rel=1e-5)
    assert min(numbers(found)) >= 0
    assert found.first_across <= found.first_along * (1 + 1e-9) + 1e-9
    assert found.second_across <= found.second_along * (1 + 1e-9) + 1e-9


@settings(deadline=None, max_examples=15)
@given(of=some, error=st.floats(0.1, 0.45))
def test_a_general_solver_finds_no_less(of, error):
    most = (2 - 4 * error) ** 2
    found = least_noise(of, most)
    if found == NONE:
        return
    best, unit = found.power(of), max(of.first, of.second, of.gap)

    def noise(logs):
        return Variances(
            **dict(
                zip(
                    [f.name for f in dataclasses.fields(Variances)],
                    unit * np.exp(np.clip(logs, -40, 12)),
                    strict=True,
                )
            )
        )

    for seed in range(3):
        start = np.random.default_rng(seed).normal(0, 1.5, 4)
        other = minimize(
            lambda logs: math.log(noise(logs).power(of)), start, method="SLSQP",
            constraints={"type": "ineq", "fun": lambda logs: 1 - sum_of_divergences(of, noise(logs)) / most},
        )  # fmt: skip
        if other.success and sum_of_divergences(of, noise(other.x)) <= most * (1 + 1e-6):
            assert noise(other.x).power(of) >= best * (1 - 1e-4)


def test_a_grid_holds_nothing_better():
    of = Classes(share=0.2, first=0.3, second=1.0, gap=2.0, width=6)
    most = 0.36
    found = least_noise(of, most)
    steps = np.geomspace(0.02, 20, 45)
    a1, b1, a2, b2 = np.meshgrid(steps, steps, [0.0, *steps], [0.0, *steps], indexing="ij", sparse=True)
    first, across, second, over = a1 + of.first, a2 + of.first, b1 + of.second, b2 + of.second
    along = (first + of.gap) / second + (second + of.gap) / first - 2
    divergence = ((of.width - 1) * (across / over + over / across - 2) + along) / 2
    power = (1 - of.share) * (a1 + (of.width - 1) * a2) + of.share * (b1 + (of.width - 1) * b2)
    best = float(np.min(np.where(divergence <= most, power, np.inf)))
    assert found.power(of) <= best <= 1.1 * found.power(of)


def test_the_divergence_is_that_of_two_normal_distributions():
    of = Classes(share=0.3, first=0.2, second=0.5, gap=1.7, width=4)
    noise = Variances(first_along=0.9, first_across=0.1, second_along=1.3, second_across=0.3)
    means = torch.zeros(4, dtype=torch.float64), torch.tensor([of.gap**0.5, 0, 0, 0], dtype=torch.float64)
    spreads = [
        torch.diag(torch.tensor([along + own, *([across + own] * 3)], dtype=torch.float64))
        for along, across, own in ((0.9, 0.1, 0.2), (1.3, 0.3, 0.5))
    ]
    p, q = (torch.distributions.MultivariateNormal(m, s) for m, s in zip(means, spreads, strict=True))
    by_torch = torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)
    assert sum_of_divergences(of, noise) == pytest.approx(float(by_torch))


def test_the_noise_has_the_covariance_that_the_solver_says():
    gradient, classes = batch(rows=100, width=3)
    gradient = gradient.double()
    first, second = gradient[classes == 0], gradient[classes == 1]
    gap = second.mean(0) - first.mean(0)
    between = gap / gap.norm()
    of = Classes(
        share=float(classes.double().mean()),
        first=float(first.var(0, correction=0).mean()),
        second=float(second.var(0, correction=0).mean()),
        gap=float(gap.square().sum()),
        width=3,
    )
    found = least_noise(of, (2 - 4 * 0.4) ** 2)
    drawn = torch.stack([Marvell().returning(gradient, moment(classes, s)) - gradient for s in range(300)])
    onto = torch.outer(between, between)
    for which, along, across in (
        (0, found.first_along, found.first_across),
        (1, found.second_along, found.second_across),
    ):
        rows = drawn[:, classes == which].reshape(-1, 3)
        said = along * onto + across * (torch.eye(3) - onto)
        torch.testing.assert_close(rows.T @ rows / len(rows), said, rtol=0, atol=0.06 * max(along, across))
        torch.testing.assert_close(rows.mean(0), torch.zeros(3).double(), rtol=0, atol=0.05 * along**0.5)


def test_norm_and_cosine_tell_no_more_than_the_bound():
    gradient, classes = batch()
    assert norm_leak(gradient, classes) > 0.99
    assert cosine_leak(gradient, classes) > 0.99
    for error, bound in ((0.3, 0.82), (0.4, 0.68), (0.45, 0.595)):
        now = moment(classes)
        noisy = Marvell(error=error).returning(gradient, now)
        assert norm_leak(noisy, classes) < bound + 0.03
        assert 1 - norm_leak(noisy, classes) < bound + 0.03
        facts = now.facts.read()
        assert facts["sum of divergences"] == pytest.approx((2 - 4 * error) ** 2, rel=1e-4)
        assert facts["noise to gradient, squared"] > 1


def test_batches_of_one_class_get_noise_along_their_rows():
    gradient, now = torch.randn(20, 3), moment(torch.zeros(20, 1))
    noisy = Marvell().returning(gradient, now)
    assert now.facts.read()["batches of one class"] == 1
    assert not torch.equal(noisy, gradient)
    alone = torch.tensor([0, 1])  # one row of each class: no variance to speak of
    assert torch.isfinite(Marvell().returning(torch.randn(2, 3), moment(alone))).all()
    assert torch.equal(Marvell().returning(torch.zeros(2, 3), moment(alone)), torch.zeros(2, 3))


@pytest.mark.parametrize("shape", [(6, 1), (6, 2, 3)])
def test_shapes_and_types_stay(shape):
    found = Marvell().returning(torch.randn(shape), moment(torch.tensor([0, 1, 0, 1, 1, 0.0])))
    assert found.shape == shape and found.dtype == torch.float32


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        (None, "no labels"),
        (torch.arange(6), "labels"),
        (torch.rand(6), "labels"),
        (torch.tensor([0, 1]), "labels"),
    ],
)
def test_labels_of_other_kinds_are_refused(labels, got):
    with pytest.raises(StudyError, match=rf"server, cut head->server, step 0: .*got {got}.*max-norm"):
        Marvell().returning(torch.randn(6, 2), moment(labels))


def test_settings_are_checked():
    assert defence_of("marvell:0.3") == Marvell(error=0.3)
    for error in (0, 0.5, 1, "much", -0.1, float("nan")):
        with pytest.raises(StudyError, match="marvell: error cannot be that"):
            Marvell(error=error)
    place = Place(cut="a->b", shape=(4,), raw=(), labels="", sent_labels=False, gradient=True)
    assert "does not hold the labels" in Marvell().misfit(place)
    assert Marvell().misfit(dataclasses.replace(place, labels="target")) is None


def test_a_run_with_it_leaks_less_and_tells_what_it_reached():
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] + x[:, 1] > 1.6).float()
    people = cl.data.arrays(x.numpy(), y.numpy()[:, None]).split({"client": "*"}, labels="server")
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    study = cl.Study(
        graph=cl.vanilla(model, "1", clients=people, loss=nn.BCEWithLogitsLoss()), optimizer=cl.optim.Adam(lr=0.01),
        batch_size=100, epochs=3, evaluate=(), defences=["marvell"],
    )  # fmt: skip
    run = study.simulate(people)
    told = {e.defence: e.facts for e in run.events if isinstance(e, Defended) and e.epoch == 2}
    assert told["marvell:error=0.4"]["sum of divergences"] == pytest.approx(0.16, rel=1e-4)
    assert 0.3 < told["label leak"]["leak AUC by norm"] < 0.68
