"""Each configuration by name: its places, its wiring, what crosses, and what it refuses."""

import numpy as np
import pytest
import torch
from torch import nn

from cutlayer.data import Deal, Holdings, Records, arrays
from cutlayer.errors import CutError, DataError, GraphError
from cutlayer.graph import extended_vanilla, multi_hop, multi_task, u_shaped, vanilla, vertical
from cutlayer.graph.networks import mlp

ROWS = torch.arange(12.0).reshape(3, 4)
NET = mlp((4, 6, 5, 3))


def source(columns=4):
    rng = np.random.default_rng(0)
    return arrays(rng.normal(size=(20, columns)), rng.integers(0, 3, 20))


def places(graph):
    return {name: segment.role for name, segment in graph.segments.items()}


def crossing(graph):
    return [(cut.name, cut.source, cut.target, cut.has_gradient) for cut in graph.cuts]


def bottoms(*roles, out=3):
    return {role: nn.Linear(2, out) for role in roles}


def two_columns(rows=None, labels="server", **more):
    return source().split({"clinic": slice(0, 2), "lab": slice(2, 4)}, rows, labels, **more)


# Chains


def test_vanilla_shares_the_clients_labels_with_the_server():
    graph = vanilla(NET, "linear2", clients=source().split_rows(3))
    assert (graph.name, places(graph)) == ("vanilla", {"head": "client", "top": "server"})
    assert graph.roles["client"].parties == ("client-0", "client-1", "client-2")
    assert graph.roles["server"].parties == ("server",) and not graph.roles["server"].fields
    assert crossing(graph) == [
        ("y->server", "client", "server", False),
        ("head->server", "client", "server", True),
    ]
    assert graph.losses["loss"].role == "server" and len(graph.turns) == 3


def test_vanilla_keeps_labels_at_the_server_where_the_data_give_them_to_it():
    own = source().split({"client": slice(0, 4)}, labels="server")
    graph = vanilla(NET, "linear2", clients=own)
    assert graph.shares == () and crossing(graph) == [("head->server", "client", "server", True)]
    assert set(graph.roles["server"].fields) == {"y"} and set(graph.roles["client"].fields) == {"x"}


@pytest.mark.parametrize("clients", [2, ["client-0", "client-1"]])
def test_clients_may_be_a_number_or_names_with_example_rows(clients):
    graph = vanilla(NET, "linear2", clients=clients, example=ROWS)
    assert [p.name for p in graph.parties] == ["client-0", "client-1", "server"]
    assert graph.cuts[1].specs[0] is not None and graph.cuts[1].specs[0].shape == (5,)


def test_names_without_example_cannot_tell_the_shapes():
    with pytest.raises(GraphError, match="the shapes at the cut are not known; give clients= the holdings"):
        vanilla(NET, "linear2", clients=2)


def test_the_cut_may_be_a_share_of_the_flops():
    assert vanilla(NET, 0.5, example=ROWS).cuts[1].specs[0].shape == (6,)
    assert vanilla(NET, 0.85, example=ROWS).cuts[1].specs[0].shape == (5,)


def test_a_cut_that_is_not_there_names_the_nearest():
    with pytest.raises(CutError, match=r"linaer2.*nearest: linear2"):
        vanilla(NET, "linaer2", example=ROWS)


def test_a_cut_that_would_give_the_raw_rows_away_is_refused():
    with pytest.raises(GraphError, match=r"raw"):
        vanilla(NET, "flatten", example=ROWS)


def test_u_shaped_keeps_records_and_labels_at_the_client():
    graph = u_shaped(NET, ("linear1", "linear2"), clients=source().split_rows(2))
    assert places(graph) == {"head": "client", "body": "server", "tail": "client"}
    assert crossing(graph) == [
        ("head->server", "client", "server", True),
        ("body->client", "server", "client", True),
    ]
    assert graph.label_roles == ("client",) and not graph.shares
    assert not graph.roles["server"].fields


