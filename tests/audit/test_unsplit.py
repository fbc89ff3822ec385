"""UnSplit finds inputs from the architecture alone."""

from __future__ import annotations

import pytest
from audited_digits import audited, both

from cutlayer.audit.scores import score_inputs
from cutlayer.audit.unsplit import UnSplit
from cutlayer.errors import StudyError


def test_inputs_are_found_without_the_weights():
    run = audited()
    seen = run.at_server.only(training=False)
    guess, blind = both(UnSplit(rounds=40, steps=8, rows=24), seen, run.known(architecture=run.fresh))
    truth = run.server_truth.rows(seen.sights("activation"), "x")[guess.at]
    found, grey = (score_inputs(which.inputs, truth, low=0, high=1) for which in (guess, blind))
    assert found["ssim"] > 0.8 > 0.2 > grey["ssim"]
    assert found["mse"] < grey["mse"] / 4
    assert guess.note.startswith("its clone makes what was seen up to a share 0.0")


def test_what_is_missing_or_cannot_be_is_told():
    run = audited()
    with pytest.raises(StudyError, match="the architecture of the sender's segment is not known"):
        UnSplit().guess(run.at_server, run.known(), 0)
    with pytest.raises(StudyError, match="unsplit: clone_lr cannot be that; got 0"):
        UnSplit(clone_lr=0.0)
    with pytest.raises(StudyError, match="unsplit: l2 cannot be that"):
        UnSplit(l2=-0.1)
