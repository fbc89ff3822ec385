"""Membership inference on a network that knows its rows by heart."""

from __future__ import annotations

import pytest
import torch
from audited_digits import audited, both
from torch import nn

from cutlayer.audit.membership import Membership
from cutlayer.audit.scores import score_labels
from cutlayer.errors import StudyError


@pytest.fixture(scope="module")
def learnt_by_heart():
    """Return halves of a network that was trained for long on 100 digits of the run, members and others."""
    run = audited()
    torch.manual_seed(0)
    client, own = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU()), nn.Linear(128, 10)
    network = nn.Sequential(client, own)
    x, y = run.public_x[:200], run.public_y[:200].clone()
    y[::4] = (y[::4] + 1) % 10  # what cannot be told from the image has to be learnt by heart
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x[:100]), y[:100]).backward()
        optimizer.step()
    return run.known(client=client, own=own, candidates_x=x, candidates_y=y), (torch.arange(200) < 100).long()


def test_members_have_the_smaller_loss(learnt_by_heart):
    known, member = learnt_by_heart
    guess, blind = both(Membership(), audited().at_client, known)
    found, chance = (score_labels(g.labels, g.scores, member, positive=1) for g in (guess, blind))
    assert found["leak_auc"] > 0.65 > 0.6 > chance["leak_auc"]
    assert found["label_accuracy"] > chance["label_accuracy"] + 0.05
    assert guess.note == "threshold: the median of candidates"


def test_the_threshold_is_the_training_loss_where_the_server_saw_it():
    run = audited()
    known = run.known(
        client=run.client, own=run.own, candidates_x=run.public_x[:50], candidates_y=run.public_y[:50]
    )
    guess = Membership().guess(run.at_server, known, 0)
    assert guess.note == "threshold: the mean training loss"
    labels = run.known(client=run.client, own=run.own, candidates_x=run.public_x[:50])
    unsure = Membership().guess(run.at_server, labels, 0)
    assert unsure.note == "threshold: the median of candidates"
    assert unsure.labels.sum() == 25


@pytest.mark.parametrize(
    "labels",
    [torch.tensor([0, 1, 1]), torch.tensor([0.5, 1.5, -2.0]), None],
    ids=["classes", "numbers", "none"],
)
def test_networks_of_one_output(labels):
    run = audited()
    known = run.known(
        client=nn.Flatten(), own=nn.Linear(64, 1), candidates_x=run.public_x[:3], candidates_y=labels
    )
    guess = Membership().guess(run.at_client, known, 0)
    assert torch.isfinite(guess.scores).all()
    assert set(guess.labels.tolist()) <= {0, 1}


def test_what_is_missing_is_told():
    run = audited()
    with pytest.raises(StudyError, match="it has not both trained segments"):
        Membership().guess(run.at_server, run.known(own=run.own), 0)
    with pytest.raises(StudyError, match="there is no row to ask about"):
        Membership().guess(run.at_server, run.known(own=run.own, client=run.client), 0)
