"""Split equals uncut, bit for bit, where the graph is more than one model cut in pieces.

The uncut computation of each configuration:

- vertical: the bottoms on their columns, merged, then the top;
- extended vanilla: the same with a part in between;
- multi-task: the bottoms once, then each top on its own merge, trained on the weighted sum of the losses;
- hybrids: the segments' modules called one after the other as the graph wires them.
"""

import copy

import pytest
import torch
from small_studies import MOMENTUM, batches, plain_loop, pooled, study_of
from torch import nn

import cutlayer as cl
from cutlayer.data import Deal
from cutlayer.graph.parts import Loss, Role, Segment, TensorSpec
from cutlayer.graph.split_graph import SplitGraph

# Columns


class ByColumns(nn.Module):
    """The uncut network of a vertical study: parts on their columns, merged, then the rest in order."""

    def __init__(self, bottoms, merge, *rest):
        super().__init__()
        self.bottoms, self.merge, self.rest = nn.ModuleDict(bottoms), merge, nn.ModuleList(rest)

    def forward(self, x):
        width = x.shape[1] // len(self.bottoms)
        parts = [bottom(x[:, i * width : (i + 1) * width]) for i, bottom in enumerate(self.bottoms.values())]
        made = self.merge(*parts) if isinstance(self.merge, nn.Module) else self.merge(parts)
        for module in self.rest:
            made = module(made)
        return made

    def named(self, rest=("top",)):
        """The state by the names that the split graph's segments give it."""
        names = {f"bottoms.{name}": name for name in self.bottoms}
        names |= {f"rest.{i}": name for i, name in enumerate(rest)} | {"merge": "merge"}
        return {
            f"{names[p]}.{key.removeprefix(p + '.')}": t
            for key, t in self.state_dict().items()
            for p in names
            if key.startswith(p + ".")
        }


