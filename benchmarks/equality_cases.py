"""The configurations that ``equality.py`` compares: how each is cut, and the uncut computation that it equals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cutlayer as cl
from cutlayer.data import Deal, Holdings, PartyData, Records
from cutlayer.graph.topologies import cut_segments

Kind = Literal["plain", "BatchNorm", "dropout", "skip connections"]
KINDS: tuple[Kind, ...] = ("plain", "BatchNorm", "dropout", "skip connections")
Made = TypeVar("Made")
PARITY_WEIGHT = 0.3
COLUMNS = {"clinic": slice(0, 32), "lab": slice(32, 64)}


@dataclass(frozen=True, kw_only=True)
class Uncut:
    """A network before it is cut.

    Attributes:
        module: All of it: rows [B, 64] to one prediction or several.
        loss: ``loss(prediction, labels)``.
        begins: For each part of the split network, the module here with which it begins.
        prefix: What stands before the names that the split network's weights have.
    """

    module: nn.Module
    loss: Callable[..., Tensor] = cross_entropy
    begins: Mapping[str, nn.Module] = field(default_factory=dict)
    prefix: str = ""

    def state(self) -> dict[str, Tensor]:
        """Return weights and buffers by the names that they have in the split network."""
        return {name.removeprefix(self.prefix): tensor for name, tensor in self.module.state_dict().items()}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One configuration.

    Attributes:
        name: What it is called.
        equals: The uncut computation that it equals, in words.
        deal: ``deal(x, y, clients)`` gives each party its rows and columns.
        graph: The split network.
        uncut: The same network in one piece, with the same initial weights.
        role: The role whose parties take turns.
        aligned: Whether several parties have data in a turn, so that rows count in the order of their ids.
    """

    name: str
    equals: str
    deal: Callable[[Tensor, Tensor, int], Holdings]
    graph: Callable[[Kind, Holdings], cl.SplitGraph]
    uncut: Callable[[Kind], Uncut]
    role: str = "client"
    aligned: bool = False

    def ids(self, people: Holdings) -> list[Tensor]:
        """Return each turn's row numbers in the order in which they count."""
        own = [people.party(name).splits["train"].ids for name in people.roles[self.role]]
        return [torch.from_numpy(np.sort(ids) if self.aligned else ids.copy()) for ids in own]


def digits(rows: int) -> tuple[Tensor, Tensor]:
    """Return the first rows of scikit-learn's digits: float32 [rows, 64], and the digit and its parity [rows, 2]."""
    records = cl.data.digits(test=0).split_rows(1).party("client-0").splits["train"]
    fields = records.batch(torch.arange(rows))
    return fields["x"], torch.stack([fields["y"], fields["y"] % 2], 1)


# Networks


class Block(nn.Module):
    """Two linear layers with ReLU between, and what ``kind`` says."""

    def __init__(self, kind: Kind, inside: int, out: int) -> None:
        super().__init__()
        self.first = nn.Linear(inside, out)
        self.norm = nn.BatchNorm1d(out) if kind == "BatchNorm" else nn.Identity()
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(0.3) if kind == "dropout" else nn.Identity()
        self.second = nn.Linear(out, out)
        self.skips = kind == "skip connections"

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, out] of [B, inside]."""
        hidden = self.drop(self.relu(self.norm(self.first(x))))
        made: Tensor = self.second(hidden)
        return hidden + made if self.skips else made


class Chain(nn.Module):
    """Four blocks and a linear layer: digits [B, 64] to logits [B, 10]."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        sizes = (64, 32, 24, 24, 16)
        self.block1, self.block2, self.block3, self.block4 = (
            Block(kind, a, b) for a, b in itertools.pairwise(sizes)
        )
        self.out = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, 10] of digits [B, 64]."""
        logits: Tensor = self.out(self.block4(self.block3(self.block2(self.block1(x)))))
        return logits


def chain(kind: Kind) -> Chain:
    """Return the chain with its initial weights."""
    return seeded(lambda: Chain(kind))


def parts(kind: Kind, *names: str) -> dict[str, nn.Module]:
    """Return the parts of a network over columns, always with the same initial weights."""
    made = seeded(
        lambda: {
            "clinic": Block(kind, 32, 12),
            "lab": Block(kind, 32, 12),
            "lab-small": nn.Linear(32, 12),
            "middle": Block(kind, 24, 16),
            "top": nn.Linear(16, 10),
            "top-parity": nn.Linear(16, 2),
            "deep": nn.Sequential(Block(kind, 24, 16), nn.Linear(16, 10)),
            "deep-parity": nn.Sequential(Block(kind, 24, 16), nn.Linear(16, 2)),
        }
    )
    return {name: made[name] for name in names}


def seeded(make: Callable[[], Made]) -> Made:
    """Return what ``make`` makes, with the same draws every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return make()


