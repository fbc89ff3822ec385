"""Micro-batches, clipping and rows without labels on schedules of many clients: the bits of plain loops."""

import copy
import math
from functools import cache

import pytest
import torch
from small_studies import pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.data import Holdings, Records
from cutlayer.metering.events import Traffic
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.runtime.simulate import batches_of
from cutlayer.schedules.calendar import Batch

SOURCE, X, Y = pooled(46)
LR, ALPHA = 0.1, 0.3
MOMENTUM = cl.optim.SGD(lr=LR, momentum=0.9)
WORK = [
    {"clip": 0.4},
    {"accumulate": 3},
    {"accumulate": 2, "in_flight": 2},
    {"accumulate": 2, "in_flight": 2, "clip": 0.3},
    {"unlabelled": True},
]


@cache
def people():
    """Three clients: two with few labels, one with none."""
    few = cl.data.hide_labels(SOURCE.split_rows(3), keep=0.6)
    bare = few.party("client-2").splits
    splits = {name: dict(few.party(name).splits) for name in ("client-0", "client-1")}
    splits["client-2"] = {
        "unlabelled": Records(bare["train"].ids, {"x": bare["train"].fields["x"]}),
        "test": bare["test"],
    }
    return Holdings.of(splits, dict.fromkeys(splits, "client"))


@cache
def graph():
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3))
    return cl.with_decoder(cl.vanilla(net, "1", clients=people()), nn.Linear(8, 6), alpha=ALPHA)


def calendar_of(study):
    cohorts = Cohorts(study.graph, people())
    return study.course(cohorts.rows).calendar, cohorts


def rows(study, batch):
    calendar, cohorts = calendar_of(study)
    return cohorts.ids[batch.turn][batch.split][calendar.positions(batch).numpy()]


class Replica:
    """A network of its own with its own optimizers, trained by nothing but PyTorch."""

    def __init__(self, client, top, client_memory=None, top_memory=None):
        self.client, self.top = client, top
        self.client_memory = client_memory or sgd(client)
        self.top_memory = top_memory or sgd(top)

    def learn(self, batches, clip):
        """Step with the mean gradient of several batches."""
        parameters = [*self.client.parameters(), *self.top.parameters()]
        self.forget()
        for ids in batches:
            encoded = self.client["head"](X[ids])
            loss = nn.functional.cross_entropy(self.top(encoded), Y[ids])
            (loss + ALPHA * nn.functional.mse_loss(self.client["decoder"](encoded), X[ids])).backward()
        for parameter in parameters:
            parameter.grad /= len(batches)
        if clip is not None:
            bound(parameters, clip)
        self.client_memory.step()
        self.top_memory.step()

    def learn_alone(self, ids):
        """Step with rows that have no label."""
        self.forget()
        (
            ALPHA * nn.functional.mse_loss(self.client["decoder"](self.client["head"](X[ids])), X[ids])
        ).backward()
        self.client_memory.step()

    def forget(self):
        self.client_memory.zero_grad()
        self.top_memory.zero_grad()


def bound(parameters, most):
    """Clip as ``clip_grad_norm_`` does, with the norm in float64."""
    norm = math.sqrt(math.fsum(p.grad.norm().item() ** 2 for p in parameters))
    if norm + 1e-6 > most:
        for parameter in parameters:
            parameter.grad *= most / (norm + 1e-6)


def sgd(module):
    return torch.optim.SGD(module.parameters(), lr=LR, momentum=0.9)


def weighted_mean(states, weights):
    return {
        name: (sum(s[name].double() * w for s, w in zip(states, weights, strict=True)) / sum(weights)).float()
        for name in states[0]
    }


