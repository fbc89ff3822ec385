"""Metrics merged from sums are those that scikit-learn gives for all predictions together."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch import nn

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.graph.parts import Loss
from cutlayer.metering.events import Measured, decode_event, encode_event
from cutlayer.metering.merging import PARTS, fits, merged, only_averaged
from cutlayer.metering.metrics import MOST_COLUMNS, measure
from cutlayer.metering.tables import averaged_metrics, merged_metrics, tables

PARTIES = st.lists(st.integers(1, 12), min_size=2, max_size=5)
EXACT = {"rel": 1e-9, "abs": 1e-9}


def measured(function, predictions, labels, sizes, names=()) -> list[Measured]:
    """Return what parties of these sizes note when they share out the rows, as it comes back from a log."""
    loss, events = Loss(role="client", prediction="tail", function=function), []
    parts = zip(predictions.split(sizes), labels.split(sizes), sizes, strict=True)
    for i, (prediction, label, rows) in enumerate(parts):
        found = measure(loss, prediction, label, names)
        event = Measured(epoch=0, split="test", loss="loss", party=f"p{i}", rows=rows, metrics=found)
        events.append(decode_event(encode_event(event)))
    return events


@settings(max_examples=40, deadline=None)
@given(sizes=PARTIES, classes=st.integers(2, 5), weighted=st.booleans(), seed=st.integers(0, 10**6))
def test_classes(sizes, classes, weighted, seed):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(sum(sizes), classes)))
    labels = torch.from_numpy(rng.integers(0, classes, sum(sizes)))
    function = nn.CrossEntropyLoss(torch.from_numpy(rng.uniform(0.5, 2, classes)) if weighted else None)
    found = merged(measured(function, logits, labels, sizes))
    guess = logits.argmax(1)
    average = "binary" if classes == 2 else "macro"
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, guess), **EXACT)
    assert found["f1"] == pytest.approx(sk.f1_score(labels, guess, average=average, zero_division=0), **EXACT)
    assert found["loss"] == pytest.approx(function(logits, labels).item(), **EXACT)
    if not weighted:
        all_classes = list(range(classes))
        chance = logits.softmax(1).numpy()
        assert found["loss"] == pytest.approx(sk.log_loss(labels, chance, labels=all_classes), **EXACT)


@settings(max_examples=40, deadline=None)
@given(sizes=PARTIES, seed=st.integers(0, 10**6))
def test_yes_or_no(sizes, seed):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(sum(sizes), 1)))
    labels = torch.from_numpy(rng.integers(0, 2, sum(sizes)))
    found = merged(measured(nn.BCEWithLogitsLoss(), logits, labels, sizes))
    guess, chance = (logits > 0).flatten().long(), logits.sigmoid().flatten().numpy()
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, guess), **EXACT)
    assert found["f1"] == pytest.approx(sk.f1_score(labels, guess, zero_division=0), **EXACT)
    assert found["loss"] == pytest.approx(sk.log_loss(labels, chance, labels=[0, 1]), **EXACT)


@settings(max_examples=40, deadline=None)
@given(
    sizes=PARTIES, columns=st.integers(1, 3), centre=st.sampled_from([0.0, 3.0, 1e5]), seed=st.integers(0, 10**6)
)  # fmt: skip
def test_numbers(sizes, columns, centre, seed):
    rng = np.random.default_rng(seed)
    truth = torch.from_numpy(rng.normal(centre, 1.0, (sum(sizes), columns)))
    guess = truth + torch.from_numpy(rng.normal(size=truth.shape))
    found = merged(measured(nn.MSELoss(), guess, truth, sizes))
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(truth, guess), **EXACT)
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(truth, guess), **EXACT)
    assert found["r2"] == pytest.approx(sk.r2_score(truth, guess), **EXACT)
    assert found["loss"] == pytest.approx(sk.mean_squared_error(truth, guess), **EXACT)


def test_labels_that_the_loss_ignores_do_not_count():
    logits, labels = torch.randn(30, 4, dtype=torch.float64), torch.randint(0, 4, (30,))
    labels[3:9] = -100
    function = nn.CrossEntropyLoss()
    found, kept = merged(measured(function, logits, labels, [10, 15, 5])), labels >= 0
    assert found["loss"] == pytest.approx(function(logits, labels).item(), **EXACT)
    assert found["accuracy"] == pytest.approx(
        sk.accuracy_score(labels[kept], logits[kept].argmax(1)), **EXACT
    )


def test_a_constant_label_has_the_r2_of_scikit_learn():
    truth = torch.full((6,), 2.0, dtype=torch.float64)
    for guess in (truth, truth + 1):
        found = merged(measured(nn.MSELoss(), guess, truth, [3, 3]))
        assert found["r2"] == sk.r2_score(truth, guess)


@pytest.fixture(scope="module")
def u_shaped() -> tuple[cl.Run, cl.Twin]:
    """Three clients with labels of their own, and the uncut network, which measures all rows at once."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 6)), rng.integers(0, 3, 90)
    clients = cl.data.arrays(x[:40], y[:40], x[40:], y[40:]).split_rows(3)
    graph = cl.u_shaped(cl.networks.mlp((6, 8, 7, 3)), ("linear1", "linear2"), clients=clients)
    study = cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), epochs=1, batch_size=5)
    return study.simulate(clients), study.central(clients)