def test_multi_hop_sees_only_its_neighbours():
    graph = multi_hop(
        NET, ("linear1", "linear2", "activation2"), clients=2, example=ROWS, hops=("relay", "mix")
    )
    assert places(graph) == {"head": "client", "hop-1": "relay", "hop-2": "mix", "top": "server"}
    assert [(c.source, c.target) for c in graph.cuts] == [
        ("client", "relay"),
        ("relay", "mix"),
        ("mix", "server"),
    ]
    assert graph.label_roles == ("server",)
    assert [r.name for r in multi_hop(NET, ("linear1", "linear2"), example=ROWS).roles.values()] == [
        "client",
        "hop-1",
        "server",
    ]


def test_multi_hop_sends_the_clients_labels_past_the_hops():
    graph = multi_hop(NET, ("linear1", "linear2"), clients=source().split_rows(2))
    assert [(c.name, c.source, c.target) for c in graph.cuts if c.kind == "label"] == [
        ("y->server", "client", "server")
    ]


def test_multi_hop_needs_a_hop_between_cuts():
    with pytest.raises(GraphError, match="one hop between two cuts; got 2 cuts, 2 hops"):
        multi_hop(NET, ("linear1", "linear2"), example=ROWS, hops=("a", "b"))


def test_a_chain_needs_a_role_named_client():
    with pytest.raises(
        GraphError, match="the data has no role 'client' with fields; got hospital; expected client, server"
    ):
        vanilla(NET, "linear2", clients=source().split_rows(2, role="hospital"))


def test_the_server_may_have_another_name():
    for graph in (
        vanilla(NET, "linear2", example=ROWS, server="lead"),
        vertical(bottoms("a"), NET, server="lead"),
    ):
        assert "lead" in graph.roles and "server" not in graph.roles


def test_the_model_is_copied_and_its_weights_are_the_graphs():
    graph = u_shaped(NET, ("linear1", "linear2"), example=ROWS)
    origin = {}
    for segment in graph.segments.values():
        for name, parameter in segment.module.named_parameters():
            origin[segment.origin[name]] = parameter
            assert parameter is not dict(NET.named_parameters())[segment.origin[name]]
    assert origin.keys() == dict(NET.named_parameters()).keys()
    assert all(torch.equal(origin[name], weight) for name, weight in NET.named_parameters())


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.join = nn.Linear(4, 3), nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, image, record):
        return self.join(self.left(image) + self.right(record))


def test_several_inputs_read_the_fields_of_their_names():
    fields = {"image": torch.randn(3, 4), "record": torch.randn(3, 2)}
    records = Records(np.arange(3), {**fields, "y": torch.zeros(3, dtype=torch.int64)})
    for clients, example in ((1, fields), (Holdings.of({"c": {"train": records}}, {"c": "client"}), None)):
        graph = vanilla(TwoInputs(), "right", clients=clients, example=example)
        assert graph.wiring["head"] == ("image", "record")


# Columns


def test_vertical_merges_at_the_server_that_holds_the_labels():
    graph = vertical(bottoms("clinic", "lab"), nn.Linear(6, 3), parties=two_columns())
    assert places(graph) == {"clinic": "clinic", "lab": "lab", "merge": "server", "top": "server"}
    assert crossing(graph) == [
        ("clinic->server", "clinic", "server", True),
        ("lab->server", "lab", "server", True),
    ]
    assert graph.order == ("clinic", "lab", "merge", "top") and graph.label_roles == ("server",)


def test_vertical_without_data_knows_no_shapes():
    graph = vertical(bottoms("clinic", "lab"), nn.Linear(6, 3))
    assert [p.name for p in graph.parties] == ["clinic", "lab", "server"]
    assert graph.cuts[0].specs == (None,)
    shaped = vertical(
        bottoms("clinic", "lab"), nn.Linear(6, 3), example={"clinic": ROWS[:, :2], "lab": ROWS[:, 2:]}
    )
    assert shaped.cuts[0].specs[0].shape == (3,)


def test_vertical_roles_may_have_several_parties():
    graph = vertical(
        bottoms("clinic", "lab"), nn.Linear(6, 3), parties=two_columns(Deal(n=2), labels_split=True)
    )
    assert graph.turns == (
        {"clinic": "clinic-0", "lab": "lab-0", "server": "server-0"},
        {"clinic": "clinic-1", "lab": "lab-1", "server": "server-1"},
    )


