"""Each party on a device of its own: who is where, what is refused, and the same bits on the same kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from breaking import break_off
from small_studies import pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.runtime import simulate
from cutlayer.runtime.devices import check_devices, described, devices_of


def graph_of(people: object) -> cl.SplitGraph:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return cl.vanilla(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), "1", clients=people)


def same(one, other) -> bool:
    return all(
        torch.equal(tensor, other[segment][name]) for segment in one for name, tensor in one[segment].items()
    )


def test_a_party_wins_over_its_role_and_the_rest_is_on_the_cpu():
    graph = graph_of(pooled()[0].split_rows(3))
    everywhere = ["client-0", "client-1", "client-2", "server"]
    assert devices_of("cuda:1", graph) == dict.fromkeys(everywhere, "cuda:1")
    given = {"client": "cuda", "client-1": "cuda:1"}
    assert devices_of(given, graph) == dict(zip(everywhere, ["cuda", "cuda:1", "cuda", "cpu"], strict=True))
    assert described(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"servr": "cpu"}, "'servr', which is neither a party nor a role; did you mean 'server'"),
        ({"server": "gpu"}, "PyTorch knows no device 'gpu'; expected 'cpu', 'cuda' or 'cuda:1'"),
        ({"server": 0}, "PyTorch knows no device 0"),
        (0, "PyTorch knows no device 0"),
        ("meta", "nothing can be computed on the device 'meta' here"),
    ],
)
def test_what_cannot_be_is_refused(given, words):
    people = pooled()[0].split_rows(2)
    with pytest.raises(StudyError, match=words):
        study_of(graph_of(people), device=given)


def test_a_device_that_is_not_here_is_refused_when_it_is_used_and_its_party_is_named():
    people = pooled()[0].split_rows(2)
    study = study_of(graph_of(people), device={"server": "cuda:99"})  # another machine may have it
    with pytest.raises(StudyError, match=r"server: there is no such GPU: PyTorch can use \d+ here"):
        study.simulate(people)
    check_devices({"client-0": study.settings.devices["client-0"]})


@pytest.mark.parametrize("schedule", [cl.RoundRobin(), cl.SplitFed(), cl.Parallel(heads="averaged")])
def test_parties_work_where_they_are_said_to_with_the_same_bits(schedule, tmp_path, monkeypatch):
    people = pooled()[0].split_rows(2)
    graph = graph_of(people)
    here = study_of(graph, schedule=schedule, epochs=3)
    apart = replace(here, device={"server": "cpu:0", "client-1": "cpu:1"})
    assert here.digest == apart.digest
    made = []

    class Seen(simulate.Simulation):
        def __init__(self, *given, **more):
            super().__init__(*given, **more)
            made.append(self)

    monkeypatch.setattr("cutlayer.study.Simulation", Seen)
    whole = here.simulate(people).weights()

    break_off(apart, people, tmp_path)
    run = apart.simulate(people, out=tmp_path, resume=True)
    assert same(run.weights(), whole)
    parties = made[-1].parties
    places = {name: str(party.shared.device) for name, party in parties.items()}
    assert places == {"client-0": "cpu", "client-1": "cpu:1", "server": "cpu:0"}
    assert len({id(party.shared.workshop) for party in parties.values()}) == 3
    assert run.predict(torch.zeros(2, 6)).shape == (2, 3)
