"""A party without labels finds them: by norm, by cosine, in groups, by completing the model."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from audited_digits import audited, both

from cutlayer.audit.labels import ActivationClusters, Completion, CosineLabels, GradientClusters, NormLabels
from cutlayer.audit.scores import score_labels
from cutlayer.errors import StudyError


def labels_of(run):
    return run.client_truth.rows(run.at_client.sights("gradient", training=True), "y")


def hints(run, each: int, classes: int):
    """Return knowledge of the labels of a few rows of each class."""
    truth = labels_of(run)
    places = torch.cat([(truth == label).nonzero()[:each, 0] for label in range(classes)])
    known = run.known(hints=places, hint_labels=truth[places])
    return dataclasses.replace(known, classes=classes)


def scored(attack, run, known):
    guess, blind = both(attack, run.at_client, known)
    truth = run.client_truth.rows(run.at_client.sights(attack.sees, training=True), "y")[guess.at]
    return [score_labels(which.labels, which.scores, truth) for which in (guess, blind)]


def test_the_rarer_class_has_the_greater_gradients():
    run = audited(rarer=True)
    known = dataclasses.replace(run.known(), classes=2, rarer_share=0.1)
    found, blind = scored(NormLabels(), run, known)
    assert found["leak_auc"] > 0.95 > 0.6 > blind["leak_auc"]
    assert found["balanced_accuracy"] > 0.9 > blind["balanced_accuracy"] == 0.5
    unsure = NormLabels().guess(run.at_client, dataclasses.replace(known, rarer_share=None), 0)
    assert unsure.labels is None


@pytest.mark.parametrize("rarer", [True, False])
def test_gradients_of_one_class_point_one_way(rarer):
    run, classes = audited(rarer=rarer), 2 if rarer else 10
    found, blind = scored(CosineLabels(), run, hints(run, 3, classes))
    assert found["balanced_accuracy"] > 0.95 > 0.6 > blind["balanced_accuracy"]
    assert ("leak_auc" in found) == rarer


def test_a_few_positives_are_enough():
    run = audited(rarer=True)
    truth = labels_of(run)
    places = (truth == 1).nonzero()[:5, 0]
    known = dataclasses.replace(run.known(hints=places, hint_labels=truth[places]), classes=2)
    found, blind = scored(CosineLabels(), run, known)
    assert found["leak_auc"] > 0.95 > 0.6 > blind["leak_auc"]


@pytest.mark.parametrize(
    ("attack", "least"),
    [(GradientClusters(), 0.95), (ActivationClusters(), 0.5), (Completion(steps=60), 0.7)],
    ids=lambda value: value.word if hasattr(value, "word") else "",
)
def test_groups_and_a_completed_model(attack, least):
    run = audited()
    found, blind = scored(attack, run, hints(run, 5, 10))
    assert found["label_accuracy"] > least > 0.2 > blind["label_accuracy"]


def test_groups_without_names():
    run = audited()
    found, blind = scored(GradientClusters(), run, run.known())
    assert found["purity"] > 0.95 > 0.2 > blind["purity"]
    two = audited(rarer=True)
    found, _ = scored(GradientClusters(), two, dataclasses.replace(two.known(), classes=2, rarer_share=0.1))
    assert found["balanced_accuracy"] > 0.95


def test_a_batch_that_is_smaller_weighs_no_more():
    """Gradients of a mean over fewer rows are greater, which says nothing of labels."""
    from cutlayer.audit import Transcript

    torch.manual_seed(0)
    rows = torch.randn(40, 5)
    one, two = Transcript("client"), Transcript("client")
    for transcript, sizes in ((one, [20, 20]), (two, [30, 10])):
        for step, part in enumerate(rows.split(sizes)):
            transcript.note("gradient", "a<-b", "out", ("b", "client"), step, True, part / len(part))
    known = audited().known(hints=torch.tensor([0, 1]), hint_labels=torch.tensor([0, 1]))
    labels = [CosineLabels().guess(seen, known, 0).labels for seen in (one, two)]
    assert torch.equal(*labels)
    spread = [NormLabels().guess(seen, known, 0).scores.max() for seen in (one, two)]
    assert max(spread) < 2 * min(spread)


def test_gradients_over_several_cuts_are_not_mixed():
    from cutlayer.audit import Transcript

    seen = Transcript("server")
    for step in range(2):
        for cut, width in (("head<-server", 3), ("body<-client", 5)):
            seen.note("gradient", cut, "out", ("client", "server"), step, True, torch.randn(4, width))
    known = audited().known()
    with pytest.raises(
        StudyError, match="several tensors of kind 'gradient'; got body<-client out, head<-server"
    ):
        NormLabels().guess(seen, known, 0)
    assert len(NormLabels().guess(seen.only(cut="body->client"), known, 0).scores) == 8


def test_what_is_missing_is_told():
    run = audited()
    with pytest.raises(StudyError, match="server: attack 'norm' cannot be tried: no gradient was seen"):
        NormLabels().guess(run.at_server.only(cut="head->server", training=False), run.known(), 0)
    with pytest.raises(StudyError, match="it knows no row's label"):
        CosineLabels().guess(run.at_client, run.known(), 0)
    with pytest.raises(StudyError, match="it knows no row's label"):
        Completion().guess(run.at_client, run.known(), 0)
    with pytest.raises(StudyError, match="the number of classes is not known"):
        GradientClusters().guess(run.at_client, dataclasses.replace(run.known(), classes=0), 0)
    with pytest.raises(StudyError, match="completion: taught cannot be that"):
        Completion(taught=2.0)