@pytest.mark.parametrize(
    ("merge", "width"), [("concat", 6), ("sum", 3), ("mean", 3), (nn.Bilinear(3, 3, 3), 3)]
)
def test_every_way_to_merge(merge, width):
    graph = vertical(bottoms("clinic", "lab"), nn.Linear(width, 3), parties=two_columns(), merge=merge)
    a, b = torch.randn(2, 5, 3)
    made = graph.segments["merge"].module(a, b)
    expected = (
        {"concat": torch.cat([a, b], 1), "sum": a + b, "mean": (a + b) / 2}.get(merge)
        if isinstance(merge, str)
        else merge(a, b)
    )
    assert torch.equal(made, expected)


def test_an_unknown_merge_names_the_nearest():
    with pytest.raises(GraphError, match=r"no way to merge is named 'concta'; did you mean 'concat'\?"):
        vertical(bottoms("clinic"), nn.Linear(3, 3), merge="concta")


def test_a_merge_with_weights_is_copied():
    merge = nn.Bilinear(3, 3, 3)
    graph = vertical(bottoms("clinic", "lab"), nn.Linear(3, 3), merge=merge)
    assert graph.segments["merge"].module is not merge
    assert torch.equal(graph.segments["merge"].module.weight, merge.weight)


def test_extended_vanilla_lets_another_client_work_in_between():
    graph = extended_vanilla(
        bottoms("clinic", "lab"), nn.Linear(6, 4), nn.Linear(4, 3), parties=two_columns()
    )
    assert places(graph) == {
        "clinic": "clinic",
        "lab": "lab",
        "merge": "worker",
        "middle": "worker",
        "top": "server",
    }
    assert [(c.name, c.target) for c in graph.cuts] == [
        ("clinic->worker", "worker"),
        ("lab->worker", "worker"),
        ("middle->server", "server"),
    ]
    assert not graph.roles["worker"].fields


def test_multi_task_feeds_several_servers_with_their_own_labels():
    graph = multi_task(
        bottoms("clinic", "lab"), {"risk": nn.Linear(6, 3), "stay": nn.Linear(6, 1)},
        losses={"stay": nn.MSELoss()}, weights={"stay": 0.5},
    )  # fmt: skip
    assert places(graph) == {
        "clinic": "clinic", "lab": "lab",
        "merge-risk": "risk", "top-risk": "risk", "merge-stay": "stay", "top-stay": "stay",
    }  # fmt: skip
    assert [c.name for c in graph.cuts] == ["clinic->risk", "clinic->stay", "lab->risk", "lab->stay"]
    risk, stay = graph.losses["loss-risk"], graph.losses["loss-stay"]
    assert isinstance(risk.function, nn.CrossEntropyLoss) and risk.weight == 1.0
    assert isinstance(stay.function, nn.MSELoss) and stay.weight == 0.5
    assert graph.label_roles == ("risk", "stay")


def test_words_for_servers_that_are_not_there_are_refused():
    for words in ({"losses": {"rsik": nn.MSELoss()}}, {"weights": {"rsik": 2.0}}):
        with pytest.raises(GraphError, match=r"'rsik'.*did you mean 'risk'\?"):
            multi_task(bottoms("clinic"), {"risk": nn.Linear(3, 3)}, **words)


def test_bottoms_are_needed():
    with pytest.raises(GraphError, match="no party has a bottom module; give"):
        vertical({}, nn.Linear(6, 3))


def test_a_server_without_labels_is_refused():
    with pytest.raises(
        GraphError, match="uses the label 'y', which that role does not hold; role 'clinic' holds it"
    ):
        vertical(bottoms("clinic", "lab"), nn.Linear(6, 3), parties=two_columns(labels="clinic"))


def test_a_role_that_the_data_do_not_know_is_refused():
    with pytest.raises((GraphError, DataError), match="'labor'"):
        vertical(bottoms("clinic", "labor"), nn.Linear(6, 3), parties=two_columns())
