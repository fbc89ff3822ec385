"""Max-norm and isotropic noise: norms are alike in expectation, nothing is shifted, and norms tell less of labels."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.errors import GraphError, StudyError
from cutlayer.metering.events import Defended
from cutlayer.privacy import Facts, Moment, Noise, Place, defence_of
from cutlayer.privacy.leaks import norm_leak
from cutlayer.privacy.max_norm import IsotropicNoise, MaxNorm, with_max_norm


def moment(step=0, labels=None):
    return Moment(
        party="server", cut="head->server", step=step, training=True, fields={}, labels=labels,
        noise=Noise(b"the label holder's secret", step), facts=Facts(), memory={},
    )  # fmt: skip


def uneven(rows=200, share=0.15):
    """Return gradients [B, 8] whose norms give the class away, and the classes [B]."""
    generator = torch.Generator().manual_seed(0)
    classes = (torch.arange(rows) < share * rows).long()
    direction = torch.nn.functional.normalize(torch.rand(8, generator=generator), dim=0)
    wrong = torch.where(classes == 1, -0.85, 0.15)[:, None] + 0.05 * torch.randn(rows, 1, generator=generator)
    return wrong * direction + 0.02 * torch.randn(rows, 8, generator=generator), classes


def test_every_row_has_the_greatest_norm_in_expectation_and_its_mean_stays():
    gradient = torch.tensor([[3.0, 4.0], [0.6, 0.8], [0.0, -2.0], [0.0, 0.0]], dtype=torch.float64)
    drawn = torch.stack(
        [with_max_norm(gradient, Noise(b"a secret of its own", step)) for step in range(2000)]
    )
    assert torch.equal(drawn[:, 0], gradient[0].expand(2000, 2))
    squares = drawn.square().sum(2).mean(0)
    torch.testing.assert_close(squares, torch.full((4,), 25.0, dtype=torch.float64), rtol=0.12, atol=0)
    torch.testing.assert_close(drawn.mean(0), gradient, rtol=0, atol=0.35)
    parallel = drawn[:, 1, 0] * gradient[1, 1] - drawn[:, 1, 1] * gradient[1, 0]
    assert float(parallel.abs().max()) < 1e-9
    assert not torch.equal(drawn[0, 3], drawn[1, 3])


def test_the_deviation_is_the_papers():
    gradient = torch.tensor([[10.0], [2.0]], dtype=torch.float64)
    factors = [
        float(with_max_norm(gradient, Noise(b"a secret of its own", s))[1, 0]) / 2 - 1 for s in range(4000)
    ]
    assert torch.tensor(factors).std() == pytest.approx((100 / 4 - 1) ** 0.5, rel=0.05)


@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 3), (5, 1), (1, 4)])
def test_shapes_and_types_stay(shape):
    for dtype in (torch.float32, torch.float64):
        for defence in (MaxNorm(), IsotropicNoise()):
            found = defence.returning(torch.randn(shape).to(dtype), moment())
            assert found.shape == shape and found.dtype == dtype


def test_no_gradient_at_all_stays_so():
    for defence in (MaxNorm(), IsotropicNoise()):
        assert torch.equal(defence.returning(torch.zeros(4, 3), moment()), torch.zeros(4, 3))


@pytest.mark.parametrize(("defence", "most"), [(MaxNorm(), 0.7), (IsotropicNoise(scale=4.0), 0.7)])
def test_norms_tell_less_of_labels(defence, most):
    gradient, classes = uneven()
    assert norm_leak(gradient, classes) > 0.99
    found = [norm_leak(defence.returning(gradient, moment(step)), classes) for step in range(20)]
    assert 0.4 < sum(found) / 20 < most


def test_isotropic_noise_has_the_stated_deviation_and_is_told():
    gradient, now = torch.zeros(4000, 5), moment()
    gradient[7, 2] = 3.0
    noise = IsotropicNoise(scale=2.0).returning(gradient, now) - gradient
    assert float(noise.std()) == pytest.approx((2.0 * 9 / 5) ** 0.5, rel=0.03)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.05)
    assert now.facts.read()["noise to gradient, squared"] == pytest.approx(2.0 * 4000, rel=0.05)


def test_they_stand_only_where_gradients_leave_the_label_holder():
    place = Place(cut="a->b", shape=(4,), raw=("x",), labels="target", sent_labels=False, gradient=True)
    for defence in (MaxNorm(), IsotropicNoise()):
        assert defence.misfit(place) is None
        assert "does not hold the labels" in defence.misfit(dataclasses.replace(place, labels="source"))
        assert "no gradient" in defence.misfit(dataclasses.replace(place, gradient=False))
    for scale in (0, -1.0, float("inf"), float("nan"), "much", True):
        with pytest.raises(StudyError, match="iso: scale cannot be that"):
            IsotropicNoise(scale=scale)


def test_a_run_with_it_leaks_less_and_still_learns():
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] + x[:, 1] > 1.6).long()
    people = cl.data.arrays(x.numpy(), y.numpy()).split({"client": "*"}, labels="server")
    found = []
    for defences in ((), ("max-norm",)):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
        study = cl.Study(
            graph=cl.vanilla(model, "1", clients=people), optimizer=cl.optim.Adam(lr=0.01), batch_size=100,
            epochs=3, evaluate=(), defences=defences,
        )  # fmt: skip
        events = [e for e in study.simulate(people).events if isinstance(e, Defended)]
        found.append(next(e.facts["leak AUC by norm"] for e in reversed(events) if e.defence == "label leak"))
    assert {e.defence for e in events} == {"max-norm", "label leak"}
    assert found[0] > 0.8
    assert found[1] < 0.7
    assert defence_of("iso:2") == IsotropicNoise(scale=2)


def test_without_labels_at_the_sender_of_gradients_it_is_refused():
    people = cl.data.arrays(torch.randn(20, 3).numpy(), torch.arange(20) % 2).split_rows(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(GraphError, match="'max-norm' cannot stand at this cut"):
        cl.Study(
            graph=cl.vanilla(model, "0", clients=people), optimizer=cl.optim.SGD(lr=0.1), batch_size=5,
            defences=["max-norm"],
        )  # fmt: skip
