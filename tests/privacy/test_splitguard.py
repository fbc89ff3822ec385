"""SplitGuard: silent with an honest server, an alarm where gradients do not depend on labels."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cutlayer as cl
from cutlayer.errors import AlarmError, GraphError, StudyError
from cutlayer.graph.parts import Ref
from cutlayer.metering.events import Defended
from cutlayer.privacy import Facts, Moment, Noise, defence_of
from cutlayer.privacy.splitguard import SplitGuard, guard_score
from cutlayer.schedules.actions import Op


def study(people, *defences, **more):
    torch.manual_seed(0)
    graph = cl.vanilla(cl.networks.mlp((64, 24, 10)), cut="activation1", clients=people)
    settings = {"batch_size": 32, "epochs": 12, "evaluate": (), **more}
    return cl.Study(graph=graph, optimizer=cl.optim.Adam(lr=2e-3), defences=list(defences), **settings)


def careless(scale: float = 1.0):
    """Return a server that sends gradients which go by the activations and not by labels."""

    def instead(party, action, honest):
        if action.op is not Op.SEND or party.name != "server":
            return honest
        ref = Ref("head", party.shared.blueprint.parcel(action.what)[0].names[0])

        def run(step, what):
            flight = party.flight(step)
            flight.gradients[ref] = [(0, scale * (flight.values[ref] - 0.5) / 32)]
            honest(step, what)

        return run

    return instead


def facts_of(run):
    return [
        event.facts for event in run.events if isinstance(event, Defended) and "splitguard" in event.defence
    ]


def test_an_honest_server_raises_no_alarm_and_learns():
    people = cl.data.digits().split_rows(1)
    run = study(people, SplitGuard(), epochs=8, evaluate=("test",)).simulate(people)
    told = facts_of(run)
    scores = [facts["score"] for facts in told if "score" in facts]
    assert len(scores) >= 7 and min(scores) > 0.95
    assert 0.04 < sum(f["rows with wrong labels"] for f in told) / (8 * 45) / 10 < 0.16
    assert run.metrics("test")["accuracy"] > 0.9


@pytest.mark.parametrize("scale", [1e-4, 1.0])
def test_gradients_that_do_not_depend_on_labels_raise_one(scale):
    people = cl.data.digits().split_rows(1)
    with pytest.raises(
        AlarmError, match=r"client-0, cut head->server, step \d+: .*see docs/alarms.md"
    ) as caught:
        study(people, SplitGuard()).simulate(people, instead=careless(scale))
    assert caught.value.sender == "server"
    assert caught.value.step < 400


def test_a_server_that_turns_dishonest_late_is_noticed():
    people, turned = cl.data.digits().split_rows(1), 300

    def instead(party, action, honest):
        cheat = careless()(party, action, honest)
        return lambda step, what: (cheat if step >= turned else honest)(step, what)

    with pytest.raises(AlarmError) as caught:
        study(people, SplitGuard(), epochs=30).simulate(people, instead=instead)
    assert turned < caught.value.step < turned + 600


def test_clients_remember_each_for_themselves():
    people = cl.data.digits().split_rows(3)
    run = study(people, SplitGuard(share=0.3, after=0)).simulate(people)
    told = {e.party for e in run.events if isinstance(e, Defended) and e.facts.get("score", 0) > 0.9}
    assert told == {"client-0", "client-1", "client-2"}


def test_rows_with_wrong_labels_do_not_train_the_client():
    people = cl.data.digits().split_rows(1)
    without = []

    def instead(party, action, honest):
        if action.op is not Op.RECEIVE or party.name != "client-0":
            return honest

        def run(step, what):
            honest(step, what)
            for parts in party.flight(step).gradients.values():
                without.append(int((parts[0][1].abs().sum(1) == 0).sum()))

        return run

    watched = study(people, SplitGuard(share=0.4, after=5, below=0.01), epochs=1, drop_last=True)
    run = watched.simulate(people, instead=instead)
    assert without[:5] == [0] * 5
    assert set(without) == {0, 10}
    assert sum(without) == sum(facts["rows with wrong labels"] for facts in facts_of(run)) > 50


def moment(labels, step=0, memory=None):
    return Moment(
        party="a", cut="a->b", step=step, training=True, fields={}, labels=labels,
        noise=Noise(b"0" * 16, step), facts=Facts(), memory={} if memory is None else memory,
    )  # fmt: skip


@given(st.integers(2, 9), st.integers(0, 10_000))
def test_wrong_labels_are_of_another_known_class(classes, seed):
    guard = SplitGuard(share=0.499, after=0, classes=classes)
    labels = torch.randint(classes, (40,), generator=torch.Generator().manual_seed(seed))
    sent = guard.labelling(labels, moment(labels, seed))
    changed = sent != labels
    assert int(changed.sum()) in (0, 13)
    assert set(sent.tolist()) <= set(range(classes))
    column = guard.labelling(labels[:, None].float(), moment(labels, seed))
    assert torch.equal(column[:, 0].long(), sent)
    assert column.dtype == torch.float32


def test_who_has_seen_one_class_alone_sends_right_labels():
    labels = torch.full((8,), 3)
    guard, memory = SplitGuard(share=0.499, after=0), {}
    assert all(torch.equal(guard.labelling(labels, moment(labels, n, memory)), labels) for n in range(20))


def test_the_score_is_one_for_opposite_gradients_and_a_quarter_for_equal_ones():
    regular = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert guard_score(-9 * regular, regular, regular) > 0.999
    assert guard_score(regular, regular, regular) == pytest.approx(0.25)
    assert guard_score(0 * regular, 0 * regular, 0 * regular) == pytest.approx(0.25)
    one, other = torch.tensor([[3.0, 0]]), torch.tensor([[0, 1.0]])
    assert guard_score(one, other, other) == pytest.approx(
        1 / (1 + math.exp(-5 * math.pi / 2)) ** 2, rel=1e-6
    )
    fake = torch.tensor([[2.0, 1.0]])
    to_one, to_other, apart = 3 - math.sqrt(5), math.sqrt(5) - 1, 2.0
    between = (math.acos(2 / math.sqrt(5)) * to_one + math.acos(1 / math.sqrt(5)) * to_other) / 2
    expected = (between - math.pi / 2 * apart) / ((to_one + to_other) / 2 + apart)
    assert guard_score(fake, one, other) == pytest.approx(1 / (1 + math.exp(-5 * expected)) ** 2, rel=1e-6)


def test_it_stands_only_where_labels_are_sent_along():
    people = cl.data.digits().split({"client": "*"}, labels="server")
    with pytest.raises(GraphError, match="no labels are sent along"):
        study(people, SplitGuard())
    with pytest.raises(StudyError, match="labels that are classes"):
        labels = torch.tensor([0.5, 1.0])
        SplitGuard().labelling(labels, moment(labels))
    with pytest.raises(StudyError, match=r"splitguard: share cannot be that; got 0\.7; expected above 0"):
        SplitGuard(share=0.7)


def test_its_word():
    assert defence_of("splitguard:0.2,after=5") == SplitGuard(share=0.2, after=5)
    assert "curious" in SplitGuard().statement()
    assert str(dataclasses.replace(SplitGuard(), scores=1)).startswith("splitguard:share=0.1,after=20")
