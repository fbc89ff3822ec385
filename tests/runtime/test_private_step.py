"""DP-SGD at work: the arithmetic against a slow loop and Opacus' optimizer, and how it goes with everything else."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from opacus.layers import DPLSTM, DPMultiheadAttention
from opacus.optimizers import DPOptimizer
from torch import nn

import cutlayer as cl
from cutlayer.errors import GraphError, StudyError
from cutlayer.graph.parts import Segment
from cutlayer.metering.events import Defended
from cutlayer.privacy import Defence, Facts
from cutlayer.privacy.dp_sgd import DPSGD
from cutlayer.runtime.early import inputs_first
from cutlayer.runtime.live import LiveSegment
from cutlayer.runtime.private_step import Private

CPU = torch.device("cpu")
OFF = DPSGD(clip=1e6, noise=0.0)


class Mixed(nn.Module):
    """Layers that Opacus knows, one that it does not, one used twice, and weights that do not learn."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, stride=2)
        self.norm = nn.GroupNorm(2, 4)
        self.scale = Scale(4)
        self.twice = nn.Linear(4, 4)
        self.fixed = nn.Linear(4, 3).requires_grad_(False)

    def forward(self, x):
        x = self.scale(self.norm(self.conv(x)).relu_()).flatten(2).transpose(1, 2)
        return self.fixed(self.twice(self.twice(x).tanh()))


