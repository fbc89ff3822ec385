"""An attribute that is no label of the task is read off activations."""

from __future__ import annotations

from dataclasses import replace

import pytest
from audited_digits import audited, both

from cutlayer.audit.attributes import AttributeInference
from cutlayer.audit.scores import score_labels
from cutlayer.errors import StudyError


def bold(x):
    """Return whether a digit is written with much ink."""
    return (x.flatten(1).mean(1) > 0.31).long()


@pytest.mark.parametrize("leaked", [True, False])
def test_how_a_digit_was_written_shows(leaked):
    run = audited()
    seen = run.at_server.only(training=False)
    sights = seen.sights("activation")
    known = run.known(client=run.client, public_x=run.public_x, public_attribute=bold(run.public_x))
    if leaked:
        known = run.leaked(10)
        known = replace(known, leaked_attribute=bold(known.leaked_x))
    guess, blind = both(AttributeInference(steps=60, rows=250), seen, known)
    truth = bold(run.server_truth.rows(sights, "x"))[guess.at]
    found, chance = (score_labels(which.labels, which.scores, truth) for which in (guess, blind))
    assert found["label_accuracy"] > 0.85 > 0.75 > chance["label_accuracy"]
    assert found["leak_auc"] > 0.9 > 0.6 > chance["leak_auc"]


def test_what_is_missing_is_told():
    run = audited()
    with pytest.raises(StudyError, match="no activations of rows whose attribute it knows"):
        AttributeInference().guess(run.at_server, run.known(client=run.client, public_x=run.public_x), 0)
    with pytest.raises(StudyError, match="attribute: steps cannot be that"):
        AttributeInference(steps=0)
