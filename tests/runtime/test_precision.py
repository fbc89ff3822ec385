"""Segments in bfloat16: equal to a plain loop under autocast; cuts, states and losses stay float32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from breaking import break_off
from putting_off import weights_put_off
from small_studies import MOMENTUM, batches, pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.metering.events import Computed, Traffic


def net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
        )  # fmt: skip


def same(one, other) -> bool:
    return all(
        torch.equal(tensor, other[segment][name]) for segment in one for name, tensor in one[segment].items()
    )


def frames(run) -> list[Traffic]:
    return [event for event in run.events if isinstance(event, Traffic)]


class Autocast(nn.Module):
    """A part of a network under autocast, as one writes it by hand, its result in float32."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            made = self.part(x)
        return made.float()


@pytest.mark.parametrize(
    "precision", ["bfloat16", {"top": "bfloat16"}, {"head": "bfloat16", "top": "float32"}]
)
def test_it_equals_a_loop_by_hand_with_autocast_around_the_same_parts(precision):
    source, x, y = pooled()
    people = source.split_rows(2)
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)]
    model = nn.Sequential(*layers)
    study = study_of(cl.vanilla(model, "1", clients=people), precision=precision)
    run = study.simulate(people)
    mixed = dict.fromkeys(("head", "top"), precision) if isinstance(precision, str) else precision
    head, top = nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:])
    run_head = Autocast(head) if mixed.get("head") == "bfloat16" else head
    run_top = Autocast(top) if mixed.get("top") == "bfloat16" else top
    optimizer = torch.optim.SGD(model.parameters(), **MOMENTUM)
    loss_of = nn.CrossEntropyLoss()
    for _, rows in batches(study, people):
        made = run_head(x[rows])
        cut = made.detach().requires_grad_()
        loss = loss_of(run_top(cut), y[rows])
        assert loss.dtype is torch.float32
        optimizer.zero_grad()
        loss.backward()
        assert cut.grad.dtype is torch.float32
        made.backward(cut.grad)
        optimizer.step()
    origin = {name: segment.origin for name, segment in study.graph.segments.items()}
    weights = {origin[s][n]: t for s, state in run.weights().items() for n, t in state.items()}
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    plain = study_of(study.graph).simulate(people)
    assert not same(run.weights(), plain.weights())


def test_frames_state_and_flops_are_those_of_float32():
    source, _, _ = pooled()
    people = source.split_rows(2)
    graph = cl.u_shaped(net(), cuts=("1", "4"), clients=people)
    plain, mixed = (study_of(graph, precision=word).simulate(people) for word in ("float32", "bfloat16"))
    assert frames(mixed) == frames(plain)
    dtypes = {tensor.dtype for state in mixed.weights().values() for tensor in state.values()}
    assert dtypes == {torch.float32, torch.int64}  # BatchNorm counts batches
    assert [e for e in mixed.events if isinstance(e, Computed)] == [
        e for e in plain.events if isinstance(e, Computed)
    ]
    assert mixed.predict(torch.zeros(4, 6)).dtype is torch.float32


def small(schedule: object, **more: object):
    """Return a study of two clients with that schedule, and the clients."""
    source, _, _ = pooled()
    people = source.split_rows(2)
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)]
    graph = cl.vanilla(nn.Sequential(*layers), "1", clients=people)
    return study_of(graph, schedule=schedule, batch_size=4, **more), people


@pytest.mark.parametrize(
    "schedule", [cl.RoundRobin(turn=1, clip=0.5), cl.RoundRobin(handover="server", turn=2)]
)
def test_it_equals_the_twin(schedule):
    study, people = small(schedule, precision="bfloat16")
    assert study.simulate(people).equals(study.central(people))


@pytest.mark.parametrize(
    "schedule",
    [
        cl.RoundRobin(turn=2, accumulate=2),
        cl.RoundRobin(accumulate=2, in_flight=2),
        cl.Parallel(heads="averaged"),
        cl.SplitFed(),
        cl.Asynchronous(),
    ],
)
def test_every_schedule_sends_the_same_frames_and_comes_close(schedule):
    (plain, people), (mixed, _) = small(schedule), small(schedule, precision="bfloat16")
    mixed = replace(mixed, graph=plain.graph)
    one, other = plain.simulate(people), mixed.simulate(people)
    assert frames(one) == frames(other)
    weights, close = one.weights(), other.weights()
    assert not same(weights, close)
    for segment, state in weights.items():
        for name, tensor in state.items():
            torch.testing.assert_close(close[segment][name], tensor, atol=0.02, rtol=0.05)


