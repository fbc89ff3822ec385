"""Parallel split learning against a plain loop over the joined batch: the same bits."""

import copy
from functools import cache

import pytest
import torch
from small_studies import pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.metering.events import EpochEnded, Worked
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.runtime.simulate import batches_of

LR = 0.1
SGD = cl.optim.SGD(lr=LR, momentum=0.9)
SOURCE, X, Y = pooled(62, shape=(16,))


@cache
def people():
    return SOURCE.split_rows(3)


@cache
def graph(name="vanilla"):
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 3)
    )
    if name == "without normalisation":  # whose batches may be of one row
        net = nn.Sequential(nn.Linear(16, 32), nn.Identity(), nn.ReLU(), *net[3:])
    if name != "u":
        return cl.vanilla(net, "2", clients=people())
    return cl.u_shaped(net, ("2", "4"), clients=people())


def steps_of(study):
    """Yield epoch, and for each turn of a step its row numbers."""
    cohorts = Cohorts(study.graph, people())
    calendar = study.course(cohorts.rows).calendar
    for epoch in range(study.epochs):
        for batches in batches_of(study.schedule, study.graph, calendar, epoch):
            ids = {b.turn: cohorts.ids[b.turn]["train"] for b in batches}
            yield epoch, {b.turn: ids[b.turn][calendar.positions(b).numpy()] for b in batches}


def sgd(module):
    return torch.optim.SGD(module.parameters(), lr=LR, momentum=0.9)


def own_heads(study):
    """Return each client's head and the top after a loop over joined batches."""
    head, top = (copy.deepcopy(study.graph.segments[name].module).train() for name in study.graph.order)
    heads = [copy.deepcopy(head) for _ in range(3)]
    optimizers = [sgd(module) for module in (*heads, top)]
    for _, rows in steps_of(study):
        used = [*(optimizers[turn] for turn in rows), optimizers[-1]]
        for optimizer in used:
            optimizer.zero_grad()
        joined = torch.cat([heads[turn](X[of]) for turn, of in rows.items()])
        nn.functional.cross_entropy(top(joined), torch.cat([Y[of] for of in rows.values()])).backward()
        for optimizer in used:
            optimizer.step()
    return heads, top


def assert_same(split, plain):
    assert split.keys() == plain.keys()
    assert not [name for name in plain if not torch.equal(split[name], plain[name])]


@pytest.mark.parametrize(
    "more", [{}, {"batches": "global"}, {"sample": 2, "round": 2}, {"shuffle": False}], ids=str
)
def test_the_joined_step_has_the_bits_of_a_plain_loop(more):
    shuffle = more.get("shuffle", True)
    schedule = cl.Parallel(**{name: value for name, value in more.items() if name != "shuffle"})
    cut = graph("without normalisation" if schedule.pooled else "vanilla")
    study = study_of(cut, schedule=schedule, optimizer=SGD, batch_size=6, epochs=3, shuffle=shuffle)
    run, (heads, top) = study.simulate(people()), own_heads(study)
    assert_same(run.weights()["top"], top.state_dict())
    for turn, head in enumerate(heads):
        assert_same(run._simulation.parties[f"client-{turn}"].live["head"].weights(), head.state_dict())


