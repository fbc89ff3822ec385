"""One unprotected run on real digits that several attacks are tried on, with what each side saw and the truth."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import cutlayer as cl
from cutlayer.audit import Attack, Guess, Knowledge, Transcript, Truth, together, watch


@dataclass(frozen=True)
class Audited:
    client: nn.Module
    own: nn.Module
    fresh: nn.Module
    at_server: Transcript
    at_client: Transcript
    server_truth: Truth
    client_truth: Truth
    public_x: Tensor
    public_y: Tensor
    people: cl.data.Holdings

    def known(self, **more) -> Knowledge:
        return Knowledge(shape=(1, 8, 8), low=0.0, high=1.0, classes=10, **more)

    def leaked(self, batches: int) -> Knowledge:
        """Return what an adversary knows whom the client's last training batches leaked to."""
        sights = self.at_server.sights("activation", training=True)[-batches:]
        z = torch.cat([sight.rows for sight in sights])
        return self.known(leaked_x=self.server_truth.rows(sights, "x"), leaked_z=z)


def network(seed: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)
    )


@functools.cache
def audited(rarer: bool = False, epochs: int = 6) -> Audited:
    """Return the run: of ten classes, or of two, one of them a ninth as frequent as the other."""
    digits = load_digits()
    x = (digits.images[:, None] / 16).astype("float32")
    y = (digits.target == 8).astype("int64") if rarer else digits.target
    source = cl.data.arrays(x[:900], y[:900], x[900:1150], y[900:1150])
    people = source.split({"client": "*"}, labels="server")
    graph = cl.vanilla(network(), "1", clients=people)
    study = cl.Study(graph=graph, optimizer=cl.optim.Adam(lr=3e-3), batch_size=50, epochs=epochs)
    (server, first), (client, second) = watch("server", states_every=1), watch("client")
    truths = Truth(people, server), Truth(people, client)
    run = study.simulate(people, instead=together(first, second, *(t.instead for t in truths)))
    assert run.metrics()["accuracy"] > 0.8
    trained = network()
    head = trained[:2]
    head.load_state_dict(dict(zip(head.state_dict(), run.weights()["head"].values(), strict=True)))
    own = graph.segments["top"].module
    own.load_state_dict(run.weights()["top"])
    return Audited(
        client=head, own=own, fresh=network(77)[:2], at_server=server, at_client=client,
        server_truth=truths[0], client_truth=truths[1], people=people,
        public_x=torch.from_numpy(x[1150:]), public_y=torch.from_numpy(y[1150:]),
    )  # fmt: skip


def both(attack: Attack, seen: Transcript, known: Knowledge) -> tuple[Guess, Guess]:
    """Return what the attack says and what a blind guess says, after a look at their rows."""
    guess = attack.guess(seen, known, seed=0)
    blind = attack.blind(guess, known, seed=0)
    assert torch.equal(guess.at, blind.at)
    for name in ("inputs", "labels", "scores"):
        one, other = getattr(guess, name), getattr(blind, name)
        assert (one is None) == (other is None)
        assert one is None or one.shape == other.shape
        assert one is None or len(one) == len(guess.at)
    return guess, blind
