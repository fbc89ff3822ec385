"""Every schedule, each party by itself in a thread with its own part of the program: the bits of the simulation."""

import threading

import pytest
import torch
from small_studies import pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.metering.run_log import RunLog
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.runtime.party import LocalParty
from cutlayer.runtime.snapshots import Snapshots
from cutlayer.runtime.training import Trainer
from cutlayer.transports import MemoryHub
from cutlayer.wire import PlainSeal

PEOPLE = pooled(33)[0].split_rows(3)
NET = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3))
SCHEDULES = [
    cl.RoundRobin(turn=4, accumulate=4, in_flight=2, clip=0.5),
    cl.SplitFed(at_once=2, round=2),
    cl.SplitFed(version=2, accumulate=2, in_flight=2, clip=0.5),
    cl.SplitFed(version=3, sample=2),
    cl.Parallel(clip=0.5),
    cl.Parallel(batches="global", heads="averaged", round=2),
    cl.Asynchronous(round=1, staleness=1, speeds={"client-2": 4.0}, clip=0.5),
]


def apart(study, people=PEOPLE, leaves=()):
    """Train with a thread for each party; return the weights that each has in the end."""
    graph, cohorts = study.graph, Cohorts(study.graph, people)
    hub = MemoryHub([party.name for party in graph.parties])
    data = {party.name: party.splits for party in people.parties}
    trainers, failed = {}, []
    for party in graph.parties:
        settings = study.settings
        trainer = Trainer(
            study.course(cohorts.rows, leaves), settings, RunLog(), Snapshots(None), timeout_s=20, wary=True
        )
        end, seal, own = hub.end(party.name), PlainSeal(party=party.name), data.get(party.name, {})
        local = LocalParty(party.name, party.role, trainer.shared, end, seal, own, {})
        trainer.place({party.name: local})
        trainers[party.name] = trainer

    def train(trainer):
        try:
            trainer.train()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=train, args=[trainer]) for trainer in trainers.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    return {
        (name, segment): live.weights()
        for name, trainer in trainers.items()
        for segment, live in trainer.parties[name].live.items()
    }


@pytest.mark.parametrize("topology", ["vanilla", "u_shaped"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.describe())
def test_parties_apart_come_to_the_bits_of_the_simulation(schedule, topology):
    if topology == "vanilla":
        graph = cl.vanilla(NET, "1", clients=PEOPLE)
    else:
        graph = cl.u_shaped(NET, ("1", "3"), clients=PEOPLE)
    study = study_of(graph, schedule=schedule, batch_size=4)
    simulated = study.simulate(PEOPLE)._simulation.parties
    found = apart(study)
    expected = {(name, segment) for name, party in simulated.items() for segment in party.live}
    assert found.keys() == expected
    for (name, segment), weights in found.items():
        other = simulated[name].live[segment].weights()
        assert all(torch.equal(tensor, other[key]) for key, tensor in weights.items()), (name, segment)
