"""Asynchronous split learning against a plain loop in the same order: the same bits."""

import copy

import pytest
import torch
from small_studies import pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.schedules import Op
from cutlayer.schedules.calendar import Batch
from cutlayer.schedules.steps import Step

SOURCE, X, Y = pooled(41)
LR = 0.1


def sgd(module):
    return torch.optim.SGD(module.parameters(), lr=LR, momentum=0.9)


@pytest.mark.parametrize("staleness", [0, 1, 4])
def test_mixing_as_copies_come_has_the_bits_of_a_plain_loop(staleness):
    people = SOURCE.split_rows(3)
    torch.manual_seed(4)
    graph = cl.vanilla(cl.networks.mlp((6, 8, 3)), 0.5, clients=people)
    schedule = cl.Asynchronous(staleness=staleness, round=2, speeds={"client-1": 3.0}, rate=0.6)
    study = study_of(
        graph, schedule=schedule, optimizer=cl.optim.SGD(lr=LR, momentum=0.9), batch_size=4, epochs=2
    )
    run = study.simulate(people)
    cohorts = Cohorts(graph, people)
    calendar = study.course(cohorts.rows).calendar
    head, top = (copy.deepcopy(graph.segments[name].module) for name in graph.order)
    optimizer, out, version = sgd(top), {}, 0
    for epoch in range(2):
        for item in schedule.epoch(graph, calendar, epoch):
            if isinstance(item, Step):
                batch = Batch.parse(item.batch)
                rows = cohorts.ids[batch.turn]["train"][calendar.positions(batch).numpy()]
                own, memory, _ = out[batch.turn]
                for each in (memory, optimizer):
                    each.zero_grad()
                nn.functional.cross_entropy(top(own(X[rows])), Y[rows]).backward()
                for each in (memory, optimizer):
                    each.step()
            elif item.op is Op.COPY:
                own = copy.deepcopy(head)
                out[int(item.what.split("#")[1])] = own, sgd(own), version
            elif item.op is Op.GIVE:
                own, _, taken = out.pop(int(item.what.split("#")[1]))
                share = round(1_000_000 * 0.6 / (1 + version - taken))
                mine, theirs = head.state_dict(), own.state_dict()
                mixed = {
                    k: (
                        (mine[k].double() * (1_000_000 - share) + theirs[k].double() * share) / 1_000_000
                    ).float()
                    for k in mine
                }
                head.load_state_dict(mixed)
                version += 1
    assert not out
    for name, module in (("head", head), ("top", top)):
        for key, tensor in module.state_dict().items():
            assert torch.equal(run.weights()[name][key], tensor), (name, key)