class Columns(nn.Module):
    """The parts of a network over columns in one piece: bottoms side by side, joined, then the rest.

    Args:
        bottoms: By party, in the order of its columns.
        rest: What follows, one after the other.
        tops: Where several follow side by side.
    """

    def __init__(
        self, bottoms: Mapping[str, nn.Module], rest: Mapping[str, nn.Module], tops: Mapping[str, nn.Module]
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({**bottoms, **rest, **tops})
        self.bottoms, self.rest, self.tops = tuple(bottoms), tuple(rest), tuple(tops)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return one prediction, or one for each of the tops, of rows [B, 64]."""
        made = torch.cat([self.parts[name](x[:, COLUMNS[name]]) for name in self.bottoms], 1)
        for name in self.rest:
            made = self.parts[name](made)
        return [self.parts[name](made) for name in self.tops] if self.tops else made


def in_one_piece(
    bottoms: Mapping[str, nn.Module],
    rest: Mapping[str, nn.Module],
    tops: Mapping[str, nn.Module] | None = None,
) -> Uncut:
    """Return the uncut network over columns."""
    module = Columns(bottoms, rest, tops or {})
    loss = both_losses if tops else digit_loss
    return Uncut(module=module, loss=loss, begins=dict(module.parts.items()), prefix="parts.")


def digit_loss(made: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of the digits."""
    return cross_entropy(made, labels[:, 0])


def both_losses(made: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Return the weighted sum of both tasks' cross-entropies."""
    return cross_entropy(made[0], labels[:, 0]) + cross_entropy(made[1], labels[:, 1]) * PARITY_WEIGHT


# Chains


def by_rows(x: Tensor, y: Tensor, clients: int) -> Holdings:
    """Clients hold rows and their labels."""
    return cl.data.arrays(x, y[:, 0]).split_rows(clients)


def by_rows_without_labels(x: Tensor, y: Tensor, clients: int) -> Holdings:
    """Clients hold rows, the server their labels."""
    return cl.data.arrays(x, y[:, 0]).split({"client": slice(0, 64)}, Deal(n=clients))


def uncut_chain(**begins: int) -> Callable[[Kind], Uncut]:
    """Return what makes the chain; ``begins`` says which part of the split network begins with which block."""

    def make(kind: Kind) -> Uncut:
        module = chain(kind)
        blocks = (module.block1, module.block2, module.block3, module.block4)
        firsts = {name.replace("_", "-"): blocks[number - 1].first for name, number in begins.items()}
        return Uncut(module=module, loss=digit_loss, begins=firsts)

    return make


def vanilla(kind: Kind, people: Holdings) -> cl.SplitGraph:
    """Cut in the second block: the connection around it crosses too."""
    return cl.vanilla(chain(kind), "block2.second", clients=people)


def u_shaped(kind: Kind, people: Holdings) -> cl.SplitGraph:
    """Client, server, client."""
    return cl.u_shaped(chain(kind), ("block1.second", "block3.second"), clients=people)


def multi_hop(kind: Kind, people: Holdings) -> cl.SplitGraph:
    """Client, two hops, server."""
    return cl.multi_hop(chain(kind), ("block1.second", "block2.second", "block3.second"), clients=people)


def u_shape_over_hops(kind: Kind, people: Holdings) -> cl.SplitGraph:
    """Client, hop, server, the same hop, the same client."""
    places = ("client", "hop", "server", "hop", "client")
    rows = people.example("client")
    cuts = tuple(f"block{number}.second" for number in range(1, 5))
    pieces = cl.cut_module(chain(kind), cuts, (rows["x"],), roles=places)
    names = tuple(f"part-{number}" for number in range(1, 6))
    roles = [
        cl.Role(
            "client", people.roles["client"], {name: cl.TensorSpec.of(rows[name]) for name in ("x", "y")}
        ),
        cl.Role("hop", ("hop",)),
        cl.Role("server", ("server",)),
    ]
    losses = [
        cl.Loss(role="client", prediction=f"part-5:{pieces.results[0]}", function=nn.CrossEntropyLoss())
    ]
    segments = cut_segments(pieces, names, places)
    return cl.SplitGraph(roles=roles, segments=segments, losses=losses, example={"client": rows})


# Columns


def by_columns(labels: str) -> Callable[[Tensor, Tensor, int], Holdings]:
    """Return what deals columns to clinics and laboratories, cohort by cohort, and the digits to ``labels``."""

    def deal(x: Tensor, y: Tensor, cohorts: int) -> Holdings:
        return cl.data.arrays(x, y[:, 0]).split(COLUMNS, Deal(n=cohorts), labels=labels)

    return deal


def by_columns_and_tasks(x: Tensor, y: Tensor, cohorts: int) -> Holdings:
    """Clinics and laboratories hold columns, one server the digits, another their parity."""
    people = by_columns("digit")(x, y, cohorts)
    ids = people.party("digit").splits["train"].ids
    parity = PartyData("parity", "parity", {"train": Records(ids, {"y": y[torch.from_numpy(ids), 1]})})
    return Holdings((*people.parties, parity))


def vertical(kind: Kind, people: Holdings) -> cl.SplitGraph:
    """Two bottoms, joined at the server."""
    return cl.vertical(parts(kind, *COLUMNS), parts(kind, "deep")["deep"], parties=people)


def extended_vanilla(kind: Kind, people: Holdings) -> cl.SplitGraph:
    """Two bottoms, joined at a worker, then the server."""
    rest = parts(kind, "middle", "top")
    return cl.extended_vanilla(parts(kind, *COLUMNS), rest["middle"], rest["top"], parties=people)


def multi_task(kind: Kind, people: Holdings) -> cl.SplitGraph:
    """Two bottoms, joined at two servers."""
    tops = parts(kind, "deep", "deep-parity")
    return cl.multi_task(
        parts(kind, *COLUMNS), {"digit": tops["deep"], "parity": tops["deep-parity"]},
        parties=people, weights={"parity": PARITY_WEIGHT},
    )  # fmt: skip


def over_columns(
    people: Holdings, segments: Sequence[cl.Segment], losses: Sequence[cl.Loss], places: Sequence[str]
) -> cl.SplitGraph:
    """Return a graph of one's own; places that hold no data are one party of their name."""
    rows = {role: people.example(role) for role in people.roles}
    roles = [
        cl.Role(p, people.roles.get(p, (p,)), {n: cl.TensorSpec.of(t) for n, t in rows.get(p, {}).items()})
        for p in places
    ]
    return cl.SplitGraph(roles=roles, segments=segments, losses=losses, example=rows)


def u_shape_over_columns(kind: Kind, people: Holdings) -> cl.SplitGraph:
    """The server's output goes back to the clinic, which holds the labels and the tail."""
    made = parts(kind, "clinic", "lab", "middle", "top")
    segments = [
        cl.Segment("clinic", "clinic", made["clinic"], ("x",)),
        cl.Segment("lab", "lab", made["lab"], ("x",)),
        cl.Segment("merge", "server", cl.Concat(), ("clinic", "lab")),
        cl.Segment("middle", "server", made["middle"], ("merge",)),
        cl.Segment("tail", "clinic", made["top"], ("middle",)),
    ]
    losses = [cl.Loss(role="clinic", prediction="tail", function=nn.CrossEntropyLoss())]
    return over_columns(people, segments, losses, ("clinic", "lab", "server"))


def tasks_behind_a_worker(kind: Kind, people: Holdings) -> cl.SplitGraph:
    """Each party cuts elsewhere; a worker joins; two servers have a task each."""
    made = parts(kind, "clinic", "lab-small", "middle", "top", "top-parity")
    segments = [
        cl.Segment("clinic", "clinic", made["clinic"], ("x",)),
        cl.Segment("lab", "lab", made["lab-small"], ("x",)),
        cl.Segment("merge", "worker", cl.Concat(), ("clinic", "lab")),
        cl.Segment("middle", "worker", made["middle"], ("merge",)),
        cl.Segment("top", "digit", made["top"], ("middle",)),
        cl.Segment("top-parity", "parity", made["top-parity"], ("middle",)),
    ]
    losses = [
        cl.Loss(role="digit", prediction="top", function=nn.CrossEntropyLoss(), name="digit"),
        cl.Loss(
            role="parity",
            prediction="top-parity",
            function=nn.CrossEntropyLoss(),
            weight=PARITY_WEIGHT,
            name="parity",
        ),
    ]
    return over_columns(people, segments, losses, ("clinic", "lab", "worker", "digit", "parity"))


def uncut_columns(
    rest: Mapping[str, str], tops: Mapping[str, str], **bottoms: str
) -> Callable[[Kind], Uncut]:
    """Return what makes the network over columns; parts by the names of the split network's segments."""

    def make(kind: Kind) -> Uncut:
        chosen = {"clinic": "clinic", "lab": "lab", **bottoms}
        made = parts(kind, *chosen.values(), *rest.values(), *tops.values())
        named = [{segment: made[part] for segment, part in names.items()} for names in (chosen, rest, tops)]
        return in_one_piece(*named)

    return make


_POOLED = "the network itself on all clients' rows, in the order of their turns"

CONFIGURATIONS = (
    Configuration(
        name="vanilla, clients share labels", equals=_POOLED,
        deal=by_rows, graph=vanilla, uncut=uncut_chain(head=1, top=3),
    ),
    Configuration(
        name="vanilla, labels at the server", equals=_POOLED,
        deal=by_rows_without_labels, graph=vanilla, uncut=uncut_chain(head=1, top=3), aligned=True,
    ),
    Configuration(
        name="U-shaped", equals=_POOLED,
        deal=by_rows, graph=u_shaped, uncut=uncut_chain(head=1, body=2, tail=4),
    ),
    Configuration(
        name="multi-hop", equals=_POOLED,
        deal=by_rows, graph=multi_hop, uncut=uncut_chain(head=1, hop_1=2, hop_2=3, top=4),
    ),
    Configuration(
        name="vertical", equals="bottoms on their columns, concatenated, then the top",
        deal=by_columns("server"), graph=vertical, uncut=uncut_columns({"top": "deep"}, {}),
        role="clinic", aligned=True,
    ),
    Configuration(
        name="extended vanilla", equals="bottoms on their columns, concatenated, then worker's and server's parts",
        deal=by_columns("server"), graph=extended_vanilla,
        uncut=uncut_columns({"middle": "middle", "top": "top"}, {}), role="clinic", aligned=True,
    ),
    Configuration(
        name="multi-task", equals="bottoms once, concatenated, each top on that; the weighted sum of the losses",
        deal=by_columns_and_tasks, graph=multi_task,
        uncut=uncut_columns({}, {"top-digit": "deep", "top-parity": "deep-parity"}), role="clinic", aligned=True,
    ),
    Configuration(
        name="hybrid: U-shape over columns", equals="bottoms on their columns, concatenated, body, then tail",
        deal=by_columns("clinic"), graph=u_shape_over_columns,
        uncut=uncut_columns({"middle": "middle", "tail": "top"}, {}), role="clinic", aligned=True,
    ),
    Configuration(
        name="hybrid: U-shape over hops", equals=_POOLED, deal=by_rows, graph=u_shape_over_hops,
        uncut=uncut_chain(part_1=1, part_2=2, part_3=3, part_4=4),
    ),
    Configuration(
        name="hybrid: own cuts, worker, two tasks",
        equals="bottoms of different depth, concatenated, the worker's part, each top; the weighted sum",
        deal=by_columns_and_tasks, graph=tasks_behind_a_worker,
        uncut=uncut_columns({"middle": "middle"}, {"top": "top", "top-parity": "top-parity"}, lab="lab-small"),
        role="clinic", aligned=True,
    ),
)  # fmt: skip
