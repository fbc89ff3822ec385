"""NoPeek in a run: dependence falls, only the sender's loss has it, and every run tells it with its baselines."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.errors import GraphError, StudyError
from cutlayer.metering.events import Defended, Traffic
from cutlayer.privacy import Facts, Moment, Noise, Place, defence_of
from cutlayer.privacy.distance import distance_correlation
from cutlayer.privacy.nopeek import NoPeek


def holdings(rows=96):
    x = torch.randn(rows, 3, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0, 0] > 0).long()
    return cl.data.arrays(x.numpy(), y.numpy()).split({"client": "*"}, labels="server"), x


def study(people, *defences, **more):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 2))
    settings = {"batch_size": 16, "epochs": 3, "optimizer": cl.optim.Adam(lr=0.01), **more}
    return cl.Study(graph=cl.vanilla(model, "2", clients=people), defences=defences, evaluate=(), **settings)


def moment(step=0, table=None):
    return Moment(
        party="client", cut="head->server", step=step, training=True, fields={}, labels=None,
        noise=Noise(b"a secret of the party", step), facts=Facts(table), memory={},
    )  # fmt: skip


@pytest.mark.parametrize("distance", ["squared", "euclidean"])
def test_dependence_on_raw_rows_falls_and_no_byte_more_crosses(distance):
    people, x = holdings()
    runs = [study(people, *d).simulate(people) for d in ((), (NoPeek(weight=5.0, distance=distance),))]
    found, sent = [], []
    for run in runs:
        weights = run.weights()["head"]
        weight, bias = (next(t for n, t in weights.items() if n.endswith(end)) for end in ("weight", "bias"))
        z = torch.tanh(x.flatten(1) @ weight.T + bias)
        found.append(float(distance_correlation(x, z, distance)))
        sent.append(
            sum(e.frame_bytes for e in run.events if isinstance(e, Traffic) and e.phase == "training")
        )
    assert found[1] < found[0] - 0.05
    assert sent[0] == sent[1]


def test_every_epoch_tells_it_with_the_corrected_one_and_that_of_permuted_pairs():
    people, _ = holdings(rows=200)
    run = study(people, "nopeek:0.1").simulate(people)
    noted = [e for e in run.events if isinstance(e, Defended) and e.defence.startswith("nopeek")]
    assert [e.epoch for e in noted] == [0, 1, 2]
    assert {e.defence for e in noted} == {"nopeek:weight=0.1,distance=squared"}
    for event in noted:
        facts = event.facts
        assert facts["batches"] == 13
        assert 0 < facts["distance correlation, permuted pairs"] < facts["distance correlation"] <= 1
        assert facts["distance correlation, corrected"] < facts["distance correlation"]


def test_the_penalty_is_the_weighted_correlation_of_all_raw_fields_side_by_side():
    generator = torch.Generator().manual_seed(3)
    image, record = (torch.randn(9, *shape, generator=generator) for shape in ((1, 4, 4), (3,)))
    z = torch.randn(9, 2, 5, generator=generator, requires_grad=True)
    now = moment()
    penalty = NoPeek(weight=0.3, distance="euclidean").penalty((image, record), z, now)
    raw = torch.cat([image.flatten(1), record], dim=1)
    assert float(penalty.detach()) == pytest.approx(
        0.3 * float(distance_correlation(raw, z.detach())), rel=1e-5
    )
    (gradient,) = torch.autograd.grad(penalty, z)
    assert gradient.abs().sum() > 0
    assert set(now.facts.read()) == {
        "distance correlation",
        "distance correlation, corrected",
        "distance correlation, permuted pairs",
        "batches",
    }


def test_only_the_first_batches_of_an_epoch_are_measured_further():
    table = {}
    x, z = torch.randn(6, 3), torch.randn(6, 2, requires_grad=True)
    for step in range(11):
        NoPeek().penalty((x,), z, moment(step, table))
    assert table["distance correlation"][1] == 11
    assert table["distance correlation, corrected"][1] == 8


def test_a_row_alone_has_no_distances_and_half_precision_is_no_matter():
    z = torch.randn(1, 2, requires_grad=True)
    assert NoPeek().penalty((torch.randn(1, 3),), z, moment()) is None
    half = torch.randn(6, 2).bfloat16().requires_grad_()
    penalty = NoPeek().penalty((torch.randn(6, 3).double(),), half, moment())
    (gradient,) = torch.autograd.grad(penalty, half)
    assert gradient.dtype == torch.bfloat16
    assert torch.isfinite(gradient).all()


def test_settings_are_checked_and_it_stands_only_where_raw_numbers_are():
    assert defence_of("nopeek:0.5,euclidean") == NoPeek(weight=0.5, distance="euclidean")
    for weight in (0, -1, float("inf"), "much", True):
        with pytest.raises(StudyError, match="nopeek: weight cannot be that"):
            NoPeek(weight=weight)
    with pytest.raises(StudyError, match=r"distance cannot be that.*'squared' or 'euclidean'"):
        NoPeek(distance="cosine")
    place = Place(cut="a->b", shape=(4,), raw=("x",), labels="target", sent_labels=False, gradient=True)
    assert "no raw field" in NoPeek().misfit(place)
    place = dataclasses.replace(place, numbers=("x",))
    assert NoPeek().misfit(place) is None
    assert "not trained" in NoPeek().misfit(dataclasses.replace(place, gradient=False))


def test_where_tokens_go_in_it_is_refused_and_noise_is_not():
    tokens = torch.randint(0, 9, (32, 5))
    people = cl.data.arrays(tokens.numpy(), (tokens[:, 0] > 4).long().numpy()).split(
        {"client": "*"}, labels="server"
    )
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2))
    graph = cl.vanilla(model, "1", clients=people)
    with pytest.raises(GraphError, match="'nopeek' cannot stand at this cut: the sender holds no raw field"):
        cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), batch_size=8, defences=["nopeek"])
    private = ["dp-sgd:1,1", "gaussian:1,1"]  # which hide whole rows, whatever these are made of
    study = cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), batch_size=8, defences=private, evaluate=())
    told = [e for e in study.simulate(people).events if isinstance(e, Defended)]
    assert {e.defence.partition(":")[0] for e in told if "deviation added" in e.facts} == {
        "dp-sgd",
        "gaussian",
    }
