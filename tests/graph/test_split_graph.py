"""A split graph checks itself and answers every question about what crosses."""

import pytest
import torch
from torch import nn

from cutlayer.errors import GraphError
from cutlayer.graph import Cut, Loss, Party, Role, Segment, Share, SplitGraph, TensorSpec
from cutlayer.graph.parts import Ref, valid_name

X = TensorSpec((4,), torch.float32)
Y = TensorSpec((), torch.int64)
CLIENT = Role("client", ("a", "b"), {"x": X})
SERVER = Role("server", ("server",), {"y": Y})


def head(name="head", role="client", inputs=("x",), module=None, **more):
    return Segment(name, role, module or nn.Linear(4, 3), inputs, **more)


def top(name="top", role="server", inputs=("head",), module=None, **more):
    return Segment(name, role, module or nn.Linear(3, 2), inputs, **more)


def loss(role="server", prediction="top", **more):
    return Loss(role=role, prediction=prediction, **more)


def build(roles=(CLIENT, SERVER), segments=None, losses=None, **more):
    segments = (head(), top()) if segments is None else segments
    return SplitGraph(roles=roles, segments=segments, losses=(loss(),) if losses is None else losses, **more)


def example(rows=3):
    return {"client": {"x": torch.randn(rows, 4)}, "server": {"y": torch.zeros(rows, dtype=torch.int64)}}


# Names and parts


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a:b", "a->b", "a.b"])
def test_a_name_that_cannot_stand_in_a_program_is_refused(name):
    with pytest.raises(GraphError, match="cannot be the name of a thing; use letters"):
        valid_name(name, "thing")


def test_every_part_checks_its_name():
    for make in (lambda: Party("a b", "r"), lambda: Role("r/", ("a",)), lambda: Role("r", ("a b",)),
                 lambda: head("he ad"), lambda: loss(name="lo ss")):  # fmt: skip
        with pytest.raises(GraphError, match="cannot be the name of a"):
            make()


def test_a_role_needs_parties_each_once():
    with pytest.raises(GraphError, match="role 'r' is filled by no party; name at least one"):
        Role("r", ())
    with pytest.raises(GraphError, match="role 'r' names a party twice; got a, b, a"):
        Role("r", ("a", "b", "a"))


def test_a_segment_needs_inputs_and_outputs_of_different_names():
    with pytest.raises(GraphError, match="segment 'head' has no input"):
        head(inputs=())
    for outputs in ((), ("a", "a")):
        with pytest.raises(GraphError, match="segment 'head' needs outputs with different names"):
            head(outputs=outputs)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_loss_needs_a_positive_weight(weight):
    with pytest.raises(GraphError, match="loss 'loss' needs a positive weight"):
        loss(weight=weight)


def test_a_tensor_spec_prints_and_counts():
    spec = TensorSpec.of(torch.zeros(7, 3, 2, dtype=torch.float16))
    assert (str(spec), spec.sample_bytes) == ("float16[B, 3, 2]", 12)
    assert str(TensorSpec.of(torch.zeros(7, dtype=torch.int64))) == "int64[B]"


@pytest.mark.parametrize("function", [nn.BCEWithLogitsLoss(), nn.MSELoss(), nn.L1Loss(), nn.HuberLoss()])
def test_whole_number_labels_are_brought_to_the_shape_of_the_prediction(function):
    prediction, label = torch.rand(5, 1), torch.tensor([0, 1, 1, 0, 1])
    expected = function(prediction, label.float().reshape(5, 1))
    assert torch.equal(loss(function=function).compute(prediction, label), expected)


# Self-checks


def test_two_things_of_one_name_are_refused():
    with pytest.raises(GraphError, match="two segments are named 'head'; rename one"):
        build(segments=(head(), head(), top()))
    with pytest.raises(GraphError, match="two roles are named 'client'"):
        build(roles=(CLIENT, CLIENT, SERVER))
    with pytest.raises(GraphError, match="two losses are named 'loss'"):
        build(losses=(loss(), loss()))


def test_a_party_fills_one_role():
    with pytest.raises(GraphError, match="party 'a' fills two roles, 'client' and 'server'"):
        build(roles=(CLIENT, Role("server", ("a",), {"y": Y})))


def test_roles_of_many_parties_need_equally_many():
    other = Role("lab", ("l0", "l1", "l2"), {"x": X})
    with pytest.raises(GraphError, match="same number of parties; got client: 2, lab: 3"):
        build(roles=(CLIENT, other, SERVER))


