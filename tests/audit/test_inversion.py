"""White-box inversion succeeds on an unprotected run, and says what it lacks."""

from __future__ import annotations

import math

import pytest
import torch
from audited_digits import audited, both
from torch import nn

from cutlayer.audit import Knowledge, watch
from cutlayer.audit.inversion import Inversion, invert, total_variation
from cutlayer.audit.scores import mean_squared_error, score_inputs
from cutlayer.errors import StudyError


def test_the_input_comes_back_from_the_first_convolution():
    run = audited()
    seen = run.at_server.only(training=False)
    guess, blind = both(
        Inversion(steps=100, rows=32), seen, run.known(client=run.client, public_x=run.public_x)
    )
    truth = run.server_truth.rows(seen.sights("activation"), "x")[guess.at]
    found = score_inputs(guess.inputs, truth, low=0, high=1)
    expected = score_inputs(blind.inputs, truth, low=0, high=1)
    assert found["ssim"] > 0.95 > 0.7 > expected["ssim"]
    assert found["mse"] < expected["mse"] / 20


def test_rows_of_a_table_come_back_without_a_range():
    torch.manual_seed(0)
    client = nn.Sequential(nn.Linear(6, 12), nn.Tanh())
    x = torch.randn(20, 6)
    known = Knowledge(shape=(6,), client=client)
    found = invert(client.requires_grad_(False), client(x).detach(), known, steps=800, lr=0.02, tv=0.5)
    assert mean_squared_error(found, x) < 1e-3
    assert not known.bounded
    assert torch.equal(known.blind_input(), torch.zeros(6))


def test_rows_are_independent_of_each_other():
    run = audited()
    z = run.at_server.only(training=False).rows("activation")
    known, client = run.known(), run.client.requires_grad_(False)
    alone = invert(client, z[:1], known, steps=30, lr=0.02, tv=0.0)
    among = invert(client, z[:8], known, steps=30, lr=0.02, tv=0.0)
    assert torch.allclose(alone, among[:1], atol=1e-4)


def test_total_variation_counts_edges():
    flat, step = torch.ones(2, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    step[..., 2:] = 1
    assert float(total_variation(flat)) == 0
    assert math.isclose(float(total_variation(step)), 4 / 12, rel_tol=1e-6)


def test_what_is_missing_or_cannot_be_is_told():
    run = audited()
    with pytest.raises(
        StudyError, match="'inversion' cannot be tried: the sender's trained segment is not known"
    ):
        Inversion().guess(run.at_server, run.known(), 0)
    nothing, _ = watch("server")
    with pytest.raises(StudyError, match="no activations were seen"):
        Inversion().guess(nothing, run.known(client=run.client), 0)
    with pytest.raises(StudyError, match="inversion: steps cannot be that; got 0"):
        Inversion(steps=0)
    with pytest.raises(StudyError, match="tv cannot be that"):
        Inversion(tv=-1.0)
    assert str(Inversion(tv=0.1)) == "inversion:steps=500,lr=0.05,tv=0.1,rows=64"


def test_it_says_how_far_it_is():
    run = audited()
    parts: list[float] = []
    Inversion(steps=3, rows=2).guess(run.at_server, run.known(client=run.client), 0, parts.append)
    assert parts == [1 / 3, 2 / 3, 1.0]