class Scale(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.factor = nn.Parameter(torch.linspace(0.5, 1.5, channels).reshape(1, -1, 1, 1))

    def forward(self, x):
        return x * self.factor


def live(module, settings=OFF, secret=bytes(32), facts=None, lr=1.0):
    private = Private(
        party="client", segment="head", settings=settings, secret=secret, facts=facts or Facts()
    )
    segment = Segment("head", "client", module, ("x",))
    return LiveSegment(segment, cl.optim.SGD(lr=lr), CPU, None, private)


def batch(rows=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 2, 6, 6, generator=draw) * torch.linspace(0.1, 3, rows)[:, None, None, None]
    return x, torch.randn(rows, 9, 3, generator=draw)


def lost(module, x, y):
    return (module(x) - y).square().mean()


def by_single_rows(module, batches, clip):
    """The slow, plainly right answer: each row's gradient by itself, clipped, and their mean."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    total, count, norms = [torch.zeros_like(p) for p in parameters], 0, []
    for x, y in batches:
        for one in range(len(x)):
            found = torch.autograd.grad(lost(module, x[one : one + 1], y[one : one + 1]), parameters)
            norms.append(float(torch.cat([g.flatten() for g in found]).norm()))
            total = [t + g * min(1.0, clip / norms[-1]) for t, g in zip(total, found, strict=True)]
            count += 1
    return [t / count for t in total], norms


@pytest.mark.parametrize("clip", [0.3, 1e6])
@pytest.mark.parametrize("several", [False, True])
def test_gradients_are_those_of_a_slow_loop_over_single_rows(clip, several):
    torch.manual_seed(0)
    module, facts = Mixed(), Facts()
    at_work = live(module, DPSGD(clip=clip, noise=0.0), facts=facts)
    batches = [batch(6, 0), batch(4, 1)] if several else [batch()]
    # As in a pipeline: all forwards first, then the backwards, the first batch's first.
    losses = [(at_work.call(x) - y).square().mean() for x, y in batches]
    for loss in losses[:-1]:
        loss.backward()
        at_work.accumulate()
    losses[-1].backward()
    at_work.settle()
    expected, norms = by_single_rows(module, batches, clip)
    for parameter, wanted in zip(at_work.parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-6)
    told = facts.read()
    assert told["gradient norm before clipping"] == pytest.approx(sum(norms) / len(norms), rel=1e-4)
    assert told["rows clipped"] == pytest.approx(sum(n > clip for n in norms) / len(norms))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.last = DPLSTM(4, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.last(self.inner(x)[0][:, -1])


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.norm = nn.Embedding(10, 4), nn.LayerNorm(4)
        self.inner, self.last = DPMultiheadAttention(4, 2, batch_first=True), nn.Conv1d(4, 2, 2)

    def forward(self, x):
        x = self.norm(self.words(x))
        return self.last(self.inner(x, x, x)[0].transpose(1, 2))


@pytest.mark.parametrize(
    ("kind", "x"), [(Recurrent, torch.randn(5, 3, 4)), (Attentive, torch.arange(20).reshape(5, 4) % 7)]
)
def test_recurrence_and_attention_of_opacus_can_be_used(kind, x):
    torch.manual_seed(0)
    module = kind()
    at_work = live(module, DPSGD(clip=0.05, noise=0.0))
    result = at_work.call(x)
    y = torch.zeros_like(result)
    (result - y).square().mean().backward()
    at_work.settle()
    expected, _ = by_single_rows(module, [(x, y)], 0.05)
    for parameter, wanted in zip(at_work.parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-6)


def test_a_step_is_that_of_opacus_optimizer():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 27), nn.Unflatten(1, (9, 3))
    )
    theirs = GradSampleModule(copy.deepcopy(module), loss_reduction="mean")
    optimizer = DPOptimizer(
        torch.optim.SGD(theirs.parameters(), lr=0.5), noise_multiplier=0.0, max_grad_norm=0.2,
        expected_batch_size=6,
    )  # fmt: skip
    ours = live(module, DPSGD(clip=0.2, noise=0.0), lr=0.5)
    for seed in range(3):
        x, y = batch(seed=seed)
        lost(theirs, x.requires_grad_(), y).backward()  # its hooks warn of inputs without a gradient
        optimizer.step()
        optimizer.zero_grad()
        (ours.call(x.detach()) - y).square().mean().backward()
        ours.step()
    for one, other in zip(ours.parameters, theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def privately(settings, secret=bytes(32), seed=7, facts=None, rows=4):
    torch.manual_seed(0)
    at_work = live(nn.Linear(100, 200), settings, secret, facts)
    x = torch.randn(rows, 100)
    torch.manual_seed(seed)  # the runtime does so before a forward
    at_work.call(x).square().mean().backward()
    at_work.settle()
    return torch.cat([p.grad.flatten() for p in at_work.parameters])


def test_noise_has_the_stated_deviation_and_follows_from_secret_and_step():
    facts, noisy = Facts(), DPSGD(clip=0.5, noise=3.0)
    found = privately(noisy, facts=facts)
    added = (found - privately(DPSGD(clip=0.5, noise=0.0))).double() * 4
    assert float(added.std()) == pytest.approx(1.5, rel=0.02)
    assert abs(float(added.mean())) < 4 * 1.5 / added.numel() ** 0.5
    assert facts.read()["deviation added"] == pytest.approx(1.5, rel=0.02)
    assert torch.equal(found, privately(noisy))
    assert not torch.equal(found, privately(noisy, secret=bytes(31) + b"1"))
    assert not torch.equal(found, privately(noisy, seed=8))


def test_gradients_that_are_put_off_are_counted_once():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    x, found = torch.randn(6, 5), []
    for later in (False, True):
        at_work = live(module, DPSGD(clip=0.05, noise=0.0))
        leaf = x.clone().requires_grad_()
        result = at_work.call(leaf)
        if later:
            owed = inputs_first([result], [result.detach()], [leaf], at_work.parameters)
            assert owed is not None
            at_work.owed.append(owed)
        else:
            result.backward(result.detach())
        at_work.settle()
        found.append([p.grad for p in at_work.parameters])
    for now, put_off in zip(*found, strict=True):
        torch.testing.assert_close(now, put_off)


def test_batches_without_a_backward_leave_nothing_behind():
    at_work = live(nn.Linear(3, 2), DPSGD(clip=1.0, noise=1.0))
    before = at_work.weights()
    at_work.call(torch.randn(4, 3))
    at_work.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in at_work.weights().items())


class Loose(nn.Module):
    """A weight of one layer, used by hand too."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x) + x @ self.layer.weight


class Windows(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x.reshape(-1, 2, 4)).reshape(len(x), -1)


@pytest.mark.parametrize(
    ("module", "x", "why"),
    [
        (Loose(), torch.randn(4, 4), "weight 'layer.weight', row by row, do not make that of the batch"),
        (Windows(), torch.randn(4, 16), r"its Linear .* do not have the batch's 4 rows first"),
        (nn.LSTM(4, 4), torch.randn(4, 2, 4), "its LSTM .* does not make one tensor of one tensor"),
    ],
)
def test_rows_that_cannot_be_told_apart_are_refused(module, x, why):
    at_work = live(module)
    with pytest.raises(StudyError, match=f"client: segment 'head' cannot learn by DP-SGD.*{why}"):
        at_work.call(x).square().mean().backward()
        at_work.step()


@dataclass(frozen=True)
class Small(Defence):
    word: ClassVar[str] = "small"

    def penalty(self, inputs, activation, moment):
        return activation.square().mean()


def holdings(clients=1):
    x = np.random.default_rng(0).normal(size=(72, 4)).astype("float32")
    source = cl.data.arrays(x, (x[:, 0] > 0).astype("int64")).hold_out(test=1 / 3, seed=0)
    return source.split_rows(clients) if clients > 1 else source.split({"client": "*"}, labels="server")


def study(people, defences=None, *layers, **more):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 6), *layers, nn.Tanh(), nn.Linear(6, 2))
    given = {"optimizer": cl.optim.Adam(lr=0.01), "batch_size": 8, "epochs": 2} | more
    return cl.Study(graph=cl.vanilla(model, "1", clients=people), defences=defences, **given)


