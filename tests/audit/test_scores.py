"""Scores against plain arithmetic, against another library, and at their ends."""

from __future__ import annotations

import math

import pytest
import torch
from audited_digits import audited
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score

from cutlayer.audit import scores
from cutlayer.errors import DataError

SEEDS = st.integers(0, 2**31)


def images(seed: int = 0, count: int = 6):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, count, 3, 12, 12, generator=generator)


def test_images_that_are_equal_have_the_best_scores():
    image = images()[0]
    found = scores.score_inputs(image, image, low=0, high=1)
    assert found["mse"] == 0
    assert found["psnr_db"] == 100
    assert math.isclose(found["ssim"], 1)
    assert math.isclose(found["distance_correlation"], 1, rel_tol=1e-5)
    assert math.isclose(found["distance_correlation_corrected"], 1, rel_tol=1e-5)


def test_signal_to_noise_equals_another_librarys_at_every_range():
    guess, truth = images()
    for low, high in ((0, 1), (-1, 1), (0, 255)):
        a, b = (low + (high - low) * rows for rows in (guess, truth))
        theirs = [
            peak_signal_noise_ratio(y.numpy(), x.numpy(), data_range=high - low)
            for x, y in zip(a, b, strict=True)
        ]
        assert math.isclose(
            scores.peak_signal_to_noise(a, b, low, high), sum(theirs) / len(theirs), rel_tol=1e-4
        )
        assert math.isclose(
            scores.structural_similarity(a, b, low, high),
            scores.structural_similarity(guess, truth, 0, 1),
            abs_tol=1e-4,
        )


def test_similarity_falls_with_noise_and_fits_small_images():
    x = audited().public_x[:20]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(x.shape, generator=generator)
    values = [scores.structural_similarity(x + scale * noise, x, 0, 1) for scale in (0, 0.1, 0.3, 1)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.5
    tiny = torch.rand(2, 1, 4, 4)
    assert math.isclose(scores.structural_similarity(tiny, tiny, 0, 1), 1)


@given(SEEDS)
def test_columns_equal_another_librarys(seed):
    generator = torch.Generator().manual_seed(seed)
    guess, truth = torch.randn(2, 15, 4, generator=generator, dtype=torch.float64)
    theirs = r2_score(truth.numpy(), guess.numpy(), multioutput="variance_weighted")
    assert math.isclose(scores.r_squared(guess, truth), theirs, abs_tol=1e-9)
    assert math.isclose(scores.standardized_error(guess, truth), 1 - theirs, abs_tol=1e-9)


def test_columns_without_spread_are_left_out():
    truth = torch.tensor([[1.0, 2.0], [1.0, 4.0]])
    guess = torch.tensor([[9.0, 2.0], [9.0, 4.0]])
    assert scores.r_squared(guess, truth) == 1
    assert scores.r_squared(guess[:, :1], truth[:, :1]) == 0
    found = scores.score_inputs(guess, truth, low=-math.inf, high=math.inf)
    assert set(found) == {"mse", "standardized_mse", "r2"}


@given(SEEDS, st.integers(2, 5))
def test_labels_equal_another_librarys(seed, classes):
    generator = torch.Generator().manual_seed(seed)
    labels, truth = torch.randint(classes, (2, 40), generator=generator)
    truth[:classes] = torch.arange(classes)
    found = scores.score_labels(labels, None, truth)
    assert found["label_accuracy"] == float((labels == truth).double().mean())
    expected = sum(float((labels[truth == c] == c).double().mean()) for c in range(classes)) / classes
    assert math.isclose(found["balanced_accuracy"], expected)
    assert found["label_accuracy"] <= found["purity"] + 1e-9
    assert math.isclose(scores.purity((truth + 1) % classes, truth), 1)


def test_balanced_accuracy_is_the_known_one():
    truth, labels = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    found = scores.score_labels(labels, None, truth)["balanced_accuracy"]
    assert math.isclose(found, balanced_accuracy_score(truth.numpy(), labels.numpy()))


@given(SEEDS)
def test_leak_auc_is_of_the_rarer_class_or_of_the_one_asked_for(seed):
    generator = torch.Generator().manual_seed(seed)
    values, truth = torch.rand(30, generator=generator), torch.zeros(30, dtype=torch.int64)
    truth[:8] = 1
    theirs = roc_auc_score(truth.numpy(), values.numpy())
    assert math.isclose(scores.leak_auc(values, truth), theirs)
    assert math.isclose(scores.leak_auc(values, 1 - truth), theirs)
    assert math.isclose(scores.leak_auc(values, truth, positive=0), 1 - theirs)
    assert scores.leak_auc(values, torch.arange(30) % 3) is None
    assert "leak_auc" not in scores.score_labels(None, values, torch.arange(30) % 3)


def test_a_classifier_judges_reconstructions():
    run = audited()
    judge = scores.independent_classifier(run.public_x[:500], run.public_y[:500], 10, seed=0, steps=150)
    x, y = run.public_x[500:], run.public_y[500:]
    assert scores.reclassified(judge, x, y) > 0.85
    assert scores.reclassified(judge, torch.full_like(x, 0.5), y) < 0.3
    found = scores.score_inputs(x, x, low=0, high=1, labels=y, judge=judge)
    assert found["reclassified_accuracy"] == scores.reclassified(judge, x, y)
    assert scores.reclassified(lambda rows: rows.flatten(1)[:, :10], x, y) < 0.5


def test_what_does_not_belong_together_is_told():
    with pytest.raises(DataError, match=r"got \[3\] and \[2\]"):
        scores.label_accuracy(torch.zeros(3), torch.zeros(2))
    with pytest.raises(DataError, match="at least one row"):
        scores.score_inputs(torch.zeros(0, 4), torch.zeros(0, 4), low=0, high=1)


def test_luck_reaches_further_with_few_rows_as_the_rank_sum_says():
    for few, many in ((8, 56), (80, 560)):
        truth = torch.cat([torch.ones(few), torch.zeros(many)]).long()
        values = torch.rand(few + many, generator=torch.Generator().manual_seed(few))
        luck = scores.reached_by_chance(None, values, truth, seed=1)["leak_auc"]
        deviation = math.sqrt((few + many + 1) / (12 * few * many))
        assert abs(luck - 0.5 - 1.645 * deviation) < 0.4 * deviation
        assert luck == scores.reached_by_chance(None, values, truth, seed=1)["leak_auc"]
    right = scores.reached_by_chance(truth, truth.double(), truth, seed=1)
    assert right["label_accuracy"] < 0.85 and right["leak_auc"] < 0.6
    alike = scores.reached_by_chance(None, torch.zeros(len(truth)), truth, seed=1)
    assert alike == {"leak_auc": 0.5}