def test_a_run_with_several_label_holders_measures_what_the_uncut_network_does(u_shaped):
    run, twin = u_shaped
    found, expected = run.metrics("test"), twin.metrics("test")["loss"]
    assert len({e.party for e in run.events if isinstance(e, Measured)}) == 3
    assert list(found) == ["loss", "accuracy", "auc", "f1"]
    assert (found["accuracy"], found["f1"]) == pytest.approx((expected["accuracy"], expected["f1"]), **EXACT)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)


def test_what_was_not_measured_has_no_metrics(u_shaped):
    run, _ = u_shaped
    with pytest.raises(StudyError, match="nothing was measured on a split 'tset'; did you mean 'test'"):
        run.metrics("tset")
    with pytest.raises(StudyError, match="there is no loss 'lose'; did you mean 'loss'"):
        run.metrics("test", "lose")


def test_one_party_keeps_what_it_measured():
    guess, truth = torch.randn(9), torch.randn(9)
    (event,) = measured(nn.MSELoss(), guess, truth, [9])
    assert merged([event]) == event.metrics and only_averaged([event]) == []


def test_auc_is_a_mean_and_is_called_so():
    logits, labels = torch.randn(40, 2), torch.arange(40) % 2
    events = measured(nn.CrossEntropyLoss(), logits, labels, [10, 30])
    expected = (10 * events[0].metrics["auc"] + 30 * events[1].metrics["auc"]) / 40
    assert merged_metrics(events, "test", "loss")["auc"] == pytest.approx(expected)
    assert averaged_metrics(events, "test", "loss") == ["auc"]
    found = tables(events)
    assert found["metrics"].note.startswith("Over all rows of 2 label holders together")
    assert " AUC: means over 2 label holders, weighted by their rows" in found["metrics"].note
    assert f"auc {expected:.4g} (row-weighted mean)" in dict(found["summary"].rows)["test"]
    assert "accuracy" in found["metrics"].columns


def test_sums_are_those_of_the_metrics_asked_for():
    logits, labels = torch.randn(6, 3), torch.randint(0, 3, (6,))
    for event in measured(nn.CrossEntropyLoss(), logits, labels, [2, 4], ("f1",)):
        assert list(event.sums) == ["f1"] and list(event.metrics) == ["f1"]
    for event in measured(nn.CrossEntropyLoss(), logits, labels, [2, 4], ("loss",)):
        assert list(event.sums) == ["loss"]


def test_so_many_columns_have_no_sums_by_column():
    truth = torch.randn(6, MOST_COLUMNS + 1)
    events = measured(nn.MSELoss(), truth + 1, truth, [3, 3])
    assert only_averaged(events) == ["rmse", "r2"]
    assert merged(events)["rmse"] == pytest.approx(1.0)


def test_a_loss_that_is_a_sum_is_a_mean_over_parties():
    truth = torch.randn(6)
    assert only_averaged(measured(nn.MSELoss(reduction="sum"), truth + 1, truth, [3, 3])) == ["loss"]


def test_without_sums_of_everybody_there_is_only_the_mean():
    guess, truth = torch.randn(8), torch.randn(8)
    new, old = measured(nn.MSELoss(), guess, truth, [2, 6])
    old = dataclasses.replace(old, sums={})
    mean = (2 * new.metrics["rmse"] + 6 * old.metrics["rmse"]) / 8
    assert merged([new, old])["rmse"] == pytest.approx(mean)
    assert only_averaged([new, old]) == ["loss", "mae", "rmse", "r2"]


@given(st.data())
def test_sums_that_nobody_can_have_measured_give_numbers_or_nothing(data):
    column = st.lists(st.floats(), min_size=2, max_size=2)
    events = [
        Measured(
            epoch=0, split="test", loss="loss", party=party, rows=3, metrics={},
            sums={name: [data.draw(column) for _ in parts] for name, parts in PARTS.items()},
        )
        for party in "ab"
    ]  # fmt: skip
    assert all(np.isfinite(value) for value in merged(events).values())


def test_sums_must_fit_their_metric():
    assert fits({"loss": [[1.0], [2.0]], "of a later version": [[1.0]]})
    for lists in ([], [[1.0]], [[1.0], []], [[], []], [[1.0], [1.0, 2.0]]):
        assert not fits({"loss": lists})