def test_an_unknown_role_is_refused_with_the_nearest():
    with pytest.raises(
        GraphError, match=r"segment 'head' is placed on the unknown role 'clint'; did you mean 'client'\?"
    ):
        build(segments=(head(role="clint"), top()))
    with pytest.raises(
        GraphError, match=r"loss 'loss' is placed on the unknown role 'sever'; did you mean 'server'\?"
    ):
        build(losses=(loss(role="sever"),))


def test_a_cycle_is_refused_and_says_who_reads_whom():
    segments = (head(inputs=("x", "top")), top())
    with pytest.raises(
        GraphError, match="the segments form a cycle; got head reads top, top reads head; split a segment"
    ):
        build(segments=segments)


def test_an_input_that_nobody_makes_is_refused_with_the_nearest():
    with pytest.raises(
        GraphError, match=r"segment 'top' on role 'server' reads 'haed'.*did you mean 'head'\?"
    ):
        build(segments=(head(), top(inputs=("haed",))))


def test_an_output_that_is_not_made_is_refused_with_the_nearest():
    segments = (head(outputs=("smash",)), top(inputs=("head:smahs",)))
    with pytest.raises(
        GraphError,
        match=r"segment 'top' reads 'head:smahs', which 'head' does not make; did you mean 'smash'\?",
    ):
        build(segments=segments)


def test_a_name_that_is_segment_and_field_is_refused():
    with pytest.raises(
        GraphError, match="'x' is both a segment and a data field of role 'client'; rename one"
    ):
        build(segments=(head("x"), head("head", inputs=("x",)), top()))


def test_another_roles_raw_field_cannot_be_read():
    with pytest.raises(
        GraphError,
        match="'top' on role 'server' reads the raw field 'x' of role 'client': a raw field never crosses",
    ):
        build(segments=(head(), top(inputs=("head", "x"))))


@pytest.mark.parametrize("module", [nn.Identity(), nn.Flatten(), nn.Dropout(0.5), nn.ReLU()])
def test_a_raw_field_that_would_cross_is_noticed(module):
    fields = example()
    fields["client"]["x"] = fields["client"]["x"].abs()  # so that even ReLU gives it unchanged
    with pytest.raises(
        GraphError,
        match="the output 'out' of segment 'head' is the raw field 'x' of role 'client': a raw field never",
    ):
        build(segments=(head(module=module), top(module=nn.Linear(4, 2))), example=fields)


def test_a_raw_field_may_pass_between_segments_of_one_role():
    flat = head("flat", module=nn.Flatten())
    graph = build(segments=(flat, head(inputs=("flat",)), top()), example=example())
    assert [cut.name for cut in graph.cuts] == ["head->server"]


def test_one_module_or_parameter_in_two_segments_is_refused():
    shared = nn.Linear(4, 4)
    with pytest.raises(
        GraphError,
        match=r"the module of segment 'top' \(role 'server'\) is also in segment 'head' \(role 'client'\)",
    ):
        build(segments=(head(module=shared), top(module=shared)))
    inside = nn.Sequential(shared)
    with pytest.raises(
        GraphError, match=r"parameter '0.weight' of segment 'top'.*also in segment 'head'.*copy.deepcopy"
    ):
        build(segments=(head(module=shared), top(module=inside)))


def test_one_buffer_in_two_segments_is_refused():
    shared = nn.BatchNorm1d(4, affine=False)
    with pytest.raises(GraphError, match=r"buffer '1.running_mean' of segment 'top'.*also in segment 'head'"):
        build(segments=(head(module=nn.Sequential(shared)), top(module=nn.Sequential(nn.ReLU(), shared))))


def test_a_graph_without_loss_is_refused():
    with pytest.raises(GraphError, match="the graph has no loss"):
        build(losses=())


def test_a_loss_that_reads_what_is_not_there_is_refused():
    with pytest.raises(
        GraphError, match=r"loss 'loss' reads the unknown segment 'tip'; did you mean 'top'\?"
    ):
        build(losses=(loss(prediction="tip"),))
    with pytest.raises(GraphError, match="loss 'loss' reads 'top:logits', which 'top' does not make"):
        build(losses=(loss(prediction="top:logits"),))
    with pytest.raises(
        GraphError, match="loss 'loss' on role 'server' reads segment 'head' of role 'client'"
    ):
        build(losses=(loss(prediction="head"),))