def test_u_shaped_clients_have_tails_of_their_own():
    study = study_of(graph("u"), schedule=cl.Parallel(), optimizer=SGD, batch_size=6, epochs=2)
    run = study.simulate(people())
    first, body, last = study.graph.order
    modules = {name: study.graph.segments[name].module for name in study.graph.order}
    heads, tails = ([copy.deepcopy(modules[n]).train() for _ in range(3)] for n in (first, last))
    middle = copy.deepcopy(modules[body]).train()
    optimizers = [sgd(m) for m in (*heads, *tails, middle)]
    for _, rows in steps_of(study):
        for optimizer in optimizers:
            optimizer.zero_grad()
        smashed = {turn: heads[turn](X[of]) for turn, of in rows.items()}
        made = middle(torch.cat([s.detach().requires_grad_() for s in smashed.values()]))
        out = made.detach().split([len(of) for of in rows.values()])
        leaves = {turn: part.clone().requires_grad_() for turn, part in zip(rows, out, strict=True)}
        for turn, of in rows.items():
            nn.functional.cross_entropy(tails[turn](leaves[turn]), Y[of]).backward()
        total = sum(map(len, rows.values()))
        joined = torch.cat([leaves[turn].grad * (len(of) / total) for turn, of in rows.items()])
        inputs = torch.cat(list(smashed.values())).detach().requires_grad_()
        # Once more for the gradient of the inputs: batch normalisation has noted this batch already.
        middle_again = copy.deepcopy(middle)
        middle_again(inputs).backward(joined)
        made.backward(joined)
        for turn, part in zip(rows, inputs.grad.split([len(of) for of in rows.values()]), strict=True):
            smashed[turn].backward(part.clone())
        for optimizer in optimizers:
            optimizer.step()
    weights = run.weights()
    assert_same(weights[body], middle.state_dict())
    assert_same(weights[first], heads[0].state_dict())
    assert_same(weights[last], tails[0].state_dict())


def test_averaged_at_each_step_it_is_the_uncut_network_on_the_joined_batch():
    """Plain SGD is linear: the mean of what clients do with a three times higher rate is one step on all rows."""
    plain = cl.networks.mlp((16, 32, 3))
    apart = SOURCE.split_rows(3)  # 21, 21 and 20 rows
    cut = cl.vanilla(plain, 0.5, clients=apart)
    rates = {"head": cl.optim.SGD(lr=3 * LR), "top": cl.optim.SGD(lr=LR)}
    schedule = cl.Parallel(heads="averaged", round=1)
    study = study_of(cut, schedule=schedule, optimizer=rates, batch_size=5, epochs=3, drop_last=True)
    run = study.simulate(apart)
    uncut = study_of(
        cut, schedule=schedule, optimizer=cl.optim.SGD(lr=LR), batch_size=5, epochs=3, drop_last=True
    )
    central = uncut.central(apart).weights()
    for segment, weights in run.weights().items():
        for name, tensor in weights.items():
            torch.testing.assert_close(tensor, central[segment][name], rtol=1e-5, atol=1e-6)


def test_global_batches_have_all_rows_once_and_one_size():
    study = study_of(graph(), schedule=cl.Parallel(batches="global"), batch_size=7, epochs=2)
    seen = {0: [], 1: []}
    sizes = []
    for epoch, rows in steps_of(study):
        seen[epoch] += [int(i) for of in rows.values() for i in of]
        sizes.append(sum(map(len, rows.values())))
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(62))
    assert seen[0] != seen[1]
    assert sizes == [7] * 8 + [6] + [7] * 8 + [6]


def test_the_server_works_once_for_all():
    study = study_of(graph(), schedule=cl.Parallel(), batch_size=6, epochs=1, evaluate=())
    run = study.simulate(people())
    worked = {(e.party, e.op): e.calls for e in run.events if isinstance(e, Worked)}
    steps = len(list(steps_of(study)))
    assert worked["server", "forward"] == worked["server", "backward"] == worked["server", "step"] == steps
    assert worked["server", "receive"] == sum(worked[f"client-{n}", "forward"] for n in range(3)) > steps
    assert [e.steps for e in run.events if isinstance(e, EpochEnded)] == [steps]


def test_servers_pass_on_batches_larger_than_any_clients():
    source, *_ = pooled(400)
    clients = source.split_rows(4)
    hops = cl.multi_hop(cl.networks.mlp((6, 8, 7, 3)), ("linear1", "linear2"), clients=clients)
    study = study_of(hops, schedule=cl.Parallel(), batch_size=80, epochs=1, evaluate=())
    worked = {(e.party, e.op): e.calls for e in study.simulate(clients).events if isinstance(e, Worked)}
    assert worked["hop-1", "forward"] == worked["server", "forward"] == 2  # 320 rows, then 80
