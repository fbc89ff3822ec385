"""Defences at work: what leaves, what comes back through them, what joins the loss, what is measured and told."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.errors import AlarmError, GraphError, StudyError
from cutlayer.graph.parts import Ref
from cutlayer.metering.events import Defended
from cutlayer.privacy import Defence, Place
from cutlayer.schedules.actions import Op


@dataclass(frozen=True)
class Double(Defence):
    word: ClassVar[str] = "double"

    def outgoing(self, activation, moment):
        moment.facts.add("mean", float(activation.detach().mean()))
        moment.facts.count("batches")
        return activation * 2


@dataclass(frozen=True)
class Noisy(Defence):
    word: ClassVar[str] = "noisy"

    def outgoing(self, activation, moment):
        return activation + moment.noise.normal(activation)


@dataclass(frozen=True)
class Small(Defence):
    word: ClassVar[str] = "small"
    weight: float = 1.0

    def penalty(self, inputs, activation, moment):
        assert [tuple(rows.shape) for rows in inputs] == [(len(activation), 4)]
        return self.weight * activation.square().mean()


@dataclass(frozen=True)
class Halved(Defence):
    word: ClassVar[str] = "halved"

    def returning(self, gradient, moment):
        assert moment.labels is not None
        return gradient / 2


@dataclass(frozen=True)
class Deaf(Defence):
    word: ClassVar[str] = "deaf"
    at: int = 3

    def incoming(self, gradient, moment):
        if moment.step == self.at:
            raise AlarmError("too odd", party=moment.party, cut=moment.cut, step=moment.step)
        return None


@dataclass(frozen=True)
class Flipped(Defence):
    word: ClassVar[str] = "flipped"

    def misfit(self, place: Place) -> str | None:
        return None if place.sent_labels else "no labels cross beside it"

    def labelling(self, labels, moment):
        return 1 - labels


def holdings(where: str = "server"):
    torch.manual_seed(0)
    x = torch.randn(48, 4)
    y = (x[:, 0] > 0).long()
    source = cl.data.arrays(x.numpy(), y.numpy()).hold_out(test=1 / 3, seed=0)
    return source.split({"client": "*"}, labels=where) if where else source.split_rows(1)


def study(people, **more):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    graph = cl.vanilla(model, "1", clients=people)
    return cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), batch_size=8, epochs=2, **more)


def same(one, other):
    return all(torch.equal(t, other[s][n]) for s, state in one.items() for n, t in state.items())


def test_what_leaves_is_changed_and_the_gradient_goes_back_through_it():
    people = holdings()
    run = study(people, defences=[Double()]).simulate(people)

    class Doubled(nn.Module):
        def forward(self, x):
            return x * 2

    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), Doubled(), nn.Linear(6, 2))
    inside = dataclasses.replace(study(people), graph=cl.vanilla(model, "2", clients=people)).simulate(people)
    assert same({"head": run.weights()["head"]}, {"head": inside.weights()["head"]})
    noted = [e for e in run.events if isinstance(e, Defended) and e.defence == "double"]
    assert [(e.epoch, e.cut, e.party) for e in noted] == [
        (0, "head->server", "client"),
        (1, "head->server", "client"),
    ]
    assert noted[0].facts["batches"] == 4 + 1  # one batch of the test rows


def test_noise_follows_from_the_partys_secret_and_is_new_in_each_step():
    people = holdings()
    noisy = study(people, defences=[Noisy()])
    assert same(noisy.simulate(people).weights(), noisy.simulate(people).weights())
    assert not same(noisy.simulate(people).weights(), study(people).simulate(people).weights())


def test_two_tensors_of_one_cut_never_have_the_same_noise():
    """Equal noise on both would show their difference as it is."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(4, 6), nn.Linear(4, 6)

        def forward(self, x):
            return self.one(x), self.other(x)

    class Joined(nn.Linear):
        def forward(self, a, b):
            return super().forward(torch.cat([a, b], 1))

    people, seen = holdings(), {}
    segments = [
        cl.Segment("head", "client", Two(), ("x",), ("a", "b")),
        cl.Segment("top", "server", Joined(12, 2), ("head:a", "head:b")),
    ]
    graph = cl.SplitGraph.over(people, segments=segments, losses=[cl.Loss(role="server", prediction="top")])
    twice = dataclasses.replace(study(people), graph=graph, defences=[Noisy()])

    def instead(party, action, honest):
        def run(step, what):
            honest(step, what)
            values = party.flight(step).values
            if party.name == "client" and action.op is Op.SEND:
                seen[step] = [
                    values[Ref("head->server", name)].detach() - values[Ref("head", name)].detach()
                    for name in ("a", "b")
                ]

        return run

    twice.simulate(people, instead=instead)
    assert seen
    for one, other in seen.values():
        assert float((one - other).abs().mean()) > 0.5