def close(one, other, **near):
    for segment, state in one.items():
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, other[segment][name], **near)
    return True


@pytest.mark.parametrize(
    ("clients", "schedule"),
    [
        (1, cl.RoundRobin()),
        (1, cl.RoundRobin(accumulate=3, in_flight=2)),
        (1, cl.RoundRobin(clip=0.05)),
        (3, cl.RoundRobin()),
        (3, cl.SplitFed()),
        (3, cl.Parallel()),
        (3, cl.Parallel(heads="averaged", batches="global")),
    ],
    ids=str,
)
def test_without_noise_and_with_a_wide_bound_a_run_is_as_it_was(clients, schedule):
    people = holdings(clients)
    plain = study(people, schedule=schedule).simulate(people)
    private = study(people, [OFF], schedule=schedule).simulate(people)
    assert close(private.weights(), plain.weights(), rtol=1e-3, atol=1e-5)


def test_noise_is_another_for_each_client_and_told():
    people = holdings(3)
    noisy = study(people, ["dp-sgd:clip=0.1,noise=1"])
    run = noisy.simulate(people)
    assert run.equals(noisy.simulate(people))
    told = [e for e in run.events if isinstance(e, Defended) and e.defence.startswith("dp-sgd")]
    assert {e.party for e in told} == set(noisy.graph.roles["client"].parties)
    assert all(e.facts["deviation added"] == pytest.approx(0.1, rel=0.4) for e in told)
    assert all(0 <= e.facts["rows clipped"] <= 1 for e in told)


def test_a_restart_has_the_same_noise(tmp_path):
    people = holdings(2)
    one = study(people, ["gaussian:clip=1,noise=0.5", "dp-sgd:clip=0.1,noise=1"])
    whole = one.simulate(people, out=tmp_path / "whole")
    broken = study(people, ["gaussian:clip=1,noise=0.5", "dp-sgd:clip=0.1,noise=1"], schedule=Fragile())
    with pytest.raises(InterruptedError):
        broken.simulate(people, out=tmp_path / "broken")
    assert one.simulate(people, out=tmp_path / "broken", resume=True).equals(whole)


class Fragile(cl.RoundRobin):
    """Round robin that breaks off in its second epoch."""

    def epoch(self, graph, calendar, epoch):
        items = super().epoch(graph, calendar, epoch)
        if epoch == 1:
            yield from itertools.islice(items, 2)
            raise InterruptedError
        yield from items


def test_it_learns_with_noise_in_bfloat16_too():
    people = holdings()
    run = study(people, ["dp-sgd:clip=1,noise=0.3"], epochs=12, precision={"head": "bfloat16"}).simulate(
        people
    )
    assert run.metrics("test")["accuracy"] > 0.8


@pytest.mark.parametrize(
    ("defences", "layers", "more", "why"),
    [
        ([OFF], [nn.BatchNorm1d(6)], {}, r"layer '1' \(BatchNorm1d\) lets the rows.*use GroupNorm"),
        ([OFF], [], {"compiled": ["head"]}, "leave it out of compiled"),
        ([OFF, Small()], [], {}, "DP-SGD and small at once"),
        ([OFF, DPSGD(clip=1.0, noise=1.0)], [], {}, "two kinds of DP-SGD"),
    ],
)
def test_what_it_cannot_go_with_is_refused(defences, layers, more, why):
    people = holdings()
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 6), *layers, nn.Tanh(), nn.Linear(6, 2))
    refused = cl.Study(
        graph=cl.vanilla(model, str(1 + len(layers)), clients=people), defences=defences,
        optimizer=cl.optim.SGD(lr=0.1), batch_size=8, epochs=1, **more,
    )  # fmt: skip
    with pytest.raises(StudyError, match=why):
        refused.simulate(people)


def test_it_stands_only_where_a_segment_learns_from_rows_of_its_own():
    torch.manual_seed(0)
    fixed = nn.Sequential(nn.Linear(4, 6).requires_grad_(False), nn.Tanh(), nn.Linear(6, 2))
    with pytest.raises(GraphError, match="the segment that sends learns nothing"):
        cl.vanilla(fixed, "1", clients=holdings()).with_defences([OFF])


def test_a_segment_without_it_is_called_as_it_is():
    plain = LiveSegment(Segment("head", "client", nn.Linear(2, 2), ("x",)), cl.optim.SGD(lr=1.0), CPU)
    assert plain.private is None and plain.call is plain.module
    assert not plain.module._forward_hooks
