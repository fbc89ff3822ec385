"""A learnt decoder and a shadow succeed on an unprotected run."""

from __future__ import annotations

import pytest
from audited_digits import audited, both

from cutlayer.audit.decoding import Decoding, Shadow
from cutlayer.audit.scores import score_inputs
from cutlayer.errors import StudyError


def scored(attack, known):
    run = audited()
    seen = run.at_server.only(training=False)
    guess, blind = both(attack, seen, known)
    truth = run.server_truth.rows(seen.sights("activation"), "x")[guess.at]
    return [score_inputs(which.inputs, truth, low=0, high=1) for which in (guess, blind)], guess.note


def test_a_decoder_learns_from_public_rows_that_it_asks_about():
    run = audited()
    (found, blind), note = scored(
        Decoding(steps=60, rows=64), run.known(client=run.client, public_x=run.public_x)
    )
    assert found["ssim"] > 0.85 > 0.7 > blind["ssim"]
    assert found["mse"] < blind["mse"] / 4
    assert note == "learnt from 647 public rows that it asked about"


def test_a_decoder_learns_from_pairs_that_leaked():
    run = audited()
    (found, blind), note = scored(Decoding(steps=60, rows=64), run.leaked(5))
    assert found["ssim"] > 0.85 > 0.7 > blind["ssim"]
    assert note == "learnt from 250 pairs that leaked"


def test_a_shadow_learns_against_the_receivers_own_segment():
    run = audited()
    known = run.known(architecture=run.fresh, own=run.own, public_x=run.public_x, public_y=run.public_y)
    (found, blind), note = scored(Shadow(steps=120, rows=64), known)
    assert found["ssim"] > blind["ssim"] + 0.1
    assert found["distance_correlation_corrected"] > 0.9
    assert "right on" in note


def test_what_is_missing_is_told():
    run = audited()
    with pytest.raises(StudyError, match="neither did rows leak, nor can"):
        Decoding().guess(run.at_server, run.known(public_x=run.public_x), 0)
    with pytest.raises(StudyError, match="no architecture for a shadow"):
        Shadow().guess(run.at_server, run.known(own=run.own), 0)
    with pytest.raises(StudyError, match="no public rows with labels"):
        Shadow().guess(run.at_server, run.known(own=run.own, architecture=run.fresh), 0)
    with pytest.raises(StudyError, match="decoder: rows cannot be that"):
        Decoding(rows=0)


def test_progress_of_both_halves():
    run = audited()
    known = run.known(architecture=run.fresh, own=run.own, public_x=run.public_x, public_y=run.public_y)
    parts: list[float] = []
    Shadow(steps=2, rows=2).guess(run.at_server, known, 0, parts.append)
    assert parts == [0.25, 0.5, 0.75, 1.0]
