"""A pseudo-client beside an honest server comes to know the client."""

from __future__ import annotations

import pytest
import torch
from audited_digits import audited, both

from cutlayer.audit.pcat import Pcat, _rows_like
from cutlayer.audit.scores import score_inputs
from cutlayer.errors import StudyError


@pytest.mark.parametrize("knows_architecture", [True, False])
def test_few_public_rows_are_enough(knows_architecture):
    run = audited()
    seen = run.at_server.only(training=False)
    few = torch.cat([(run.public_y == label).nonzero()[:20, 0] for label in range(10)])
    known = run.known(
        own=run.own,
        public_x=run.public_x[few],
        public_y=run.public_y[few],
        architecture=run.fresh if knows_architecture else None,
    )
    guess, blind = both(Pcat(steps=80, each=2, rows=64), seen, known)
    truth = run.server_truth.rows(seen.sights("activation"), "x")[guess.at]
    found, mean = (score_inputs(which.inputs, truth, low=0, high=1) for which in (guess, blind))
    assert found["ssim"] > mean["ssim"] + 0.1
    assert found["distance_correlation_corrected"] > 0.8


def test_public_rows_are_chosen_by_the_labels_of_the_step():
    y = torch.tensor([0, 0, 1, 1, 2])
    torch.manual_seed(0)
    chosen = _rows_like(y, torch.tensor([1, 1, 2, 7]))
    assert y[chosen].tolist() == [1, 1, 2]
    assert len(_rows_like(y, None)) == 5
    assert len(_rows_like(y, torch.tensor([9]))) == 5


def test_what_is_missing_or_cannot_be_is_told():
    run = audited()
    with pytest.raises(StudyError, match="no public rows with labels"):
        Pcat().guess(run.at_server, run.known(own=run.own), 0)
    known = run.known(own=run.own, public_x=run.public_x, public_y=run.public_y)
    with pytest.raises(StudyError, match=r"watch\(…, states_every=1\)"):
        Pcat().guess(run.at_client, known, 0)
    with pytest.raises(StudyError, match="pcat: begin cannot be that"):
        Pcat(begin=1.0)
