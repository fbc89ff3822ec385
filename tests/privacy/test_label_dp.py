"""Randomised response on labels: the law that the paper states, once for all, and only for classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import cutlayer as cl
from cutlayer.errors import DataError, StudyError
from cutlayer.privacy import Noise, Place
from cutlayer.privacy.label_dp import LabelDP

SECRET = bytes(range(32))


def noise(*place: str) -> Noise:
    return Noise(SECRET, "labels", *place)


@pytest.mark.parametrize(("epsilon", "classes"), [(0.5, 2), (1.0, 10), (3.0, 4)])
def test_labels_follow_the_papers_law(epsilon, classes):
    count = 200_000
    labels = torch.arange(count) % classes
    seen = LabelDP(epsilon=epsilon).relabelled(labels, noise())
    assert seen.dtype == labels.dtype and seen.shape == labels.shape
    table = torch.zeros(classes, classes)
    table.index_put_((labels, seen), torch.ones(count), accumulate=True)
    table = (table / table.sum(1, keepdim=True)).double()
    stay, other = math.exp(epsilon) / (math.exp(epsilon) + classes - 1), 1 / (math.exp(epsilon) + classes - 1)
    expected = torch.full((classes, classes), other).fill_diagonal_(stay).double()
    assert torch.allclose(table, expected, atol=5 * math.sqrt(0.25 * classes / count))
    assert LabelDP(epsilon=epsilon).flipped(classes) == pytest.approx(1 - stay)


def test_the_same_draws_twice_are_as_once():
    labels = torch.arange(1000) % 2
    once = LabelDP(epsilon=0.5).relabelled(labels, noise())
    assert not torch.equal(once, labels)
    assert torch.equal(LabelDP(epsilon=0.5).relabelled(once, noise()), once)
    assert not torch.equal(LabelDP(epsilon=0.5).relabelled(labels, noise("other")), once)


def test_classes_may_be_said_and_labels_be_floats_in_a_column():
    only = torch.full((1000, 1), 3.0)
    assert torch.equal(LabelDP(epsilon=1).relabelled(only, noise()), only)
    seen = LabelDP(epsilon=1, classes=10).relabelled(only, noise())
    assert seen.shape == only.shape and seen.dtype == only.dtype
    assert set(seen.unique().tolist()) == set(map(float, range(10)))


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (torch.rand(50), "not whole"),
        (torch.zeros(50, 2), r"shape \(50, 2\)"),
        (torch.arange(500).float(), "500 different numbers"),
        (torch.tensor([0, 7]), "labels from 0 to 7; expected classes 0 to 4"),
    ],
)
def test_what_is_no_class_is_refused(labels, why):
    with pytest.raises(DataError, match=why):
        LabelDP(epsilon=1, classes=5 if labels.dtype == torch.int64 else 0).relabelled(labels, noise())


def test_what_it_says():
    said = LabelDP(epsilon=1.0).statement()
    assert "27 % with two classes, 77 % with ten" in said and "each single training label" in said
    assert "46 %" in LabelDP(epsilon=3, classes=18).statement()
    with pytest.raises(StudyError, match="epsilon cannot be that; got 0"):
        LabelDP(epsilon=0)
    with pytest.raises(StudyError, match="classes cannot be that; got 1"):
        LabelDP(epsilon=1, classes=1)
    place = Place(cut="a->b", shape=(4,), raw=("x",), labels="", sent_labels=False, gradient=True)
    assert "labels" in (LabelDP(epsilon=1).misfit(place) or "")


def test_a_run_trains_on_them_and_is_measured_on_the_true_ones():
    x = np.random.default_rng(0).normal(size=(600, 4)).astype("float32")
    people = cl.data.arrays(x, (x[:, 0] > 0).astype("int64")).hold_out(test=1 / 3, seed=0)
    people = people.split({"client": "*"}, labels="server")

    def accuracy(defences):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
        study = cl.Study(
            graph=cl.vanilla(model, "1", clients=people), optimizer=cl.optim.SGD(lr=0.5), batch_size=20,
            epochs=5, defences=defences,
        )  # fmt: skip
        return study.simulate(people).metrics("test")["accuracy"]

    assert accuracy([]) > 0.95
    assert accuracy([LabelDP(epsilon=2.0)]) > 0.85
    assert accuracy([LabelDP(epsilon=0.01)]) < 0.8
