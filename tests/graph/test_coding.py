"""Codecs of a graph: chosen by cut and direction, part of its text, its digest and its statement."""

import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.codecs import EXACT, Integer, TopK
from cutlayer.errors import GraphError, StudyError
from cutlayer.graph.sizes import cut_bytes

X = torch.randn(4, 8)


def vanilla(**more):
    return cl.vanilla(cl.networks.mlp((8, 6, 3)), "linear1", clients=2, example=X, **more)


def chosen(graph):
    return {cut.name: (cut.codec, cut.return_codec) for cut in graph.cuts}


def test_nothing_chosen_is_exact_and_the_digest_of_before():
    plain = vanilla()
    assert chosen(plain)["head->server"] == (EXACT, EXACT)
    for same in (vanilla(codecs="exact"), vanilla(codecs={}), plain.with_codecs("int8").with_codecs(None)):
        assert same.describe() == plain.describe() and same.digest == plain.digest
    assert "written as" not in plain.describe() + plain.disclosure("client-0")


def test_a_word_is_for_all_cuts_and_both_directions_where_it_fits():
    assert chosen(vanilla(codecs="int8")) == {
        "y->server": (EXACT, EXACT),
        "head->server": (Integer(), Integer()),
    }
    assert chosen(vanilla(codecs=TopK(share=0.5)))["head->server"] == (TopK(share=0.5), EXACT)
    graph = cl.u_shaped(
        cl.networks.mlp((8, 6, 5, 3)), ("linear1", "linear2"), example=X, codecs="int8+feedback"
    )
    assert chosen(graph) == dict.fromkeys(
        ("head->server", "body->client"), (Integer(), Integer(feedback=True))
    )


def test_by_name_what_is_not_named_is_exact():
    assert chosen(vanilla(codecs={"head<-server": "int4"}))["head->server"] == (EXACT, Integer(bits=4))
    assert chosen(vanilla(codecs={"head->server": "int4"}))["head->server"] == (Integer(bits=4), EXACT)


@pytest.mark.parametrize("make", ["vertical", "extended_vanilla", "multi_task", "multi_hop"])
def test_every_configuration_takes_codecs(make):
    bottoms = {"a": nn.Linear(8, 4), "b": nn.Linear(8, 4)}
    rows = {"a": X, "b": X}
    graph = {
        "vertical": lambda c: cl.vertical(bottoms, nn.Linear(8, 3), example=rows, codecs=c),
        "extended_vanilla": lambda c: cl.extended_vanilla(
            bottoms, nn.Linear(8, 5), nn.Linear(5, 3), example=rows, codecs=c
        ),
        "multi_task": lambda c: cl.multi_task(
            bottoms, {"s": nn.Linear(8, 3), "t": nn.Linear(8, 2)}, example=rows, codecs=c
        ),
        "multi_hop": lambda c: cl.multi_hop(
            cl.networks.mlp((8, 6, 5, 3)), ("linear1", "linear2"), example=X, codecs=c
        ),
    }[make]
    with pytest.raises(StudyError, match="no codec is named 'none'"):
        graph("none")
    activations = [cut for cut in graph("int8").cuts if cut.kind == "activation"]
    assert len(activations) >= 2 and {cut.codec for cut in activations} == {Integer()}


def test_codecs_are_in_text_and_digest():
    graphs = [vanilla(codecs=c) for c in (None, "int8", "int8:row", {"head->server": "int8"}, "topk:0.5")]
    assert len({graph.digest for graph in graphs}) == len(graphs)
    assert (
        "float32[B, 6], written as int8; gradient back from server to client, written as int8"
        in graphs[1].describe()
    )


@pytest.mark.parametrize(
    ("codecs", "why"),
    [
        ({"hed->server": "int8"}, "a codec is chosen for the unknown cut 'hed->server'; did you mean 'head->server'?"),
        ({"y->server": "int8"}, "a codec is chosen for 'y->server': labels cross as they are"),
        ({"head->server": "topk:0.5+feedback"}, "cut head->server: error feedback is for gradients"),
        ("topk:0.5+feedback", "cut head<-server: error feedback needs a gradient of the same form each time"),
        ({"head->server": "c3:2", "head<-server": "int8+feedback"}, "comes back added up with the same keys"),
    ],
)  # fmt: skip
def test_choices_that_cannot_be(codecs, why):
    with pytest.raises(GraphError) as caught:
        vanilla(codecs=codecs)
    assert why in str(caught.value)


def test_shapes_must_be_known_and_fit():
    with pytest.raises(
        GraphError, match="a codec needs to know the shape of 'out'; build the graph with example="
    ):
        cl.vertical({"a": nn.Linear(8, 4)}, nn.Linear(4, 3), codecs="int8")
    thin = {"a": nn.Sequential(nn.Linear(8, 1), nn.Flatten(0))}
    top = nn.Sequential(nn.Unflatten(0, (-1, 1)), nn.Linear(1, 3))
    as_it_is = nn.Identity()
    with pytest.raises(GraphError, match="'int8:channel' cannot write 'out': it has no channels"):
        cl.vertical(thin, top, merge=as_it_is, example={"a": X}, codecs="int8:channel")


def test_the_statement_says_codec_bytes_and_error_and_that_it_protects_nothing():
    codecs = {"head->server": "topk:0.5", "head<-server": "int8"}
    said = " ".join(vanilla(codecs=codecs).disclosure("client-1", 16).split())
    assert "float32[B, 6], written as topk:0.5 (of each row the 0.5 with the largest magnitudes" in said
    assert "240 bytes a batch, 1.6 times fewer than 384. This protects nothing" in said
    assert "coming back only at the places that were kept, without their positions; written as int8" in said
    assert "each value is off by at most 1/508 of the range of its tensor" in said
    assert "53 bytes a batch, 7.2 times fewer than 384" in said  # 16 rows of 3 values, a step and a zero
    fed = " ".join(vanilla(codecs={"head<-server": "int4+feedback"}).disclosure("server", 16).split())
    assert (
        "written as int4+feedback" in fed and "what was left out of one gradient is added to the next" in fed
    )


def test_bytes_of_a_cut():
    (cut,) = (cut for cut in vanilla(codecs={"head->server": "int8"}).cuts if cut.kind == "activation")
    assert cut_bytes(cut, 10) == 10 * 6 + 4 + 1
    assert cut_bytes(cut, 10, back=True) == 10 * 6 * 4
    (wider,) = (c for c in vanilla(codecs={"head->server": "topk:1"}).cuts if c.kind == "activation")
    assert cut_bytes(wider, 10) == 10 * 6 * 5
    assert "300 bytes a batch, instead of 240" in " ".join(
        vanilla(codecs="topk:1").disclosure("client-0", 10).split()
    )


def test_room_for_feedback_is_at_the_segment_that_makes_the_gradient():
    graph = vanilla(codecs={"head<-server": "topk:0.5+feedback"})
    assert dict(graph.segments["top"].module.named_buffers())["left_out_head_0"].shape == (6,)
    assert not list(graph.segments["head"].module.buffers())