def test_a_label_where_its_party_does_not_hold_it_is_refused():
    with_label = Role("client", ("a", "b"), {"x": X, "y": Y})
    with pytest.raises(
        GraphError,
        match=r"uses the label 'y', which that role does not hold; role 'client' holds it; .*U-shape",
    ):
        build(roles=(with_label, Role("server", ("server",))))
    with pytest.raises(
        GraphError, match="uses the label 'y', which that role does not hold; no role holds it"
    ):
        build(roles=(CLIENT, Role("server", ("server",))))


def test_a_segment_that_leads_to_no_loss_is_refused():
    with pytest.raises(GraphError, match="segment 'spare' leads to no loss, so it would never be trained"):
        build(segments=(head(), head("spare"), top()))


OWNER = Role("client", ("a", "b"), {"x": X, "y": Y})
BLIND = Role("server", ("server",))


def test_a_share_must_be_of_a_label_that_its_source_holds_and_a_loss_needs():
    with pytest.raises(
        GraphError, match=r"share of 'y' names the unknown role 'servre'; did you mean 'server'\?"
    ):
        build(shares=(Share("y", "client", "servre"),))
    with pytest.raises(GraphError, match="role 'client' shares the label 'y', which it does not hold"):
        build(shares=(Share("y", "client", "server"),))
    with pytest.raises(
        GraphError, match="would send the raw field 'x' to 'server', where no loss needs it; only labels"
    ):
        build(shares=(Share("x", "client", "server"),))


def test_a_label_that_is_also_an_input_cannot_be_shared():
    segments = (head(inputs=("x", "y"), module=nn.Bilinear(4, 1, 3)), top())
    with pytest.raises(GraphError, match="the field 'y' is both an input and a shared label"):
        build(roles=(OWNER, BLIND), segments=segments, shares=(Share("y", "client", "server"),))


def test_a_shared_label_and_a_segment_of_one_name_would_give_one_cut_two_meanings():
    segments = (head("y"), top(inputs=("y",)))
    with pytest.raises(GraphError, match="two cuts are named 'y->server'"):
        build(roles=(OWNER, BLIND), segments=segments, shares=(Share("y", "client", "server"),))


def test_an_example_that_does_not_fit_is_refused():
    with pytest.raises(GraphError, match="the example lacks field 'x' of role 'client'"):
        build(example={"client": {}})
    with pytest.raises(
        GraphError, match=r"segment 'top' cannot run on its inputs float32\[B, 3\]: .*; check the shapes"
    ):
        build(segments=(head(), top(module=nn.Linear(5, 2))), example=example())
    with pytest.raises(
        GraphError,
        match="segment 'head' must return one tensor for each of its outputs; got 1 values; expected 2",
    ):
        build(segments=(head(outputs=("a", "b")), top(inputs=("head:a",))), example=example())


def test_the_example_leaves_modules_as_they_were():
    norm = nn.BatchNorm1d(4)
    build(segments=(head(module=nn.Sequential(norm, nn.Linear(4, 3))), top()), example=example())
    assert norm.training and norm.num_batches_tracked == 0 and torch.equal(norm.running_mean, torch.zeros(4))


# Questions


