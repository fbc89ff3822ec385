"""SplitFed, every version, against plain loops with nothing but PyTorch: the same bits."""

import copy
from functools import cache

import pytest
import torch
from small_studies import pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.metering.run_log import RunLog
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.runtime.simulate import Simulation
from cutlayer.schedules import SplitFed
from cutlayer.schedules.calendar import Batch

SOURCE, X, Y = pooled(31)
LR = 0.1
MOMENTUM = cl.optim.SGD(lr=LR, momentum=0.9)


@cache
def people():
    return SOURCE.split_rows(3)  # 11, 10 and 10 rows


@cache
def graph():
    torch.manual_seed(5)
    net = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3)
    )
    return cl.vanilla(net, "2", clients=people())


def steps_of(study, epoch, share):
    """Return the row numbers of each batch that a share of a round has."""
    cohorts = Cohorts(study.graph, people())
    calendar = study.course(cohorts.rows).calendar
    ids = cohorts.ids[share.turn]["train"]
    numbers = range(share.first, share.end)
    return [ids[calendar.positions(Batch("train", share.turn, epoch, n)).numpy()] for n in numbers]


def weighted_mean(states, rows):
    """Return the mean of state dicts; of counters, the largest."""
    mean = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            total = sum(state[name].double() * n for state, n in zip(states, rows, strict=True))
            mean[name] = (total / sum(rows)).to(first.dtype)
        else:
            mean[name] = torch.stack([state[name] for state in states]).max()
    return mean


def train(head, top, batches, head_optimizer, top_optimizer):
    for rows in batches:
        head_optimizer.zero_grad()
        top_optimizer.zero_grad()
        nn.functional.cross_entropy(top(head(X[rows])), Y[rows]).backward()
        head_optimizer.step()
        top_optimizer.step()


def sgd(module):
    return torch.optim.SGD(module.parameters(), lr=LR, momentum=0.9)


def by_hand(study):
    """Return the weights of head (of each client, where each has its own) and top after SplitFed as in the paper."""
    schedule, calendar = study.schedule, study.course(Cohorts(study.graph, people()).rows).calendar
    modules = (study.graph.segments[name].module for name in study.graph.order)
    head, top = (copy.deepcopy(module).train() for module in modules)
    private = {turn: copy.deepcopy(head) for turn in range(3)}
    memory = {turn: sgd(module) for turn, module in private.items()}
    the_top = sgd(top)
    for epoch in range(study.epochs):
        for number in range(schedule.rounds(calendar, epoch)):
            heads, tops, rows = [], [], []
            shares = schedule.shares(study.graph, calendar, epoch, number)
            for share in shares:
                own = private[share.turn] if schedule.version == 3 else copy.deepcopy(head)
                own_memory = memory[share.turn] if schedule.version == 3 else sgd(own)
                its_top = top if schedule.version == 2 else copy.deepcopy(top)
                batches = steps_of(study, epoch, share)
                train(own, its_top, batches, own_memory, the_top if schedule.version == 2 else sgd(its_top))
                heads.append(own.state_dict())
                tops.append(its_top.state_dict())
                rows.append(sum(map(len, batches)))
            if shares and schedule.version != 3:
                head.load_state_dict(weighted_mean(heads, rows))
            if shares and schedule.version != 2:
                top.load_state_dict(weighted_mean(tops, rows))
    found = (
        {turn: m.state_dict() for turn, m in private.items()} if schedule.version == 3 else head.state_dict()
    )
    return found, top.state_dict()


def splitfed(**more):
    return study_of(graph(), schedule=SplitFed(**more), optimizer=MOMENTUM, batch_size=4, epochs=3)


def assert_same(split, plain):
    assert split.keys() == plain.keys()
    assert not [name for name in plain if not torch.equal(split[name], plain[name])]