@pytest.mark.parametrize(
    "precision", ["bfloat16", {"body": "bfloat16"}, {"head": "bfloat16", "tail": "bfloat16"}]
)
def test_a_u_shape_with_dropout_equals_its_twin_in_weights_and_metrics(precision):
    source, _, _ = pooled()
    people = source.split_rows(3)
    study = study_of(cl.u_shaped(net(), cuts=("1", "4"), clients=people), precision=precision)
    run, twin = study.simulate(people), study.central(people)
    assert run.equals(twin)
    assert run.metrics()["loss"] == pytest.approx(twin.metrics()["loss"]["loss"], rel=1e-6)


def test_a_vertical_study_equals_its_twin():
    people = cl.data.breast_cancer().split_columns({"imaging": ["mean *"], "pathology": ["worst *"]})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        graph = cl.vertical(
            {"imaging": nn.Linear(10, 4), "pathology": nn.Linear(10, 4)}, nn.Sequential(nn.ReLU(), nn.Linear(8, 2)),
            parties=people,
        )  # fmt: skip
    study = study_of(graph, batch_size=100, epochs=1, precision={"pathology": "bfloat16", "top": "bfloat16"})
    assert study.simulate(people).equals(study.central(people))


def test_a_bfloat16_codec_changes_nothing_where_both_ends_of_the_cut_are_bfloat16():
    source, _, _ = pooled()
    people = source.split_rows(2)
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)]
    made = {}
    for codecs in (None, "bfloat16"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            graph = cl.vanilla(nn.Sequential(*layers), "1", clients=people, codecs=codecs)
        made[codecs] = study_of(graph, precision="bfloat16", evaluate=()).simulate(people)
    assert same(made[None].weights(), made["bfloat16"].weights())
    sizes = [
        sum(e.tensor_bytes for e in frames(run) if e.content in ("activation", "gradient")) for run in made.values()
    ]  # fmt: skip
    assert sizes[1] * 2 == sizes[0]


def test_the_bits_are_the_same_when_weights_gradients_are_put_off(monkeypatch):
    source, _, _ = pooled()
    people = source.split_rows(2)
    study = study_of(cl.u_shaped(net(), cuts=("1", "4"), clients=people), precision="bfloat16", evaluate=())
    at_once = study.simulate(people).weights()
    put_off = weights_put_off(monkeypatch)
    assert same(study.simulate(people).weights(), at_once)
    assert len(put_off) > 10 and None not in put_off


def test_a_run_in_bfloat16_goes_on_with_the_same_bits(tmp_path):
    source, _, _ = pooled()
    people = source.split_rows(2)
    study = study_of(cl.vanilla(net(), "1", clients=people), precision="bfloat16", epochs=3)
    whole = study.simulate(people).weights()

    break_off(study, people, tmp_path)
    assert same(study.simulate(people, out=tmp_path, resume=True).weights(), whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"precision": "float16"}, "'float16' is not offered: its gradients vanish.*say 'bfloat16'"),
        (
            {"precision": "bf16"},
            "no precision 'bf16'; expected 'float32' or 'bfloat16'; did you mean 'bfloat16'",
        ),
        ({"precision": {"tpo": "bfloat16"}}, "unknown segment 'tpo'; did you mean 'top'"),
        ({"precision": {"top": "float16"}}, "'float16' is not offered"),
        ({"compiled": ("tpo",)}, "no segment 'tpo' to compile; did you mean 'top'"),
        (
            {"compiled": "top"},
            r"compiled is of the wrong kind; got 'top'; expected names of segments in a list",
        ),
    ],
)
def test_what_cannot_be_is_refused(change, words):
    graph = cl.vanilla(net(), "1", clients=2, example=torch.rand(4, 6))
    with pytest.raises(StudyError, match=words):
        study_of(graph, **change)


def test_the_study_says_how_it_computes():
    graph = cl.vanilla(net(), "1", clients=2, example=torch.rand(4, 6))
    told = study_of(graph, precision={"top": "bfloat16"}, compiled=["top"]).describe()
    assert "precision   bfloat16 in top, float32 elsewhere\ncompiled    top\n" in told
    assert "precision" not in study_of(graph).describe()
