"""Metrics against plain formulas."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cutlayer.errors import StudyError
from cutlayer.graph.parts import Loss
from cutlayer.metering.metrics import METRICS, measure, task_of


def loss(function):
    return Loss(role="server", prediction="top", function=function)


def pair_counting_auc(scores, positive):
    """Share of pairs in which the positive row has the higher score; a tie counts half."""
    pairs = list(itertools.product(scores[positive], scores[~positive]))
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def plain_f1(guess, truth, positive):
    hits = int(((guess == positive) & (truth == positive)).sum())
    wrong = int((guess == positive).sum()) + int((truth == positive).sum())
    return 2 * hits / wrong if wrong else 0.0


def draw(n, classes, seed):
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(size=(n, classes)), 1).astype(np.float32)  # rounded, so that ties occur
    labels = rng.integers(0, classes, n)
    labels[:classes] = np.arange(classes)
    return torch.from_numpy(logits), torch.from_numpy(labels)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(5, 30), classes=st.integers(3, 5), seed=st.integers(0, 10**6))
def test_several_classes(n, classes, seed):
    logits, labels = draw(n, classes, seed)
    found = measure(loss(nn.CrossEntropyLoss()), logits, labels)
    guess, chance = logits.argmax(1), logits.double().softmax(1)
    f1 = [plain_f1(guess, labels, c) for c in range(classes)]
    auc = [pair_counting_auc(chance[:, c].numpy(), (labels == c).numpy()) for c in range(classes)]
    assert list(found) == ["loss", "accuracy", "auc", "f1"]
    assert found["accuracy"] == pytest.approx((guess == labels).float().mean().item())
    assert found["f1"] == pytest.approx(np.mean(f1))
    assert found["auc"] == pytest.approx(np.mean(auc))
    assert found["loss"] == pytest.approx(-chance.log()[range(n), labels].mean().item(), rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(4, 30), seed=st.integers(0, 10**6))
def test_two_classes_in_each_way_of_writing(n, seed):
    rng = np.random.default_rng(seed)
    margin = torch.from_numpy(rng.permutation(n) - n / 2 + 0.25).float() / 3  # no ties
    logits, labels = torch.stack([torch.zeros(n), margin], 1), torch.from_numpy(rng.permutation(n) % 2)
    ways = [
        (nn.CrossEntropyLoss(), logits, labels),
        (nn.CrossEntropyLoss(), logits, nn.functional.one_hot(labels, 2).float()),
        (nn.NLLLoss(), logits.log_softmax(1), labels),
        (nn.functional.cross_entropy, logits, labels),
        (nn.BCEWithLogitsLoss(), margin, labels),
        (nn.BCEWithLogitsLoss(), margin[:, None], labels),
        (nn.BCEWithLogitsLoss(), margin[:, None], labels.float()),
        (nn.BCELoss(), margin.sigmoid()[:, None], labels),
    ]
    truth, guess = labels.numpy(), (margin.numpy() > 0).astype(int)
    for function, prediction, label in ways:
        found = measure(loss(function), prediction, label)
        assert found["accuracy"] == pytest.approx((guess == truth).mean())
        assert found["f1"] == pytest.approx(plain_f1(guess, truth, 1))
        assert found["loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-4)
        if label.ndim == 1:
            assert found["auc"] == pytest.approx(pair_counting_auc(margin.numpy(), truth == 1))


@pytest.mark.parametrize("shape", [(9,), (9, 1), (9, 3)])
def test_regression(shape):
    generator = torch.Generator().manual_seed(1)
    guess, truth = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    found = measure(loss(nn.MSELoss()), guess, truth)
    off = (guess - truth).double()
    by_column = off.reshape(9, -1)
    spread = (truth - truth.mean(0)).double().square().sum(0)
    assert list(found) == ["loss", "mae", "rmse", "r2"]
    assert found["loss"] == pytest.approx(off.square().mean().item(), rel=1e-5)
    assert found["mae"] == pytest.approx(off.abs().mean().item(), rel=1e-5)
    assert found["rmse"] == pytest.approx(by_column.square().mean(0).sqrt().mean().item(), rel=1e-5)
    assert found["r2"] == pytest.approx((1 - off.square().sum(0) / spread).mean().item(), rel=1e-4)


@pytest.mark.parametrize("function", [nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss()])
def test_whole_number_labels_of_a_regression(function):
    guess, truth = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1, 2, 3])
    assert measure(loss(function), guess, truth)["mae"] == pytest.approx(1 / 3)


def test_several_yes_or_no_questions_at_once():
    logits, labels = torch.tensor([[1.0, -1.0], [2.0, 3.0]]), torch.tensor([[1, 0], [0, 1]])
    found = measure(loss(nn.BCEWithLogitsLoss()), logits, labels)
    assert (found["accuracy"], found["f1"]) == (0.75, 0.8)


def test_labels_that_the_loss_ignores_do_not_count():
    logits, labels = draw(20, 3, 0)
    with_gaps = torch.where(torch.arange(20) % 4 == 3, -1, labels)
    found = measure(loss(nn.CrossEntropyLoss(ignore_index=-1)), logits, with_gaps)
    expected = measure(loss(nn.CrossEntropyLoss()), logits[with_gaps >= 0], labels[with_gaps >= 0])
    assert found == pytest.approx(expected)


def test_classes_of_pixels():
    """Segmentation: logits [N, C, H, W] against labels [N, H, W]; there is no AUC."""
    logits, labels = torch.randn(4, 3, 5, 5), torch.randint(0, 3, (4, 5, 5))
    found = measure(loss(nn.CrossEntropyLoss()), logits, labels)
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert "auc" not in found


def test_what_the_labels_cannot_define_is_left_out():
    one_class = torch.zeros(4, dtype=torch.int64)
    for classes in (2, 3):
        found = measure(loss(nn.CrossEntropyLoss()), torch.randn(4, classes), one_class)
        assert list(found) == ["loss", "accuracy", "f1"]
    assert "r2" not in measure(loss(nn.MSELoss()), torch.zeros(1), torch.ones(1))


def test_a_class_that_never_occurs_has_no_part_in_the_auc():
    logits, labels = draw(12, 3, 0)
    wider = torch.cat([logits, torch.full((12, 1), -20.0)], 1)
    three, four = (measure(loss(nn.CrossEntropyLoss()), x, labels) for x in (logits, wider))
    assert three["auc"] == pytest.approx(four["auc"], abs=1e-6)


def test_a_loss_of_ones_own_is_taken_by_its_labels():
    function = lambda prediction, label: (prediction.squeeze() - label).abs().mean()  # noqa: E731
    assert task_of(loss(function), torch.zeros(3, 1), torch.zeros(3)) == "regression"
    assert (
        task_of(loss(nn.functional.cross_entropy), torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64))
        == "multiclass"
    )
    assert task_of(loss(nn.BCEWithLogitsLoss()), torch.zeros(3), torch.zeros(3)) == "binary"


def test_only_the_metrics_asked_for_are_given_in_that_order():
    logits, labels = draw(9, 3, 0)
    assert list(measure(loss(nn.CrossEntropyLoss()), logits, labels, ("f1", "accuracy"))) == [
        "f1",
        "accuracy",
    ]
    assert list(measure(loss(nn.CrossEntropyLoss()), logits, labels, ("loss",))) == ["loss"]
    with pytest.raises(
        StudyError, match=r"metric 'rmse' does not fit a multiclass task; known: accuracy, auc, f1, loss"
    ):
        measure(loss(nn.CrossEntropyLoss()), logits, labels, ("rmse",))
    with pytest.raises(StudyError, match="metric 'auc' does not fit a regression task"):
        measure(loss(nn.MSELoss()), torch.zeros(3), torch.zeros(3), ("auc",))


def test_a_metric_that_is_no_number_is_left_out():
    found = measure(
        loss(nn.NLLLoss()), torch.tensor([[-math.inf, 0.0], [0.0, -math.inf]]), torch.tensor([0, 1])
    )
    assert "loss" not in found and found["accuracy"] == 0.0


def test_labels_that_the_network_does_not_know_are_refused():
    with pytest.raises(
        StudyError, match=r"loss 'loss' cannot be measured: .*; got predictions float32\[B, 3\].*classes-1"
    ):
        measure(loss(nn.CrossEntropyLoss()), torch.zeros(4, 3), torch.tensor([0, 1, 2, 3]))


def test_every_task_measures_its_loss_first():
    assert all(names[0] == "loss" for names in METRICS.values())