def work(study, replica, epoch, share):
    """Train a replica on a share; return how many rows it has with labels, and without."""
    schedule, (calendar, _) = study.schedule, calendar_of(study)
    labelled, others = (calendar.batches(share.turn, split) for split in ("train", "unlabelled"))
    numbers, seen = list(range(share.first, share.end)), [0, 0]

    def ids(split, number):
        found = rows(study, Batch(split, share.turn, epoch, number))
        seen[split == "unlabelled"] += len(found)
        return found

    for at in range(0, len(numbers), schedule.accumulate):
        group = numbers[at : at + schedule.accumulate]
        if labelled:
            replica.learn([ids("train", n) for n in group], schedule.clip)
        if schedule.unlabelled:
            (n,) = group
            share_of_it = range(others * n // labelled, others * (n + 1) // labelled) if labelled else [n]
            for number in share_of_it:
                replica.learn_alone(ids("unlabelled", number))
    return seen


def by_hand(study):
    """Return client's (of each client, where each has its own) and server's modules after SplitFed."""
    schedule, (calendar, _) = study.schedule, calendar_of(study)
    module = {name: copy.deepcopy(study.graph.segments[name].module).train() for name in study.graph.order}
    client, top = nn.ModuleDict({n: module[n] for n in ("head", "decoder")}), module["top"]
    own = [copy.deepcopy(client) for _ in range(3)]
    memory, top_memory = [sgd(one) for one in own], sgd(top)
    for epoch in range(study.epochs):
        for number in range(schedule.rounds(calendar, epoch)):
            found = []
            for share in schedule.shares(study.graph, calendar, epoch, number):
                mine = (own[share.turn], memory[share.turn]) if schedule.version == 3 else None
                its_client, its_memory = mine or (copy.deepcopy(client), None)
                its_top = top if schedule.version == 2 else copy.deepcopy(top)
                replica = Replica(
                    its_client, its_top, its_memory, top_memory if schedule.version == 2 else None
                )
                found.append((replica, *work(study, replica, epoch, share)))
            if schedule.version != 3 and found:
                states = [replica.client.state_dict() for replica, _, _ in found]
                client.load_state_dict(weighted_mean(states, [a + b for _, a, b in found]))
            taught = [(replica.top.state_dict(), a) for replica, a, _ in found if a]
            if schedule.version != 2 and taught:
                top.load_state_dict(weighted_mean(*zip(*taught, strict=True)))
    return (own if schedule.version == 3 else [client] * 3), top


def splitfed(**more):
    settings = {"at_once": 1, "round": 4} | more
    return study_of(
        graph(), schedule=cl.SplitFed(**settings), optimizer=MOMENTUM, batch_size=3, epochs=2, metrics=()
    )


def differing(live, module):
    """Return the names of weights that are not the same to the last bit."""
    return [
        name for name, tensor in module.state_dict().items() if not torch.equal(live.weights()[name], tensor)
    ]


@pytest.mark.parametrize("options", WORK, ids=str)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_splitfed_has_the_bits_of_a_plain_loop(version, options):
    study = splitfed(version=version, **options)
    parties = study.simulate(people())._simulation.parties
    clients, top = by_hand(study)
    assert not differing(parties["server"].live["top"], top)
    for turn, module in enumerate(clients):
        for name in ("head", "decoder") if options.get("unlabelled") or turn < 2 else ():
            live = parties[f"client-{turn}"].live[name]
            assert not differing(live, module[name]), (turn, name)


@pytest.mark.parametrize("options", [{"sample": 1}, {"weights": "equal"}, {"personal": True}], ids=str)
def test_unlabelled_rows_go_with_every_choice_of_clients(options):
    study = splitfed(unlabelled=True, at_once=2, round=1, **options)
    run = study.simulate(people())
    assert {batch.turn for epoch in range(2) for group in trained(study, epoch) for batch in group} >= {2}
    assert math.isfinite(run.metrics("test")["loss"])


def trained(study, epoch):
    return batches_of(study.schedule, study.graph, calendar_of(study)[0], epoch)


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize("options", WORK, ids=str)
def test_how_many_work_at_once_changes_no_bit_of_averages(version, options):
    one, many = (
        splitfed(version=version, at_once=n, **options).simulate(people()).weights() for n in (1, 16)
    )
    for name, weights in one.items():
        assert all(torch.equal(tensor, many[name][key]) for key, tensor in weights.items()), name


def traffic(study):
    return sorted(
        (e.epoch, e.phase, e.cut, e.sender, e.receiver, e.frames, e.tensor_bytes)
        for e in study.simulate(people()).events
        if isinstance(e, Traffic) and e.cut != "hand-over of client"
    )


@pytest.mark.parametrize("version", [1, 2])
def test_unlabelled_rows_send_nothing_over_cuts(version):
    assert traffic(splitfed(version=version, unlabelled=True)) == traffic(splitfed(version=version))


@pytest.mark.parametrize("most", [0.4, 100.0])
@pytest.mark.parametrize("more", [{}, {"batches": "global"}], ids=str)
def test_the_joint_step_is_clipped_over_all_heads(more, most):
    study = study_of(
        graph(), schedule=cl.Parallel(clip=most, **more), optimizer=MOMENTUM, batch_size=4, epochs=3
    )
    run = study.simulate(people())
    head, decoder, top = (
        copy.deepcopy(graph().segments[n].module).train() for n in ("head", "decoder", "top")
    )
    clients = [nn.ModuleDict({"head": copy.deepcopy(head), "decoder": copy.deepcopy(decoder)}) for _ in "ab"]
    memory = [sgd(module) for module in (*clients, top)]
    for epoch in range(study.epochs):
        for batches in trained(study, epoch):
            ids = [rows(study, batch) for batch in batches]
            used = [memory[batch.turn] for batch in batches] + [memory[-1]]
            for optimizer in used:
                optimizer.zero_grad()
            encoded = [clients[b.turn]["head"](X[i]) for b, i in zip(batches, ids, strict=True)]
            total = nn.functional.cross_entropy(top(torch.cat(encoded)), torch.cat([Y[i] for i in ids]))
            for batch, made, i in zip(batches, encoded, ids, strict=True):
                total = total + ALPHA * nn.functional.mse_loss(clients[batch.turn]["decoder"](made), X[i])
            total.backward()
            bound([p for optimizer in used for p in optimizer.param_groups[0]["params"]], most)
            for optimizer in used:
                optimizer.step()
    parties = run._simulation.parties
    assert not differing(parties["server"].live["top"], top)
    for turn, module in enumerate(clients):
        assert not differing(parties[f"client-{turn}"].live["head"], module["head"])
        assert not differing(parties[f"client-{turn}"].live["decoder"], module["decoder"])


def test_asynchronous_steps_are_clipped_one_by_one():
    study = study_of(graph(), schedule=cl.Asynchronous(clip=0.3, round=2), batch_size=4)
    program = study.program(people())
    acts = {op: [a.step for a in program if a.op == op] for op in ("clip", "step", "loss")}
    assert len(acts["clip"]) == 2 * len(set(acts["loss"]))
    free = study_of(graph(), schedule=cl.Asynchronous(round=2), batch_size=4).simulate(people())
    loose = study_of(graph(), schedule=cl.Asynchronous(round=2, clip=1e6), batch_size=4).simulate(people())
    tight = study.simulate(people())
    assert all(torch.equal(t, loose.weights()["top"][k]) for k, t in free.weights()["top"].items())
    assert not torch.equal(free.weights()["top"]["2.weight"], tight.weights()["top"]["2.weight"])
