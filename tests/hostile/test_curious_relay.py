"""Clients whose activations go to another client by way of the server: it relays them and learns nothing of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from curious import Kept, contents, found, runs_of, runs_of_snapshots
from hostile_stage import CLIENTS, Stage, unlike
from torch import nn

from cutlayer import Study, extended_vanilla, multi_hop, optim
from cutlayer.data import arrays
from cutlayer.keys.sealing import Sealer
from cutlayer.sessions.participant import Part
from cutlayer.wire import Kind

FIRST, SECOND, THIRD = CLIENTS
PAIRS = {
    "multi_hop": {(FIRST, THIRD), (THIRD, FIRST), (SECOND, THIRD), (THIRD, SECOND), (FIRST, SECOND), (SECOND, FIRST)},
    "extended_vanilla": {(FIRST, THIRD), (THIRD, FIRST), (SECOND, THIRD), (THIRD, SECOND)},
}  # fmt: skip
"""Who sends tensors to whom without their being for the server: to the third and back, and hand-overs."""


def make_study(topology: str):
    """Return a study in which the third client works between the two others and the server; the same one each time."""
    draw = np.random.default_rng(5)
    x = draw.normal(size=(48, 6)).astype(np.float32)
    rows = arrays(x, x[:, :3].argmax(1).astype(np.int64))
    if topology == "multi_hop":
        people = rows.split_rows(2)
        layers = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3)
        graph = multi_hop(filled(nn.Sequential(*layers), draw), cuts=("2", "4"), clients=people, hops=[THIRD])
    else:
        people = rows.split_columns({FIRST: slice(0, 3), SECOND: slice(3, 6)}, labels="server")
        graph = extended_vanilla(
            {name: filled(nn.Sequential(nn.Linear(3, 5), nn.Tanh()), draw) for name in (FIRST, SECOND)},
            filled(nn.Sequential(nn.Linear(10, 7), nn.Tanh()), draw),
            filled(nn.Linear(7, 3), draw),
            parties=people,
            worker=THIRD,
        )
    optimizer = optim.SGD(lr=0.05, momentum=0.9)
    return Study(graph=graph, optimizer=optimizer, batch_size=6, epochs=2), people


def filled(module: nn.Module, draw: np.random.Generator) -> nn.Module:
    """Return ``module`` with weights that do not come from PyTorch's generator, which other threads seed meanwhile."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(draw.normal(0.1, 0.3, parameter.shape)))
    return module


class RelayedStage(Stage):
    """The stage of such a study."""

    def part(self, name: str, **changed) -> Part:
        study, people = make_study(**(self.made | changed))
        data = next((p for p in people.parties if p.name == name), None)
        return Part(study=study, party=name, host="server", data=data, folder=self.folder / name, every=2)

    def check(self) -> None:
        for one in (self.host, *self.parties.values()):
            one.wait()
        study, people = make_study(**self.made)
        assert not unlike(self.folder, study.simulate(people).weights())


@pytest.fixture
def kept(monkeypatch):
    return Kept.watching(monkeypatch)


@pytest.mark.parametrize("topology", PAIRS)
def test_the_server_finds_nothing_of_what_clients_send_each_other(tmp_path, keys, kept, topology):
    stage = RelayedStage(tmp_path, keys, study={"topology": topology})
    stage.join(*CLIENTS)
    stage.check()
    secrets: dict[str, set[bytes]] = {"weights": runs_of_snapshots(tmp_path, CLIENTS)}
    for _, _, frame in kept.spoken:
        kind, tensors = contents(frame)
        secrets.setdefault(kind.name, set()).update(runs_of(tensors))
    kinds = {Kind.ACTIVATION, Kind.GRADIENT} | ({Kind.HANDOVER} if topology == "multi_hop" else set())
    assert all(len(secrets[kind.name]) > 100 for kind in kinds)
    assert len(secrets["weights"]) > 100
    assert {(sender, to) for sender, to, _ in kept.spoken} == PAIRS[topology]
    assert len(kept.relayed) >= len(kept.spoken)
    assert len(kept.received) > 10
    assert not found(set().union(*secrets.values()), kept.handled)


@pytest.mark.parametrize("topology", PAIRS)
def test_the_search_finds_each_kind_where_nothing_is_sealed(tmp_path, keys, kept, monkeypatch, topology):
    monkeypatch.setattr(Sealer, "seal", lambda self, frame, to: memoryview(frame))
    monkeypatch.setattr(Sealer, "open", lambda self, sealed, sender: memoryview(sealed))
    stage = RelayedStage(tmp_path, keys, study={"topology": topology})
    stage.join(*CLIENTS)
    stage.check()
    for wanted in (Kind.ACTIVATION, Kind.GRADIENT):
        said = [frame for *_, frame in kept.spoken if contents(frame)[0] is wanted]
        assert len(found(runs_of([contents(frame)[1] for frame in said]), kept.handled)) >= len(said)
