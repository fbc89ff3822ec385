"""UnSplit's label inference: a clone of what is behind the cut finds the label that made a gradient."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from audited_digits import audited, both, network

import cutlayer as cl
from cutlayer.audit.auditing import Audit, Plan, Setting
from cutlayer.audit.findings import Findings
from cutlayer.audit.scores import score_labels
from cutlayer.audit.transcript import Transcript
from cutlayer.audit.unsplit_labels import UnSplitLabels
from cutlayer.audit.verdicts import verdicts
from cutlayer.errors import StudyError


def few(run, batches: int = 4) -> Transcript:
    """Return what the client saw of the last batches."""
    part = Transcript("client")
    steps = sorted({sight.step for sight in run.at_client.sights("gradient")})[-batches:]
    for sight in run.at_client.sights(training=True):
        if sight.step in steps:
            part.keep(sight)
    return part


@pytest.mark.parametrize("rarer", [True, False])
def test_behind_one_layer_all_labels_are_found(rarer: bool) -> None:
    run, classes = audited(rarer=rarer), 2 if rarer else 10
    seen = few(run)
    known = dataclasses.replace(run.known(behind=network()[2:]), classes=classes)
    guess, blind = both(UnSplitLabels(steps=20), seen, known)
    truth = run.client_truth.rows(seen.sights("gradient"), "y")[guess.at]
    found, chance = (score_labels(which.labels, which.scores, truth) for which in (guess, blind))
    assert found["balanced_accuracy"] > 0.98 > 0.6 > chance["balanced_accuracy"]
    assert found.get("leak_auc", 1.0) > 0.98


def test_the_clone_comes_nearer_to_what_it_imitates() -> None:
    run = audited()
    cosines = []
    for steps in (0, 30):
        guess = UnSplitLabels(steps=steps).guess(few(run), run.known(behind=network()[2:]), 0)
        cosines.append(float(guess.note.rpartition(" ")[2]))
    assert cosines[0] < 0.6 < 0.9 < cosines[1]


def test_with_another_start_groups_are_found_and_not_their_names() -> None:
    run = audited()
    seen = few(run)
    guess = UnSplitLabels(steps=40).guess(seen, run.known(behind=network(99)[2:]), 0)
    truth = run.client_truth.rows(seen.sights("gradient"), "y")[guess.at]
    found = score_labels(guess.labels, None, truth)
    assert found["purity"] > 0.6 > 0.2 > found["label_accuracy"]


def test_one_output_is_the_second_of_two_classes() -> None:
    torch.manual_seed(0)
    layer, z, y = (
        torch.nn.Linear(6, 1),
        torch.randn(64, 6).requires_grad_(),
        (torch.arange(64) % 3 == 0).long(),
    )
    loss = torch.nn.functional.binary_cross_entropy_with_logits(layer(z)[:, 0], y.float())
    (gradient,) = torch.autograd.grad(loss, z)
    seen = Transcript("client")
    seen.note("activation", "head->server", "out", ("client", "server"), 0, True, z)
    seen.note("gradient", "head<-server", "out", ("server", "client"), 0, True, gradient)
    known = dataclasses.replace(audited().known(behind=layer), classes=2)
    guess = UnSplitLabels(steps=0).guess(seen, known, 0)
    assert torch.equal(guess.labels, y)
    assert bool(((guess.scores > 0) == (y == 1)).all())


@pytest.mark.parametrize("topology", ["vanilla", "u_shaped"])
def test_in_an_audit_it_is_tried_wherever_gradients_come_without_labels(topology: str, tmp_path) -> None:
    torch.manual_seed(0)
    source = cl.data.digits()
    if topology == "vanilla":
        people = source.split({"client": "*"}, labels="server")
        graph = cl.vanilla(cl.networks.mlp((64, 24, 10)), "activation1", clients=people)
    else:
        people = source.split_rows(1)
        graph = cl.u_shaped(cl.networks.mlp((64, 24, 16, 10)), ("activation1", "activation2"), clients=people)
    study = cl.Study(graph=graph, optimizer=cl.optim.Adam(lr=0.005), batch_size=32, epochs=2, evaluate=())
    findings = Findings(tmp_path, {"study": study.digest})
    setting = Setting(name="plain", build=lambda seed: (dataclasses.replace(study, seed=seed), people))
    Audit(Plan(settings=[setting], attacks=[UnSplitLabels(steps=20)], rows=64), findings).run()
    found = {(one.party, one.cut): one for one in verdicts(findings.found)}
    where = {"vanilla": ("client", "head<-server"), "u_shaped": ("server", "body<-client")}[topology]
    assert list(found) == [where]
    assert found[where].score > 0.95 > 0.4 > found[where].blind


def test_what_is_missing_is_told() -> None:
    run = audited()
    with pytest.raises(StudyError, match="the architecture behind the cut is not known"):
        UnSplitLabels().guess(run.at_client, run.known(), 0)
    with pytest.raises(StudyError, match="the number of classes is not known"):
        UnSplitLabels().guess(run.at_client, dataclasses.replace(run.known(behind=run.own), classes=0), 0)
    alone = Transcript("client")
    for sight in run.at_client.sights("gradient"):
        alone.keep(sight)
    with pytest.raises(StudyError, match="what it sent for these gradients was not seen"):
        UnSplitLabels().guess(alone, run.known(behind=run.own), 0)
    with pytest.raises(StudyError, match="unsplit-labels: lr cannot be that"):
        UnSplitLabels(lr=0)
