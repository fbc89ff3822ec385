"""Two clients with good rows, a small network of theirs, and ways to train it, also with frames meddled with."""

import numpy as np
import torch
from small_studies import study_of

import cutlayer as cl
from cutlayer.data import Holdings, Records
from cutlayer.metering.run_log import RunLog
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.runtime.simulate import Settings, Simulation
from cutlayer.schedules import Calendar

CLIENTS = {"c0": "client", "c1": "client"}
NET = cl.networks.mlp((6, 8, 7, 3))


def records(rows=12, seed=0, first=0, **fields):
    draw = torch.Generator().manual_seed(seed)
    known = {"x": torch.randn(rows, 6, generator=draw), "y": torch.arange(rows) % 3} | fields
    return Records(np.arange(first, first + rows), {name: t for name, t in known.items() if t is not None})


def clients(**second):
    """Two clients; the second one's splits are given."""
    return Holdings.of({"c0": {"train": records()}, "c1": second}, CLIENTS)


GOOD = clients(train=records(seed=1, first=20))
GRAPH = cl.vanilla(NET, "linear1", clients=GOOD)


def simulate(holdings, graph=GRAPH, **more):
    out, more = more.pop("out", None), {"batch_size": 4} | more
    return study_of(graph, **more).simulate(holdings, out=out)


class Meddling:
    """A transport's end whose frames somebody meddles with."""

    def __init__(self, end, heard, meddle):
        self.party, self._end, self._heard, self._meddle = end.party, end, heard, meddle

    def send(self, party, frame):
        frame = self._meddle(frame)
        if frame is not None:
            self._heard.append(bytes(frame))
            self._end.send(party, frame)

    def receive(self, party, timeout_s):
        return self._end.receive(party, timeout_s)

    def close(self):
        self._end.close()


def listening(graph=GRAPH, meddle=lambda frame: frame, handover="peer", out=None):
    """A simulation of GOOD whose frames are heard and meddled with."""
    heard, cohorts = [], Cohorts(graph, GOOD)
    settings = Settings(optimizers=dict.fromkeys(graph.order, cl.optim.SGD(lr=0.1)), epochs=2, seed=0)
    schedule, calendar = cl.RoundRobin(handover=handover), Calendar(cohorts.rows, 4)
    simulation = Simulation(graph, GOOD, schedule, calendar, cohorts, settings, RunLog(out))
    for party in simulation.parties.values():
        party.transport = Meddling(party.transport, heard, meddle)
    return simulation, heard
