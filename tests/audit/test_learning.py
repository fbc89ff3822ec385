"""Networks by shapes, and the loop that trains them."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from cutlayer.audit.learning import applied, batches, classifier, decoder, encoder, fit, frozen, seeded

SHAPES = [(8, 8, 8), (16, 7, 7), (6, 14, 10), (4, 1, 1), (12,), (5, 9), (3, 28, 28), (2, 40, 40)]


@pytest.mark.parametrize("out", [(1, 8, 8), (3, 28, 28), (1, 13, 9), (30,)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_decoders_and_encoders_fit_any_shapes(shape, out):
    made = applied(decoder(shape, out, 0.0, 1.0), torch.randn(2, *shape))
    assert made.shape == (2, *out)
    assert float(made.min()) >= 0 and float(made.max()) <= 1
    assert applied(encoder(out, shape), torch.randn(2, *out)).shape == (2, *shape)
    assert float(applied(encoder(out, shape, positive=True), torch.randn(2, *out)).min()) >= 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_classifiers_fit_any_shape(shape):
    assert classifier(shape, 3)(torch.randn(2, *shape)).shape == (2, 3)


def test_a_decoder_without_a_range_has_none():
    network = decoder((4,), (2,), -torch.inf, torch.inf)
    z = torch.randn(200, 4)
    fit(network, z, 5 * z[:, :2], nn.functional.mse_loss, steps=200, lr=3e-3)
    assert float((applied(network, z) - 5 * z[:, :2]).square().mean()) < 1


def test_parts_without_weights_to_train_are_only_used():
    torch.manual_seed(0)
    fixed = frozen(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)))
    before = {name: value.clone() for name, value in fixed.state_dict().items()}
    network = nn.Sequential(nn.Linear(3, 4), fixed)
    x = torch.randn(30, 3)
    fit(network, x, torch.arange(30) % 2, nn.functional.cross_entropy, steps=5)
    assert all(torch.equal(value, before[name]) for name, value in fixed.state_dict().items())
    assert not network.training


def test_batches_go_through_all_rows_before_any_comes_again():
    with seeded(0, "here"):
        drawn = torch.cat(list(batches(10, steps=6, size=4)))
    assert sorted(drawn[:10].tolist()) == sorted(drawn[10:20].tolist()) == list(range(10))


def test_random_numbers_inside_follow_from_the_seed_and_those_outside_go_on():
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    with seeded(1, "a"):
        one = torch.rand(3)
    assert torch.equal(torch.rand(2), expected)
    with seeded(1, "a"):
        assert torch.equal(torch.rand(3), one)
    with seeded(1, "b"):
        assert not torch.equal(torch.rand(3), one)


def test_a_decoder_does_not_end_at_one_image_for_all_where_most_pixels_are_black():
    x = nn.functional.pad(torch.from_numpy(load_digits().images[:400, None] / 16).float(), (4, 4, 4, 4))
    with seeded(0, "black"):
        z = torch.relu(x.flatten(1) @ torch.randn(256, 64))
        z = (z / z.std()).unflatten(1, (16, 2, 2))
        network = decoder((16, 2, 2), (1, 16, 16), 0.0, 1.0)
        fit(network, z, x, nn.functional.mse_loss, steps=50, lr=3e-3)
    error = (applied(network, z) - x).square().mean()
    assert float(error) < 2 * float((x - x.mean(0)).square().mean())  # all black: 3.3 times
