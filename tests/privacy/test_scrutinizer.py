"""Gradients Scrutinizer: silent where gradients tell labels apart, an alarm where they do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cutlayer as cl
from cutlayer.errors import AlarmError, GraphError, StudyError
from cutlayer.graph.parts import Ref
from cutlayer.metering.events import Defended
from cutlayer.privacy import Facts, Moment, Noise, defence_of
from cutlayer.privacy.scrutinizer import Scrutinizer, scrutiny
from cutlayer.privacy.splitguard import SplitGuard
from cutlayer.schedules.actions import Op


def study(people, *defences, **more):
    torch.manual_seed(0)
    graph = cl.vanilla(cl.networks.mlp((64, 24, 10)), cut="activation1", clients=people)
    settings = {"batch_size": 32, "epochs": 8, "evaluate": (), **more}
    return cl.Study(graph=graph, optimizer=cl.optim.Adam(lr=2e-3), defences=list(defences), **settings)


def steering(party, action, honest):
    """Perform as a server that sends all rows the same way, whatever their label, and a little noise."""
    if action.op is not Op.SEND or party.name != "server":
        return honest
    ref = Ref("head", party.shared.blueprint.parcel(action.what)[0].names[0])

    def run(step, what):
        gradient = party.flight(step).gradients[ref][0][1]
        draws = torch.Generator().manual_seed(step)
        noise = torch.randn(gradient.shape, generator=draws)
        party.flight(step).gradients[ref] = [
            (0, (torch.linspace(-1, 1, gradient.shape[1]) + 0.3 * noise) / 32)
        ]
        honest(step, what)

    return run


def test_an_honest_server_raises_no_alarm():
    people = cl.data.digits().split_rows(1)
    run = study(people, Scrutinizer()).simulate(people)
    scores = [
        e.facts["score"] for e in run.events if isinstance(e, Defended) and e.defence.startswith("scrut")
    ]
    assert len(scores) == 8 - 1
    assert min(scores) > 0.1


def test_a_server_that_steers_raises_one():
    people = cl.data.digits().split_rows(1)
    with pytest.raises(
        AlarmError, match=r"client-0, cut head->server, step \d+: .*do not tell one label"
    ) as caught:
        study(people, Scrutinizer()).simulate(people, instead=steering)
    assert caught.value.sender == "server"
    assert caught.value.step == 20 + 30 + 10 - 2


def test_both_alarms_stand_beside_each_other():
    people = cl.data.digits().split_rows(2)
    run = study(people, "splitguard", "scrutinizer").simulate(people)
    told = {(e.party, e.defence.partition(":")[0]) for e in run.events if isinstance(e, Defended)}
    assert told == {(f"client-{n}", word) for n in (0, 1) for word in ("splitguard", "scrutinizer")}
    with pytest.raises(AlarmError):
        study(people, SplitGuard(), Scrutinizer()).simulate(people, instead=steering)


def test_a_run_is_the_same_with_it_as_without():
    people = cl.data.digits().split_rows(1)
    plain, watched = (study(people, *d, epochs=2).simulate(people).weights() for d in ((), (Scrutinizer(),)))
    assert all(torch.equal(plain[s][n], watched[s][n]) for s in plain for n in plain[s])


def test_a_u_shape_is_watched_where_its_labels_are():
    torch.manual_seed(0)
    people = cl.data.digits().split_rows(1)
    graph = cl.u_shaped(cl.networks.mlp((64, 24, 24, 10)), ("activation1", "activation2"), clients=people)
    watched = cl.Study(
        graph=graph, optimizer=cl.optim.Adam(lr=2e-3), batch_size=32, epochs=4, evaluate=(),
        defences={"head->server": [Scrutinizer()]},
    )  # fmt: skip
    scores = [e.facts["score"] for e in watched.simulate(people).events if "score" in getattr(e, "facts", ())]
    assert len(scores) >= 3 and min(scores) > 0.1


def look(same: float, other: float, spread: float, draws: np.random.Generator):
    pairs = [np.clip(draws.normal(mean, spread, 400), 0, 1) for mean in (same, other)]
    return same, other, *(np.histogram(values, 32, (0, 1))[0] for values in pairs)


def test_the_score_is_the_gap_where_labels_decide_and_none_where_they_do_not():
    draws = np.random.default_rng(0)
    apart = [look(0.9, 0.3, 0.01, draws) for _ in range(30)]
    assert scrutiny(apart) == pytest.approx(0.6, abs=0.01)
    mixed = [look(0.9, 0.3, 0.3, draws) for _ in range(30)]
    assert 0.3 < scrutiny(mixed) < 0.6
    assert scrutiny([look(0.7, 0.7, 0.1, draws) for _ in range(30)]) == 0
    assert scrutiny([look(0.3, 0.9, 0.1, draws) for _ in range(30)]) == 0
    slightly = [look(0.705, 0.7, 0.1, draws) for _ in range(30)]
    assert 0 < scrutiny(slightly) < 0.005


def test_the_fit_error_does_not_mind_that_similarity_changes_in_time():
    draws = np.random.default_rng(0)
    drifting = [look(0.5 + 0.01 * t, 0.2 + 0.01 * t, 0.01, draws) for t in range(30)]
    assert scrutiny(drifting) == pytest.approx(0.3 * (1 - _overlap(drifting)) ** 0.5, rel=0.01)


def _overlap(looks):
    parts = [np.mean([one[place] / one[place].sum() for one in looks], axis=0) for place in (2, 3)]
    return float(np.minimum(*parts).sum())


def moment(labels, memory):
    return Moment(
        party="a", cut="a->b", step=0, training=True, fields={}, labels=labels,
        noise=Noise(b"0" * 16), facts=Facts(), memory=memory,
    )  # fmt: skip


@pytest.mark.parametrize("labels", [torch.zeros(8), torch.arange(8)])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_batches_that_tell_nothing_are_passed_over(labels, scale):
    memory, gradient = {}, scale * torch.randn(8, 3)
    watch = Scrutinizer(after=0, batches=3, patience=1)
    for _ in range(20):
        assert watch.incoming(gradient, moment(labels, memory)) is gradient
    assert "low" not in memory


def test_rows_without_a_gradient_are_left_out():
    memory, labels = {}, torch.tensor([0, 0, 1, 1])
    gradient = torch.tensor([[1.0, 0], [0, 0], [0, 1], [0, 0]])
    Scrutinizer(after=0).incoming(gradient, moment(labels, memory))
    assert "looks" not in memory  # one row of each class is left, so no pair is of one label


def test_it_stands_only_where_labels_are():
    people = cl.data.digits().split({"client": "*"}, labels="server")
    with pytest.raises(GraphError, match="has no labels"):
        study(people, Scrutinizer())
    with pytest.raises(
        StudyError, match="scrutinizer: batches cannot be that; got 2; expected a whole number"
    ):
        Scrutinizer(batches=2)
    assert defence_of("scrutinizer:below=0.1") == Scrutinizer(below=0.1)
    assert "curious" in Scrutinizer().statement()
