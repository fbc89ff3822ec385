"""What gradients tell of labels, against plain counting."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cutlayer.privacy import Facts
from cutlayer.privacy.leaks import area_under_curve, classes_of, cosine_leak, measure_leaks, norm_leak


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40))
def test_the_area_is_the_share_of_pairs_in_order(rows):
    scores = torch.tensor([float(score) for score, _ in rows])
    positive = torch.tensor([yes for _, yes in rows])
    mine, others = scores[positive].tolist(), scores[~positive].tolist()
    found = area_under_curve(scores, positive)
    if not mine or not others:
        assert found is None
    else:
        pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(mine, others)]
        assert found == pytest.approx(sum(pairs) / len(pairs))


def test_labels_are_classes_only_where_they_are_few_whole_numbers():
    assert classes_of(torch.tensor([3, 7, 3])).tolist() == [0, 1, 0]
    assert classes_of(torch.tensor([[1.0], [0.0]])).tolist() == [1, 0]
    assert classes_of(torch.tensor([0.5, 1.0])) is None
    assert classes_of(torch.rand(4, 2)) is None
    assert classes_of(torch.arange(200)) is None


def test_norm_and_direction_tell_rare_labels_of_a_logistic_loss():
    torch.manual_seed(0)
    hidden = torch.randn(200, 16)
    labels = (torch.rand(200) < 0.15).float()
    weight = torch.randn(16)
    hidden.requires_grad_()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(hidden @ weight * 0.1 - 1.5, labels)
    (gradient,) = torch.autograd.grad(loss, hidden)
    facts = Facts()
    measure_leaks(gradient, labels, facts)
    found = facts.read()
    assert found["leak AUC by norm"] > 0.95
    assert found["leak AUC by cosine"] > 0.95
    random = torch.randn_like(gradient)
    assert abs(norm_leak(random, labels.long()) - 0.5) < 0.15
    assert abs(cosine_leak(random, labels.long()) - 0.5) < 0.05


def test_with_more_classes_only_directions_are_compared():
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    gradient = torch.nn.functional.one_hot(labels).float()
    assert norm_leak(gradient, labels) is None
    assert cosine_leak(gradient, labels) == 1.0
