"""Epsilon against formulas and another library's, and what is promised for a graph, and under which conditions."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from opacus.accountants import PRVAccountant
from torch import nn

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.privacy.accounting import Guarantee, Release, epsilon_of, guarantees, sampled_epsilon


def normal_below(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def delta_of_gauss(epsilon: float, multiplier: float) -> float:
    """Balle and Wang 2018, theorem 8."""
    a, b = 1 / (2 * multiplier), epsilon * multiplier
    return normal_below(a - b) - math.exp(epsilon) * normal_below(-a - b)


def gauss(multiplier: float, times: int = 1) -> Release:
    return Release(law="gaussian", multiplier=multiplier, times=times)


def laplace(multiplier: float, times: int = 1) -> Release:
    return Release(law="laplace", multiplier=multiplier, times=times)


@pytest.mark.parametrize(("multiplier", "delta"), [(0.5, 1e-5), (1.0, 1e-6), (4.0, 1e-3)])
def test_one_gaussian_release_is_that_of_the_exact_formula(multiplier, delta):
    epsilon = epsilon_of([gauss(multiplier)], delta)
    assert delta_of_gauss(epsilon, multiplier) == pytest.approx(delta, rel=1e-6)


@pytest.mark.filterwarnings("ignore:Optimal order is")
@pytest.mark.parametrize(("multiplier", "times"), [(2.0, 10), (10.0, 200)])
def test_composed_gaussians_agree_with_another_library_to_one_percent(multiplier, times):
    other = PRVAccountant()
    other.history = [(multiplier, 1 - 1e-9, times)]  # it cannot do exactly 1
    ours = epsilon_of([gauss(multiplier, times)], 1e-5)
    assert ours == pytest.approx(other.get_epsilon(1e-5), rel=0.01)
    assert ours == pytest.approx(epsilon_of([gauss(multiplier / math.sqrt(times))], 1e-5))


@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.0, 0.01, 500)])
def test_the_sampled_figure_agrees_with_another_library_to_one_percent(noise, rate, steps):
    other = PRVAccountant()
    other.history = [(noise, rate, steps)]
    assert sampled_epsilon(noise, rate, steps, 1e-5) == pytest.approx(other.get_epsilon(1e-5), rel=0.01)
    assert sampled_epsilon(noise, rate, steps, 1e-5) < epsilon_of([gauss(noise, steps)], 1e-5)


def delta_by_convolution(losses: list[np.ndarray], spacing: float, epsilon: float) -> float:
    """Delta of several releases, from the distribution of each one's privacy loss on a grid around 0."""
    total = np.array([1.0])
    for loss in losses:
        total = np.convolve(total, loss)
    at = (np.arange(len(total)) - len(total) // 2) * spacing
    return float((total * np.clip(1 - np.exp(epsilon - at), 0, None)).sum())


def loss_on_grid(law: str, multiplier: float, spacing: float, reach: float) -> np.ndarray:
    x = (np.arange(2_000_000) + 0.5) / 2_000_000 * 60 * multiplier - 30 * multiplier
    if law == "laplace":
        density = np.exp(-np.abs(x) / multiplier) / (2 * multiplier)
        loss = (np.abs(x - 1) - np.abs(x)) / multiplier
    else:
        density = np.exp(-0.5 * (x / multiplier) ** 2) / (multiplier * math.sqrt(2 * math.pi))
        loss = ((x - 1) ** 2 - x**2) / (2 * multiplier**2)
    bins = np.arange(-round(reach / spacing), round(reach / spacing) + 2) * spacing - spacing / 2
    counts, _ = np.histogram(loss, bins=bins, weights=density)
    return counts / density.sum()


@pytest.mark.parametrize("releases", [[laplace(2.0, 4)], [laplace(4.0, 3), gauss(3.0, 2)], [laplace(2.0)]])
def test_laplace_releases_agree_with_plain_numerical_convolution(releases):
    epsilon = epsilon_of(releases, 1e-3)
    losses = [loss_on_grid(r.law, r.multiplier, 1e-3, 4.0) for r in releases for _ in range(r.times)]
    assert delta_by_convolution(losses, 1e-3, epsilon) == pytest.approx(1e-3, rel=0.05)
    assert epsilon <= sum(r.times / r.multiplier for r in releases if r.law == "laplace") + epsilon_of(
        [r for r in releases if r.law == "gaussian"], 1e-3
    )


def test_ends_of_the_scale():
    assert epsilon_of([laplace(0.1, 50)], 0.0) == pytest.approx(500)
    assert epsilon_of([gauss(0.05, 60)], 1e-5) > 10_000
    assert epsilon_of([gauss(0.0)], 1e-5) == math.inf
    assert epsilon_of([gauss(1.0)], 0.0) == math.inf
    assert epsilon_of([], 1e-5) == epsilon_of([gauss(1.0, 0)], 1e-5) == 0
    with pytest.raises(StudyError, match="no epsilon follows"):
        sampled_epsilon(1.0, 0.0, 10, 1e-5)


def graph(defences, *layers: nn.Module, cut: str = "1"):
    x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
    people = cl.data.arrays(x, (x[:, 0] > 0).astype("int64")).split({"client": "*"}, labels="server")
    model = nn.Sequential(*layers, nn.Linear(6, 2))
    return cl.vanilla(model, cut, clients=people).with_defences(defences)


HEAD = (nn.Linear(4, 6), nn.Tanh())


def promised(defences, *layers, epochs=10, evaluated=("test",), delta=1e-5, **more) -> tuple[Guarantee, ...]:
    return guarantees(graph(defences, *(layers or HEAD), **more), epochs, evaluated, delta)


def test_noise_alone_supposes_that_weights_tell_nothing():
    (one,) = promised(["gaussian:clip=1,noise=8"])
    assert one.epsilon == pytest.approx(epsilon_of([gauss(4.0, 10)], 1e-5))
    assert (one.unit, one.adversary, one.releases) == ("one row's x at client", "server", 10)
    assert "weights tell nothing" in one.supposes and "dp-sgd" in one.supposes
    assert promised(["gaussian:clip=1,noise=8"], evaluated=("train", "test"))[0].releases == 20
    assert promised(["gaussian:clip=1,noise=8"], epochs=20)[0].epsilon > one.epsilon


def test_dp_sgd_alone_supposes_that_gradients_tell_nothing():
    (one,) = promised(["dp-sgd:clip=1,noise=8"])
    assert one.epsilon == pytest.approx(epsilon_of([gauss(4.0, 10)], 1e-5))
    assert "gradients that come back" in one.supposes and "weights" in one.adversary


def test_both_together_hold_as_they_stand():
    (one,) = promised(["laplace:clip=1,noise=40", "dp-sgd:clip=1,noise=8"])
    assert one.epsilon == epsilon_of([laplace(20.0, 10), gauss(4.0, 10)], 1e-5)
    assert (one.supposes, one.releases, one.adversary) == ("", 20, "everyone else together")
    assert "at head->server and dp-sgd:clip=1,noise=8 of head" in one.mechanism


def test_a_head_that_does_not_learn_has_nothing_to_suppose():
    fixed = nn.Linear(4, 6).requires_grad_(False)
    (one,) = promised(["gaussian:clip=1,noise=8"], fixed, nn.Tanh())
    assert one.supposes == ""


@pytest.mark.parametrize("words", [["gaussian:clip=1,noise=8"], ["gaussian:clip=1,noise=8", "dp-sgd:1,1"]])
def test_a_layer_that_mixes_rows_leaves_no_promise(words):
    one = promised(words, nn.Linear(4, 6), nn.BatchNorm1d(6))[0]
    assert one.epsilon == math.inf
    assert str(one).startswith(
        "no differential privacy by gaussian:clip=1,noise=8 at head->server: layer '1'"
    )


def test_no_noise_and_no_delta_are_no_promise():
    assert "its noise is 0" in str(promised(["gaussian:clip=1,noise=0", "dp-sgd:1,1"])[0])
    assert "delta is 0" in str(promised(["gaussian:clip=1,noise=1", "dp-sgd:1,1"], delta=0.0)[0])
    assert promised(["noise:1"]) == promised([]) == ()
    with pytest.raises(StudyError, match="delta cannot be that; got 1"):
        promised(["gaussian:1,1"], delta=1)


def test_labels_are_told_once():
    found = promised(["label-dp:2"])
    assert [(g.epsilon, g.delta, g.unit) for g in found] == [(2.0, 0.0, "one training label")]
    assert "epsilon 2 for one training label, against everyone but the party that holds it" in str(found[0])


def test_words():
    (one,) = promised(["gaussian:clip=1,noise=40", "dp-sgd:clip=1,noise=40"])
    assert str(one) == (
        f"epsilon {one.epsilon:.3g} at delta 1e-05 for one row's x at client, against everyone else together, by "
        "gaussian:clip=1,noise=40 at head->server and dp-sgd:clip=1,noise=40 of head, 20 releases"
    )


def test_the_library_is_imported_when_asked_for_and_missed_clearly():
    code = (
        "import sys, cutlayer; from cutlayer.privacy import accounting as a\n"
        "assert not {'dp_accounting', 'opacus'} & set(sys.modules)\n"
        "sys.modules['dp_accounting'] = None\n"
        "try: a.epsilon_of([a.Release(law='gaussian', multiplier=1.0, times=1)], 1e-5)\n"
        "except cutlayer.errors.StudyError as error: assert 'cutlayer[privacy]' in str(error)\n"
        "else: raise SystemExit('nothing was missed')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_u_shape_protects_the_first_cut_and_counts_it_alone():
    x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
    people = cl.data.arrays(x, (x[:, 0] > 0).astype("int64")).split({"client": "*"})
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    shaped = cl.u_shaped(model, ("1", "3"), clients=people).with_defences(["gaussian:1,8", "dp-sgd:1,8"])
    noised, learnt = guarantees(shaped, 10, (), 1e-5)
    assert "at head->server" in noised.mechanism and "tail" in learnt.supposes
