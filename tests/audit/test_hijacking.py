"""Feature-space hijacking: a server that sends other gradients gets the clients' images, an honest one does not."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import cutlayer as cl
from cutlayer.audit import together, watch
from cutlayer.audit.hijacking import Hijacker, Hijacking, discriminator_of, inverse_of, pilot_of
from cutlayer.errors import DataError, GraphError, StudyError

HOW = Hijacking(batch_size=64, rate=3e-3, critic_rate=5e-3, critic_steps=2, warm_up=200, width=12)


@cache
def digits():
    found = load_digits()
    return torch.tensor(found.images[:, None], dtype=torch.float32) / 16, torch.tensor(found.target)


def client():
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU())


def holdings(parties: int = 1, labels: str | None = None):
    x, y = digits()
    source = cl.data.arrays(x[:800].numpy(), y[:800].numpy(), x[800:900].numpy(), y[800:900].numpy())
    return source.split({"client": "*"}, labels=labels) if labels else source.split_rows(parties)


def study(people, graph=None, **more):
    torch.manual_seed(0)
    model = nn.Sequential(client(), nn.Sequential(nn.Flatten(), nn.Linear(128, 10)))
    graph = graph or cl.vanilla(model, "0", clients=people)
    settings = {"batch_size": 32, "epochs": 10, "seed": 0, **more}
    return cl.Study(graph=graph, optimizer=cl.optim.Adam(lr=1e-2), **settings)


def error(hijacker, run):
    """Return the mean squared error of what the server makes of activations of the client's trained half."""
    x, _ = digits()
    trained = client()
    trained.load_state_dict({name.partition(".")[2]: w for name, w in run.weights()["head"].items()})
    with torch.no_grad():
        return float(functional.mse_loss(hijacker.reconstruct(trained(x[:200])), x[:200]))


class Onlooker(Hijacker):
    """Has the same networks and public rows, and learns as long, but sends the honest gradient."""

    def __call__(self, party, action, honest):
        before = super().__call__(party, action, lambda step, what: None)

        def run(step, what):
            kept = {ref: list(parts) for ref, parts in party.flight(step).gradients.items()}
            before(step, what)
            party.flight(step).gradients = kept
            honest(step, what)

        return honest if before is honest or action.party != "server" else run


def test_a_hijacked_client_is_opened_and_an_honest_servers_is_not():
    people = holdings()
    x, _ = digits()
    hijacker, onlooker = Hijacker(x[900:], HOW), Onlooker(x[900:], HOW)
    hijacked, honest = (study(people).simulate(people, instead=who) for who in (hijacker, onlooker))
    assert hijacker.steps == onlooker.steps == 10 * 25
    blind = float((x[:200] - x[900:].mean(0)).square().mean())
    assert error(hijacker, hijacked) < 0.75 * blind
    assert error(onlooker, honest) > blind
    assert hijacker.error < 0.5 * blind
    assert honest.metrics("test")["accuracy"] > 0.8
    assert hijacked.metrics("test")["loss"] > honest.metrics("test")["loss"]


def test_the_classifier_of_the_papers_equations_sends_gradients_too():
    people, (x, _) = holdings(), digits()
    hijacker = Hijacker(x[900:], Hijacking(wasserstein=False, batch_size=32))
    transcript, watching = watch("client-0")
    study(people, epochs=1).simulate(people, instead=together(hijacker, watching))
    (sent,) = {tuple(sight.rows.shape[1:]) for sight in transcript.sights("gradient")}
    assert sent == (8, 4, 4)
    assert hijacker.steps == 25


def test_what_the_client_gets_does_not_depend_on_labels():
    people, (x, _) = holdings(), digits()
    others = holdings()
    others.parties[0].splits["train"].fields["y"].zero_()
    weights = [
        study(whose, epochs=1).simulate(whose, instead=Hijacker(x[900:], HOW)).weights()["head"]
        for whose in (people, others)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_server_that_hides_mixes_in_the_gradient_of_the_task():
    people, (x, _) = holdings(), digits()
    mostly = Hijacker(x[900:], Hijacking(batch_size=32, task=0.9, width=4))
    plain = Hijacker(x[900:], Hijacking(batch_size=32, width=4))
    losses = [
        study(people, epochs=4).simulate(people, instead=who).metrics("test")["loss"]
        for who in (mostly, plain)
    ]
    assert losses[0] < losses[1]
    with pytest.raises(StudyError, match="task must be"):
        Hijacking(task=1.0)


def test_several_clients_and_a_u_shape_are_hijacked_alike():
    x, _ = digits()
    several = holdings(3)
    hijacker = Hijacker(x[900:], HOW)
    study(several, epochs=1).simulate(several, instead=hijacker)
    assert hijacker.steps == 3 * 9
    alone = holdings()
    model = nn.Sequential(client(), nn.Sequential(nn.Flatten(), nn.Linear(128, 16)), nn.Linear(16, 10))
    graph = cl.u_shaped(model, ("0", "1"), clients=alone)
    hijacker = Hijacker(x[900:], HOW)
    transcript, watching = watch("client-0")
    study(alone, graph, epochs=1).simulate(alone, instead=together(hijacker, watching))
    assert hijacker.steps == 25
    assert {tuple(sight.rows.shape[1:]) for sight in transcript.sights("gradient", cut="head<-body")} <= {
        (8, 4, 4)
    }


@pytest.mark.parametrize("row", [(1, 8, 8), (3, 9, 9), (20,)])
@pytest.mark.parametrize("cut", [(8, 4, 4), (4, 9, 9), (2, 3, 3), (12,)])
@pytest.mark.parametrize("low", [0.0, -1.0, -3.0])
def test_networks_fit_rows_and_features_in_shape_and_range(row, cut, low):
    rows, features = torch.rand(4, *row) * (1 - low) + low, torch.rand(4, *cut) * (1 - low) + low
    made = pilot_of(rows.shape[1:], features, 4)(rows)
    back = inverse_of(features.shape[1:], rows.shape[1:], 4)(features)
    assert made.shape == features.shape
    assert back.shape == rows.shape
    assert discriminator_of(features.shape[1:], 4)(features).shape == (4, 1)
    if low > -3:
        assert low <= float(made.detach().min()) and float(made.detach().max()) <= (1 if low else math.inf)


def test_what_cannot_be_is_refused():
    x, _ = digits()
    with pytest.raises(StudyError, match="critic_steps must be at least 1; got 0"):
        Hijacking(critic_steps=0)
    with pytest.raises(StudyError, match=r"rate must be above 0; got 0\.0"):
        Hijacking(rate=0.0)
    with pytest.raises(DataError, match="rows of its own"):
        Hijacker(x[0, 0].long())
    with pytest.raises(StudyError, match="seen no batch"):
        Hijacker(x).reconstruct(torch.zeros(2, 8, 4, 4))
    people = holdings()
    with pytest.raises(GraphError, match=r"'haed->server'; did you mean 'head->server'"):
        study(people).simulate(people, instead=Hijacker(x, Hijacking(cut="haed->server")))