class Twice(nn.Module):
    """Makes floats and, of no use to a gradient, whole numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        made = self.layer(x)
        return made, made.argmax(1)


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, values, index, other):
        return self.layer(values + other) + index[:, None]


def mixed(example=None):
    """Two roles with data; one gives floats and whole numbers, the other is frozen."""
    frozen = nn.Linear(4, 3).requires_grad_(False)
    return SplitGraph(
        roles=(CLIENT, Role("lab", ("lab",), {"x": X}), SERVER),
        segments=(
            top(module=Mixed(), inputs=("head:values", "head:index", "frozen")),
            head(module=Twice(), outputs=("values", "index")),
            head("frozen", "lab", module=frozen),
        ),
        losses=(loss(),),
        example=example,
    )


def mixed_example():
    return {**example(), "lab": {"x": torch.randn(3, 4)}}


def test_the_order_follows_the_wiring_and_then_the_order_given():
    graph = mixed()
    assert graph.order == ("head", "frozen", "top")
    assert graph.wiring["top"] == (Ref("head", "values"), Ref("head", "index"), Ref("frozen", "out"))
    assert graph.wiring["head"] == ("x",)
    assert graph.consumers(Ref("head", "values")) == ("top",)
    assert graph.consumers(Ref("top", "out")) == ()
    assert [s.name for s in graph.segments_of("server")] == ["top"]


def test_turns_pair_the_parties_of_roles_that_have_many():
    lab = Role("lab", ("l0", "l1"), {"x": X})
    segments = (head(), head("more", "lab"), top(inputs=("head", "more"), module=nn.Bilinear(3, 3, 2)))
    graph = build(roles=(CLIENT, lab, SERVER), segments=segments)
    assert graph.turns == (
        {"client": "a", "lab": "l0", "server": "server"},
        {"client": "b", "lab": "l1", "server": "server"},
    )
    assert [p.name for p in graph.parties] == ["a", "b", "l0", "l1", "server"]
    assert graph.role_of("l1").name == "lab"
    with pytest.raises(GraphError, match=r"no party is named 'sever'; did you mean 'server'\?"):
        graph.role_of("sever")


def test_cuts_carry_all_that_crosses_to_a_role_and_say_what_comes_back():
    graph = mixed(mixed_example())
    values, index = TensorSpec((3,), torch.float32), TensorSpec((), torch.int64)
    assert graph.cuts == (
        Cut(
            "head->server",
            "activation",
            "client",
            "server",
            "head",
            ("values", "index"),
            (values, index),
            (True, False),
        ),
        Cut("frozen->server", "activation", "lab", "server", "frozen", ("out",), (values,), (False,)),
    )
    assert [cut.has_gradient for cut in graph.cuts] == [True, False]
    assert graph.cuts[0].backward_name == "head<-server"
    assert [c.name for c in graph.cuts_into("server")] == ["head->server", "frozen->server"]
    assert [c.name for c in graph.cuts_from("lab")] == ["frozen->server"]
    assert graph.cuts_into("client") == ()


def test_gradients_are_needed_only_where_something_is_trained_and_values_are_floats():
    graph = mixed(mixed_example())
    assert graph.trainable == {"head", "top"}
    assert graph.needs_gradient(Ref("head", "values"))
    assert not graph.needs_gradient(Ref("head", "index"))
    assert not graph.needs_gradient(Ref("frozen", "out"))


def test_without_example_specs_are_unknown_and_gradients_assumed():
    graph = mixed()
    assert graph.cuts[0].specs == (None, None)
    assert graph.cuts[0].returns_gradient == (True, True)


def test_a_frozen_segment_behind_a_trained_one_still_passes_gradients():
    middle = Segment("middle", "server", nn.Linear(3, 3).requires_grad_(False), ("head",))
    graph = build(segments=(head(), middle, top(inputs=("middle",))))
    assert graph.trainable == {"head", "middle", "top"}
    assert graph.cuts[0].has_gradient


def test_one_output_read_by_two_roles_crosses_two_cuts():
    graph = SplitGraph(
        roles=(CLIENT, Role("s1", ("s1",), {"y": Y}), Role("s2", ("s2",), {"y": Y})),
        segments=(head(), top("t1", "s1"), top("t2", "s2")),
        losses=(loss("s1", "t1", name="one"), loss("s2", "t2", name="two")),
    )
    assert [(c.name, c.source, c.target) for c in graph.cuts] == [
        ("head->s1", "client", "s1"),
        ("head->s2", "client", "s2"),
    ]
    assert graph.label_roles == ("s1", "s2")


def test_a_shared_label_is_a_cut_without_gradient_before_all_others():
    graph = build(roles=(OWNER, BLIND), shares=(Share("y", "client", "server"),))
    assert graph.cuts[0] == Cut("y->server", "label", "client", "server", "y", ("y",), (Y,), (False,))
    assert [cut.name for cut in graph.cuts] == ["y->server", "head->server"]


def test_the_digest_changes_with_what_the_parties_must_agree_on():
    digest = build(example=example()).digest
    assert digest == build(example=example()).digest
    others = (
        build(),  # shapes unknown
        build(segments=(head(module=nn.Sequential(nn.Linear(4, 3), nn.ReLU())), top()), example=example()),
        build(losses=(loss(function=nn.CrossEntropyLoss(label_smoothing=0.1)),), example=example()),
        build(losses=(loss(weight=2.0),), example=example()),
        build(roles=(Role("client", ("a", "c"), {"x": X}), SERVER), example=example()),
    )
    assert len({digest, *(graph.digest for graph in others)}) == 1 + len(others)
