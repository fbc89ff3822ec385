from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sample_graphs import ALL, departments, hybrid, tasks, u_shaped, vanilla
from torch import nn

from cutlayer.graph.describe import Size, count, crew, function_name, size_of, word
from cutlayer.graph.parts import Loss
from cutlayer.graph.split_graph import SplitGraph


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_the_same_graph_reads_the_same(make):
    torch.manual_seed(1)
    first = make()
    torch.manual_seed(2)
    second = make()
    assert first.describe() == second.describe()
    assert first.mermaid() == second.mermaid()
    assert first.svg() == second.svg()


def test_training_changes_nothing_in_the_text():
    graph = vanilla()
    before = graph.describe()
    with torch.no_grad():
        for segment in graph.segments.values():
            for tensor in (*segment.module.parameters(), *segment.module.buffers()):
                tensor.fill_(7)
    assert graph.describe() == before


def test_the_text_says_who_what_and_where():
    text = vanilla().describe()
    assert "vanilla: 2 segments on 2 roles, 4 parties, 2 cuts" in text
    assert "client (3 parties: client-0, client-1, client-2)" in text
    assert "field x: float32[B, 3, 8, 8]" in text
    assert "y->server: label from client to server: y int64[B]; no gradient back" in text
    assert (
        "head->server: activation from client to server: out float32[B, 4, 4, 4]; gradient back from server"
        in text
    )
    assert "loss on server: CrossEntropyLoss of top and field y, weight 1" in text
    assert "holds 120 parameters (120 trained), 9 buffers" in text
    assert text.rstrip().endswith("y from client to server")


def test_what_is_not_there_is_said():
    text = u_shaped().describe()
    assert text.rstrip().endswith("Labels openly shared\n  none")
    assert "y: shape not known" in departments().describe()


def test_several_outputs_are_named():
    text = hybrid().describe()
    assert "reads encoder:features, lab" in text
    assert "makes features float32[B, 8], residual float32[B, 8]" in text


def test_weights_of_losses_are_told():
    assert (
        "loss-surgery on surgery: CrossEntropyLoss of top-surgery and field y, weight 0.5"
        in tasks().describe()
    )


def test_frozen_parameters_are_told():
    x = torch.randn(2, 4)
    head = nn.Linear(4, 3)
    head.weight.requires_grad_(False)
    from cutlayer.graph import Role, Segment

    graph = SplitGraph(
        roles=[Role("a", ("a",), {"x": None, "y": None})],
        segments=[Segment("head", "a", head, ("x",))],
        losses=[Loss(role="a", prediction="head")],
        example={"a": {"x": x}},
    )
    assert "holds 15 parameters (3 trained), 0 buffers" in graph.describe()


def test_every_party_of_a_numbered_crowd_is_meant():
    assert crew([f"c{i}" for i in range(9)]) == "c0 … c8"
    assert crew([f"c{i}" for i in range(5, 16)]) == "c5 … c15"
    assert crew(["a", "b"]) == "a, b"


@given(
    st.lists(st.from_regex(r"[a-z]{1,3}[0-9]{0,2}", fullmatch=True), min_size=9, max_size=30, unique=True),
    st.data(),
)
def test_a_crowd_with_another_member_reads_differently(parties, data):
    index = data.draw(st.integers(0, len(parties) - 1))
    other = [*parties[:index], "someone-else", *parties[index + 1 :]]
    assert crew(parties) != crew(other)
    assert crew(parties) != crew(parties[::-1])


def test_padded_numbers_are_no_range():
    assert crew([f"c{i:02}" for i in range(12)]).startswith("c00, c01, … c11; list ")


def test_counts():
    assert [count(1, "party"), count(2, "party"), count(0, "cut")] == ["1 party", "2 parties", "0 cuts"]


def test_names_that_are_no_words_are_quoted():
    assert word("x") == "x"
    assert word("head<-server") == "head<-server"
    assert word("a b\n") == "'a b\\n'"


def test_names_of_functions_hold_no_address():
    assert function_name(nn.MSELoss()) == "MSELoss"
    assert function_name(nn.functional.cross_entropy) == "cross_entropy"

    class Callable:
        def __call__(self) -> None: ...

    assert function_name(Callable()) == "Callable"


def test_sizes_add_up():
    size = size_of(nn.BatchNorm1d(4))
    assert size == Size(8, 8, 9, 8 * 4 + 8 * 4 + 8)
    assert size + size == Size(16, 16, 18, 144)
    assert size_of(nn.LazyLinear(3)) == Size()


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_mermaid_has_a_box_for_each_role_and_an_arrow_for_each_edge(make):
    graph = make()
    text = graph.mermaid()
    assert text.startswith("flowchart LR\n")
    assert text.count("  subgraph ") == len(graph.roles) == text.count("\n  end")
    crossing = sum(
        not isinstance(ref, str) and graph.segments[ref.segment].role != graph.segments[name].role
        for name in graph.order
        for ref in graph.wiring[name]
    )
    assert text.count("==>|") == crossing
    assert text.count(".->") == len(graph.shares)
    used = set(
        re.findall(r"\b[rfsl]\d+\b", "".join(re.sub(r'".*?"', "", line) for line in text.splitlines()))
    )
    made = re.findall(r"^ *(?:subgraph )?([rfsl]\d+)[\[(]", text, flags=re.M)
    assert used == set(made)
    assert len(made) == len(set(made))


def test_mermaid_shows_shapes_and_shared_labels():
    text = vanilla(100).mermaid()
    assert '["client · 100 parties"]' in text
    assert '==>|"float32[B, 4, 4, 4], gradient back"|' in text
    assert '-. "label y int64[B]" .->' in text


def test_mermaid_escapes_names():
    text = ALL["odd_names"]().mermaid()
    assert "a#lt;b#gt;#amp;#quot;c#quot;| " in text
    assert "<b>" not in text


def test_weights_differ_in_their_last_digit():
    graph = vanilla()
    first = graph.describe()
    loss = graph.losses["loss"]
    graph.losses["loss"] = Loss(role=loss.role, prediction=loss.prediction, weight=1.0000000000000002)
    assert graph.describe() != first
