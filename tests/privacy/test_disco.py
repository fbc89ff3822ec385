"""DISCO: a filter learns which channels tell an attribute; what leaves keeps the task and loses the attribute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.errors import GraphError, StudyError
from cutlayer.metering.events import Defended
from cutlayer.privacy import Facts, LearntPruning, Moment, Noise, defence_of


def moment(memory, fields, step=0, *, training=True):
    return Moment(
        party="client", cut="head->server", step=step, training=training, fields=fields, labels=None,
        noise=Noise(b"the sender's own secret", step), facts=Facts(), memory=memory,
    )  # fmt: skip


def rows(count: int, seed: int):
    """Return channels [N, 6, 4]: the task is in the first two, the attribute in the next two; both are classes."""
    draws = torch.Generator().manual_seed(seed)
    task, attribute = (torch.randint(2, (count,), generator=draws) for _ in range(2))
    z = torch.randn(count, 6, 4, generator=draws)
    z[:, 0:2] += 3.0 * task[:, None, None]
    z[:, 2:4] += 3.0 * attribute[:, None, None]
    return z, task, attribute


def trained(defence, batches: int = 60):
    """Return memory and facts after some batches with a receiver that learns the task."""
    torch.manual_seed(0)
    top, memory, facts = nn.Linear(24, 2), {}, []
    optimizer = torch.optim.Adam(top.parameters(), lr=0.01)
    for step in range(batches):
        z, task, attribute = rows(64, step)
        leaf, now = z.requires_grad_(), moment(memory, {"sex": attribute, "x": z.detach().flatten(1)}, step)
        sent = defence.outgoing(leaf, now)
        received = sent.detach().requires_grad_()
        optimizer.zero_grad()
        nn.functional.cross_entropy(top(received.flatten(1)), task).backward()
        optimizer.step()
        (back,) = torch.autograd.grad(sent, leaf, received.grad)
        assert torch.equal(back == 0, sent == 0)
        facts.append(now.facts.read())
    return top, memory, facts


def test_the_filter_keeps_the_task_and_drops_the_attribute() -> None:
    defence = LearntPruning(attribute="sex", share=0.34)
    top, memory, facts = trained(defence)
    z, task, _ = rows(400, 1000)
    sent = defence.outgoing(z, moment(memory, {}, training=False))
    kept = (sent != 0).float().mean((0, 2))
    assert (sent == 0).all(2).sum(1).tolist() == [2] * 400
    assert kept[2:4].max() < 0.1 < 0.9 < kept[0:2].min()
    assert (top(sent.flatten(1)).argmax(1) == task).float().mean() > 0.9
    found = [fact["attribute found by the proxy"] for fact in facts]
    assert max(found[1:15]) > 0.75 > 0.65 > sum(found[-5:]) / 5
    assert 0 < facts[-1]["share of squares sent"] < 1


def test_evaluation_learns_nothing_and_needs_no_attribute() -> None:
    z, memory = rows(8, 0)[0], {}
    defence = LearntPruning(attribute="sex")
    first = defence.outgoing(z, moment(memory, {}, training=False))
    before = {name: tensor.clone() for name, tensor in memory.items()}
    assert torch.equal(defence.outgoing(z, moment(memory, {}, 1, training=False)), first)
    assert memory.keys() == before.keys()
    assert all(torch.equal(memory[name], before[name]) for name in memory)


def test_a_column_may_be_the_attribute() -> None:
    defence = defence_of("disco:x:8,0.34")
    assert defence == LearntPruning(attribute="x:8", share=0.34)
    z, _, _ = rows(8, 0)
    now = moment({}, {"x": z.flatten(1)})
    assert torch.equal(defence._attribute(now), (z[:, 2, 0] > 0).long())


def test_in_a_run_it_learns_at_the_sender_alone() -> None:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(320, 8, generator=draws)
    y, sex = (x[:, :4].sum(1) > 0).long(), (x[:, 4:].sum(1) > 0).long()
    ids = np.arange(320)
    records = {"client": {"x": x, "sex": sex}, "server": {"y": y}}
    people = cl.data.Holdings.of(
        {p: {"train": cl.data.Records(ids, fields)} for p, fields in records.items()}
    )
    torch.manual_seed(0)
    segments = [
        cl.Segment("head", "client", nn.Sequential(nn.Linear(8, 16), nn.ReLU()), ("x",)),
        cl.Segment("top", "server", nn.Linear(16, 2), ("head",)),
    ]
    graph = cl.SplitGraph.over(people, segments=segments, losses=[cl.Loss(role="server", prediction="top")])
    study = cl.Study(
        graph=graph,
        optimizer=cl.optim.Adam(lr=0.01),
        batch_size=32,
        epochs=6,
        evaluate=(),
        defences=["disco:sex"],
    )
    run = study.simulate(people)
    told = [e for e in run.events if isinstance(e, Defended) and e.defence.startswith("disco")]
    assert {e.party for e in told} == {"client"}
    proxy = [e.facts["attribute found by the proxy"] for e in told]
    assert len(proxy) == 6 and 0.4 < proxy[-1] < 0.9
    assert run.weights().keys() == {"head", "top"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sxe": torch.zeros(8)}, r"client, cut head->server: disco: .* no attribute 'sex'.*did you mean 'sxe'"),
        ({"sex": torch.full((8,), 2)}, r"'sex' is no such attribute; got torch.int64 \[8\] from 2 to 2; expected"),
        ({"sex": torch.full((8,), 0.5)}, "is no such attribute"),
        ({"sex": torch.zeros(8, 2)}, "is no such attribute"),
    ],
)  # fmt: skip
def test_an_attribute_that_is_none_is_told(fields, words: str) -> None:
    leaf = rows(8, 0)[0].requires_grad_()
    with pytest.raises(StudyError, match=words):
        LearntPruning(attribute="sex").outgoing(leaf, moment({}, fields))


def test_where_it_cannot_stand_and_settings_that_cannot_be() -> None:
    with pytest.raises(StudyError, match="has no attribute 'x:99'"):
        LearntPruning(attribute="x:99").outgoing(
            rows(8, 0)[0].requires_grad_(), moment({}, {"x": torch.zeros(8, 4)})
        )
    people = cl.data.digits().split_rows(1)
    graph = cl.vanilla(nn.Sequential(nn.Linear(64, 1), nn.Tanh(), nn.Linear(1, 10)), "1", clients=people)
    with pytest.raises(GraphError, match=r"a row of shape \[1\] has no two channels"):
        cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), defences=["disco:x:3"])
    for settings in (
        {"attribute": ""},
        {"share": 1.0},
        {"alpha": 0.0},
        {"classes": 1},
        {"classes": 101},
        {"rate": 0},
    ):
        with pytest.raises(StudyError, match=r"disco: .* cannot be that"):
            LearntPruning(**{"attribute": "sex", **settings})
    with pytest.raises(StudyError, match="lacks its attribute"):
        defence_of("disco")
