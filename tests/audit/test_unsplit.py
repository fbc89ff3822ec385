"""UnSplit finds inputs from the architecture alone."""

from __future__ import annotations

import pytest
import torch
from audited_digits import audited, both
from torch import nn

from cutlayer.audit import Knowledge, Transcript
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


def test_rows_of_a_table_have_no_edges_and_no_range():
    torch.manual_seed(0)
    client = nn.Sequential(nn.Linear(5, 30), nn.Tanh())
    x = torch.randn(40, 5)
    seen = Transcript("server")
    seen.note("activation", "head->server", "out", ("client", "server"), 0, True, client(x))
    known = Knowledge(shape=(5,), architecture=nn.Sequential(nn.Linear(5, 30), nn.Tanh()))
    guess = UnSplit(rounds=20, steps=5, l2=1e-3).guess(seen, known, 0)
    found = score_inputs(guess.inputs, x[guess.at], low=-torch.inf, high=torch.inf)
    assert guess.inputs.shape == (40, 5)
    assert found["distance_correlation_corrected"] > 0.5  # up to a mixture of the columns
    assert "psnr_db" not in found


def test_what_is_missing_or_cannot_be_is_told():
    run = audited()
    with pytest.raises(StudyError, match="the architecture of the sender's segment is not known"):
        UnSplit().guess(run.at_server, run.known(), 0)
    with pytest.raises(StudyError, match="unsplit: clone_lr cannot be that; got 0"):
        UnSplit(clone_lr=0.0)
    with pytest.raises(StudyError, match="unsplit: l2 cannot be that"):
        UnSplit(l2=-0.1)