def parts(*roles, seed=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        bottoms = {role: nn.Sequential(nn.Linear(6 // len(roles), 4), nn.ReLU()) for role in roles}
        return (
            bottoms,
            {n: nn.Linear(n, 3) for n in (4, 4 * len(roles))},
            nn.Linear(4 * len(roles), 5),
            nn.Linear(5, 3),
        )


def prove_columns(study, holdings, uncut, x, y, rest=("top",)):
    run = study.simulate(holdings)
    assert run.equals(study.central(holdings))
    plain_loop(uncut, batches(study, holdings), x, y, lambda p: torch.optim.SGD(p, **MOMENTUM))
    split = {f"{s}.{n}": t for s, state in run.weights().items() for n, t in state.items()}
    named = uncut.named(rest)
    assert split.keys() == named.keys()
    assert not [name for name in named if not torch.equal(split[name], named[name])]


MERGES = {
    "concat": lambda made: torch.cat(made, 1),
    "sum": lambda made: made[0] + made[1],
    "mean": lambda made: (made[0] + made[1]) / 2,
}


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("merge", MERGES)
def test_vertical(merge, several):
    source, x, y = pooled()
    rows = Deal(n=3) if several else None
    people = source.split({"clinic": slice(0, 3), "lab": slice(3, 6)}, rows, labels_split=several)
    bottoms, tops, *_ = parts("clinic", "lab")
    top = tops[8 if merge == "concat" else 4]
    graph = cl.vertical(bottoms, top, parties=people, merge=merge)
    assert len(graph.turns) == (3 if several else 1)
    prove_columns(study_of(graph), people, ByColumns(bottoms, MERGES[merge], top), x, y)


def test_vertical_with_a_merge_that_learns():
    source, x, y = pooled()
    people = source.split_columns({"clinic": slice(0, 3), "lab": slice(3, 6)})
    bottoms, tops, *_ = parts("clinic", "lab")
    merge = nn.Bilinear(4, 4, 4)
    graph = cl.vertical(bottoms, tops[4], parties=people, merge=merge)
    prove_columns(study_of(graph), people, ByColumns(bottoms, merge, tops[4]), x, y)


def test_extended_vanilla():
    source, x, y = pooled()
    people = source.split_columns({"clinic": slice(0, 3), "lab": slice(3, 6)})
    bottoms, _, middle, top = parts("clinic", "lab")
    graph = cl.extended_vanilla(bottoms, middle, top, parties=people)
    prove_columns(
        study_of(graph), people, ByColumns(bottoms, MERGES["concat"], middle, top), x, y, ("middle", "top")
    )


# Several tasks


class Tasks(nn.Module):
    def __init__(self, bottoms, tops):
        super().__init__()
        self.bottoms, self.tops = nn.ModuleDict(bottoms), nn.ModuleDict(tops)

    def forward(self, x):
        width = x.shape[1] // len(self.bottoms)
        made = [bottom(x[:, i * width : (i + 1) * width]) for i, bottom in enumerate(self.bottoms.values())]
        return [top(torch.cat(made, 1)) for top in self.tops.values()]


def two_tasks(several):
    """Clinic and lab hold columns; two servers hold different labels of the same rows."""
    source, x, y = pooled(classes=3)
    rows = Deal(n=2) if several else None
    columns = source.split(
        {"clinic": slice(0, 3), "lab": slice(3, 6)}, rows, labels="kind", labels_split=several
    )
    second = (x.sum(1) > 0).float()
    parties = {p.name: dict(p.splits) for p in columns.parties}
    roles = {p.name: p.role for p in columns.parties}
    for party in columns.parties:
        if party.role == "kind":
            ids = party.splits["train"].ids
            name = party.name.replace("kind", "sign")
            parties[name] = {"train": cl.data.Records(ids, {"y": second[torch.from_numpy(ids)]})}
            roles[name] = "sign"
    train_only = {name: {"train": splits["train"]} for name, splits in parties.items()}
    return cl.data.Holdings.of(train_only, roles), x, torch.stack([y.float(), second], 1)


@pytest.mark.parametrize("several", [False, True])
def test_multi_task_with_weights(several):
    people, x, labels = two_tasks(several)
    bottoms, *_ = parts("clinic", "lab")
    tops = {"kind": nn.Linear(8, 3), "sign": nn.Linear(8, 1)}
    graph = cl.multi_task(
        bottoms, tops, parties=people, losses={"sign": nn.BCEWithLogitsLoss()}, weights={"sign": 0.3}
    )
    study = study_of(graph)
    run = study.simulate(people)
    assert run.equals(study.central(people))

    def loss(made, label):
        kind = nn.functional.cross_entropy(made[0], label[:, 0].long())
        return kind + nn.functional.binary_cross_entropy_with_logits(made[1], label[:, 1:]) * 0.3

    uncut = plain_loop(
        Tasks(bottoms, tops),
        batches(study, people),
        x,
        labels,
        lambda p: torch.optim.SGD(p, **MOMENTUM),
        loss,
    )
    split = run.weights()
    for role, bottom in uncut.bottoms.items():
        assert all(torch.equal(split[role][n], t) for n, t in bottom.state_dict().items())
    for server, top in uncut.tops.items():
        assert all(torch.equal(split[f"top-{server}"][n], t) for n, t in top.state_dict().items())


# Hybrids built by hand


def hybrid(people, roles, segments, losses=None):
    """A graph of one's own over the parties of ``people``; roles without data are one party of their name."""
    placed = []
    for role, needs in roles.items():
        known = people.fields(role) if role in people.roles else {}
        specs = {f: TensorSpec(tuple(known[f].shape), known[f].dtype) for f in needs}
        placed.append(Role(role, people.roles.get(role, (role,)), specs))
    rows = {role: people.example(role) for role in people.roles}
    return SplitGraph(roles=placed, segments=segments, losses=losses, example=rows)


def test_u_shape_over_columns():
    """Clinic and lab send to the server; its output goes back to the clinic, which holds the labels."""
    source, x, y = pooled()
    people = source.split({"clinic": slice(0, 3), "lab": slice(3, 6)}, Deal(n=2), labels="clinic")
    bottoms, _, middle, top = parts("clinic", "lab")
    segments = [
        *(Segment(role, role, copy.deepcopy(bottom), ("x",)) for role, bottom in bottoms.items()),
        Segment("merge", "server", cl.Concat(), ("clinic", "lab")),
        Segment("middle", "server", copy.deepcopy(middle), ("merge",)),
        Segment("tail", "clinic", copy.deepcopy(top), ("middle",)),
    ]
    roles = {"clinic": ("x", "y"), "lab": ("x",), "server": ()}
    graph = hybrid(people, roles, segments, [Loss(role="clinic", prediction="tail")])
    assert [c.name for c in graph.cuts] == ["clinic->server", "lab->server", "middle->clinic"]
    study = study_of(graph)
    prove_columns(study, people, ByColumns(bottoms, MERGES["concat"], middle, top), x, y, ("middle", "tail"))


@pytest.mark.parametrize("handover", ["peer", "server"])
def test_u_shape_over_hops(handover):
    """Client, hop, server, hop, client: the hop runs two segments, the client holds records and labels."""
    source, x, y = pooled()
    people = source.split_rows(3)
    model = nn.Sequential(*(nn.Linear(a, b) for a, b in ((6, 7), (7, 6), (6, 5), (5, 4), (4, 3))))
    places = ("client", "hop", "server", "hop", "client")
    inputs = ("x", "s0", "s1", "s2", "s3")
    segments = [
        Segment(f"s{i}", role, copy.deepcopy(model[i]), (inputs[i],)) for i, role in enumerate(places)
    ]
    roles = {"client": ("x", "y"), "hop": (), "server": ()}
    graph = hybrid(people, roles, segments, [Loss(role="client", prediction="s4")])
    study = study_of(graph, schedule=cl.RoundRobin(handover=handover))
    run = study.simulate(people)
    assert run.equals(study.central(people))
    plain_loop(model, batches(study, people), x, y, lambda p: torch.optim.SGD(p, **MOMENTUM))
    for i in range(5):
        assert all(torch.equal(run.weights()[f"s{i}"][n], t) for n, t in model[i].state_dict().items())


def test_two_paths_between_two_roles_and_losses_at_both_ends():
    """What the client sends is read twice, and by its own small loss: gradients add up in the uncut order."""
    source, x, y = pooled()
    people = source.split_rows(2)
    head, side, left, right, top = (
        nn.Linear(6, 5),
        nn.Linear(5, 3),
        nn.Linear(5, 4),
        nn.Linear(5, 4),
        nn.Linear(4, 3),
    )
    segments = [
        Segment("head", "client", copy.deepcopy(head), ("x",)),
        Segment("side", "client", copy.deepcopy(side), ("head",)),
        Segment("left", "server", copy.deepcopy(left), ("head",)),
        Segment("right", "server", copy.deepcopy(right), ("head",)),
        Segment("sum", "server", cl.Sum(), ("left", "right")),
        Segment("top", "client", copy.deepcopy(top), ("sum",)),
    ]
    losses = [
        Loss(role="client", prediction="side", weight=0.5, name="small"),
        Loss(role="client", prediction="top"),
    ]
    graph = hybrid(people, {"client": ("x", "y"), "server": ()}, segments, losses)
    study = study_of(graph)
    run = study.simulate(people)
    assert run.equals(study.central(people))
    whole = nn.ModuleList([head, side, left, right, top])

    class Uncut(nn.Module):
        def __init__(self):
            super().__init__()
            self.whole = whole

        def forward(self, rows):
            h = head(rows)
            small = side(h)
            return small, top(left(h) + right(h))

    def loss(made, label):
        return nn.functional.cross_entropy(made[0], label) * 0.5 + nn.functional.cross_entropy(made[1], label)

    plain_loop(Uncut(), batches(study, people), x, y, lambda p: torch.optim.SGD(p, **MOMENTUM), loss)
    for name, module in zip(("head", "side", "left", "right", "top"), whole, strict=True):
        assert all(torch.equal(run.weights()[name][n], t) for n, t in module.state_dict().items())


def test_gradients_of_one_sender_come_in_the_order_in_which_they_were_sent():
    """One segment of the client reads two of the server's; both gradients go back at once."""
    source, *_ = pooled()
    people = source.split_rows(2)
    segments = [
        Segment("head", "client", nn.Linear(6, 4), ("x",)),
        Segment("left", "server", nn.Linear(4, 3), ("head",)),
        Segment("right", "server", nn.Linear(4, 3), ("head",)),
        Segment("tail", "client", cl.Sum(), ("left", "right")),
    ]
    graph = hybrid(
        people, {"client": ("x", "y"), "server": ()}, segments, [Loss(role="client", prediction="tail")]
    )
    study = study_of(graph)
    assert study.simulate(people).equals(study.central(people))


@pytest.mark.parametrize("many", [2, 3, 5])
def test_a_value_with_many_readers_and_losses_adds_their_gradients_as_the_twin_does(many):
    source, *_ = pooled()
    people = source.split_rows(2)
    roles = ["client", "server", "hop"] * many
    segments = [Segment("head", "client", nn.Linear(6, 3), ("x",))]
    segments += [Segment(f"part{i}", roles[i], nn.Linear(3, 3), ("head",)) for i in range(2 * many)]
    segments += [Segment("sum", "client", cl.Sum(), tuple(s.name for s in segments[1:]))]
    losses = [Loss(role="client", prediction="sum", name="main")]
    losses += [Loss(role="client", prediction="head", name=f"loss-{i}", weight=0.1 + i) for i in range(many)]
    graph = hybrid(people, {"client": ("x", "y"), "server": (), "hop": ()}, segments, losses)
    study = study_of(graph, optimizer=cl.optim.Adam(lr=0.01))
    assert study.simulate(people).equals(study.central(people))