def test_a_penalty_joins_the_loss_of_the_sender_alone():
    people = holdings()
    plain, small = study(people).simulate(people), study(people, defences=[Small(5.0)]).simulate(people)
    assert not same(plain.weights(), small.weights())
    x = torch.randn(64, 4)
    norms = []
    for run in (plain, small):
        weights = run.weights()["head"]
        name = next(n for n in weights if n.endswith("weight"))
        norms.append(float(torch.tanh(x @ weights[name].T).square().mean()))
    assert norms[1] < norms[0]
    assert same(study(people, defences=[Small(0.0)]).simulate(people).weights(), plain.weights())


def test_the_label_holder_changes_what_it_sends_back():
    people = holdings()
    halved = study(people, defences={"head<-server": [Halved()]})
    both = {"head": cl.optim.SGD(lr=0.05), "top": cl.optim.SGD(lr=0.1)}
    slower = study(people)
    slower = dataclasses.replace(slower, optimizer=both)
    assert same(halved.simulate(people).weights(), slower.simulate(people).weights())


def test_what_gradients_tell_of_labels_is_measured_where_the_other_side_has_none():
    people = holdings()
    found = [e for e in study(people).simulate(people).events if isinstance(e, Defended)]
    assert [e.defence for e in found] == ["label leak"] * 2
    assert {e.party for e in found} == {"server"}
    assert 0 <= found[0].facts["leak AUC by norm"] <= 1
    assert 0 <= found[0].facts["leak AUC by cosine"] <= 1
    shared = holdings("")
    assert not [e for e in study(shared).simulate(shared).events if isinstance(e, Defended)]


def test_a_monitor_drops_gradients_and_stops_the_part():
    people = holdings()
    with pytest.raises(AlarmError, match="client, cut head->server, step 3: too odd") as caught:
        study(people, defences=[Deaf()]).simulate(people)
    assert caught.value.sender == "server"
    deaf = study(people, defences=[Deaf(at=-1)]).simulate(people)
    graph = study(people).graph
    assert same({"head": deaf.weights()["head"]}, {"head": dict(graph.segments["head"].module.state_dict())})


def test_labels_that_are_sent_along_may_be_others():
    people = holdings("")
    flipped = study(people, defences=[Flipped()]).simulate(people)
    assert flipped.metrics("test")["accuracy"] < study(people).simulate(people).metrics("test")["accuracy"]
    with pytest.raises(GraphError, match="'flipped' cannot stand at this cut: no labels cross"):
        study(holdings(), defences=[Flipped()])


def test_defences_are_agreed_on_and_have_no_uncut_twin():
    people = holdings()
    plain, doubled = study(people), study(people, defences=[Double()])
    assert "defences" in {n for n in plain.parts if plain.parts[n] != doubled.parts[n]}
    with pytest.raises(StudyError, match="no twin"):
        doubled.central(people)
    again = dataclasses.replace(doubled, defences=())
    assert again.digest == plain.digest
    assert doubled.graph.with_codecs("int8").cuts[0].defences == (Double(),)


def test_an_action_can_be_watched_and_replaced():
    people, seen = holdings(), []

    def instead(party, action, honest):
        if action.op is not Op.SEND or party.name != "client":
            return honest

        def run(step, what):
            seen.append((action.what, step))
            honest(step, what)

        return run

    plain = study(people).simulate(people)
    watched = study(people).simulate(people, instead=instead)
    assert same(plain.weights(), watched.weights())
    assert len(seen) == 2 * 4 + 2
    assert seen[0] == ("head->server", 0)


def test_unknown_words_and_cuts_are_told():
    people = holdings()
    with pytest.raises(StudyError, match="no defence is named 'nopeak'"):
        study(people, defences=["nopeak:0.1"])
    with pytest.raises(GraphError, match=r"unknown cut 'haed->server'.*head->server"):
        study(people, defences={"haed->server": [Double()]})


@pytest.mark.parametrize(("labels", "apart"), [("", 0), ("server", 1)])
def test_a_cut_without_defences_is_crossed_by_the_same_runners_as_ever(labels, apart):
    """Only gradients for a party without labels pass the measure of leaks, on a few batches of an epoch."""
    people, made = holdings(labels), []

    def instead(party, action, honest):
        if "->" in action.what or "<-" in action.what:
            made.append(honest.__module__)
        return honest

    study(people).simulate(people, instead=instead)
    assert made.count("cutlayer.runtime.defending") == apart
    assert made.count("cutlayer.runtime.crossing") == len(made) - apart > 2