@pytest.mark.parametrize("round_", [0, 1])
@pytest.mark.parametrize("more", [{}, {"sample": 2}], ids=["everybody", "two of three"])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_splitfed_has_the_bits_of_a_plain_loop(version, more, round_):
    study = splitfed(version=version, round=round_, at_once=1, **more)
    run, (head, top) = study.simulate(people()), by_hand(study)
    assert_same(run.weights()["top"], top)
    if version == 3:
        for turn, own in head.items():
            assert_same(run._simulation.parties[f"client-{turn}"].live["head"].weights(), own)
        assert not torch.equal(head[0]["0.weight"], head[1]["0.weight"])
    else:
        assert_same(run.weights()["head"], head)
        for turn in range(3):  # everybody gets the last average
            assert_same(run._simulation.parties[f"client-{turn}"].live["head"].weights(), head)


@pytest.mark.parametrize("version", [1, 3])
def test_how_many_work_at_once_changes_no_bit_of_averages(version):
    one, many = (splitfed(version=version, at_once=n).simulate(people()).weights() for n in (1, 16))
    for name in one:
        assert_same(one[name], many[name])


def test_no_more_copies_are_alive_than_clients_at_work():
    most = []

    class Counting(Simulation):
        def _loss(self, step, name, value, rows):
            super()._loss(step, name, value, rows)
            most.append(sum("#" in name for party in self.parties.values() for name in party.live))

    study = splitfed(at_once=2)
    simulate(study, Counting)
    assert max(most) == 4  # two of the head, two of the top
    assert len(Counting.made.shared.workshop._free["top"]) == 2  # and no more were ever made


def simulate(study, kind=Simulation, folder=None, resume=False):
    cohorts = Cohorts(study.graph, people())
    calendar = study.course(cohorts.rows).calendar
    log = RunLog(folder, append=resume)
    made = kind.made = kind(study.graph, people(), study.schedule, calendar, cohorts, study.settings, log)
    try:
        made.train(*([made.resume()] if resume else []))
    finally:
        log.close()
    return made


class Often(Simulation):
    """Keeps a snapshot after every step."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._every = 1


class BreaksOff(Often):
    """Breaks off in the middle of the second round, when one client's copies are merged and others at work."""

    def _loss(self, step, name, value, rows):
        super()._loss(step, name, value, rows)
        if step == self.course.calendar.first_step(1) + 7:
            copies = [name for party in self.parties.values() for name in party.live if "#" in name]
            assert self.parties["server"].kept and copies
            raise KeyboardInterrupt


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_run_goes_on_in_the_middle_of_a_round(tmp_path, version):
    study = splitfed(version=version, at_once=2)
    whole = simulate(study).weights()
    with pytest.raises(KeyboardInterrupt):
        simulate(study, BreaksOff, tmp_path / "run")
    resumed = simulate(study, Often, tmp_path / "run", resume=True)
    for name, weights in resumed.weights().items():
        assert_same(weights, whole[name])


def test_one_client_alone_is_plain_split_learning():
    alone = SOURCE.split_rows(1)
    with pytest.raises(StudyError, match="no role of the graph has several parties"):
        study_of(cl.vanilla(cl.networks.mlp((6, 8, 3)), 0.5, clients=alone), schedule=SplitFed()).simulate(
            alone
        )


def test_learning_rates_go_on_from_round_to_round():
    halving = cl.optim.SGD(lr=LR, schedule=cl.optim.StepLR(step_size=1, gamma=0.5))
    run = study_of(graph(), schedule=SplitFed(), optimizer=halving, batch_size=4, epochs=3).simulate(people())
    parties = run._simulation.parties
    for party, segment in (("server", "head"), ("server", "top"), ("client-1", "head")):
        assert parties[party].live[segment].optimizer.param_groups[0]["lr"] == LR / 8
    each = cl.optim.SGD(lr=LR, schedule=cl.optim.StepLR(step_size=1, gamma=0.5), every="step")
    run = study_of(graph(), schedule=SplitFed(), optimizer=each, batch_size=4, epochs=1).simulate(people())
    assert (
        run._simulation.parties["server"].live["head"].optimizer.param_groups[0]["lr"] == LR / 2**3
    )  # 11 rows
