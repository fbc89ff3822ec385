from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from sample_graphs import ALL, departments, hybrid, tasks, u_shaped, vanilla

from cutlayer.graph.layout import place, text_width

SVG = "{http://www.w3.org/2000/svg}"


def apart(a, b, gap=0.0):
    horizontally = a.x + a.width + gap <= b.x or b.x + b.width + gap <= a.x
    return horizontally or a.y + a.height + gap <= b.y or b.y + b.height + gap <= a.y


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
class TestPlaces:
    def test_lanes_do_not_touch(self, make):
        lanes = place(make()).lanes
        assert all(apart(a, b, 20) for i, a in enumerate(lanes) for b in lanes[:i])

    def test_nodes_stay_in_their_lanes(self, make):
        for lane in place(make()).lanes:
            for node in lane.nodes:
                assert lane.x < node.x - node.width / 2 and node.x + node.width / 2 < lane.x + lane.width
                assert lane.y < node.y - node.height / 2 and node.y + node.height / 2 < lane.y + lane.height

    def test_nodes_do_not_touch(self, make):
        nodes = place(make()).nodes
        for i, a in enumerate(nodes):
            for b in nodes[:i]:
                assert (
                    abs(a.x - b.x) >= (a.width + b.width) / 2 or abs(a.y - b.y) >= (a.height + b.height) / 2
                )

    def test_arrows_point_right(self, make):
        for line in place(make()).lines:
            assert line.source.x + line.source.width / 2 < line.target.x - line.target.width / 2

    def test_labels_have_room(self, make):
        for line in place(make()).lines:
            room = line.target.x - line.target.width / 2 - line.source.x - line.source.width / 2
            assert all(text_width(label, 11) + 40 <= room for label in line.labels)

    def test_everything_is_on_the_page(self, make):
        layout = place(make())
        for lane in layout.lanes:
            assert lane.x > 0 and lane.x + lane.width < layout.width
            assert lane.y > 0 and lane.y + lane.height < layout.height

    def test_arrivals_are_apart(self, make):
        ends = [(line.target.key, line.offset) for line in place(make()).lines if line.kind != "inner"]
        assert len(ends) == len(set(ends))


def test_a_fan_has_its_server_in_the_middle():
    lanes = {lane.role: lane for lane in place(departments()).lanes}
    laboratory, server = lanes["laboratory"], lanes["server"]
    assert server.y + server.main == pytest.approx(laboratory.y + laboratory.main)


def test_a_chain_is_level_and_a_u_goes_down():
    client, server = place(vanilla()).lanes
    assert client.y + client.main == pytest.approx(server.y + server.main)
    client, server = place(u_shaped()).lanes
    assert server.y > client.y + client.height
    assert client.x < server.x < server.x + server.width < client.x + client.width


def elements(svg, tag, style):
    return [e for e in ElementTree.fromstring(svg).iter(SVG + tag) if e.get("class") == style]


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_the_drawing_is_whole(make):
    graph = make()
    svg = graph.svg()
    root = ElementTree.fromstring(svg)
    assert root.tag == SVG + "svg" and root.get("role") == "img"
    assert root.find(SVG + "title").text and root.find(SVG + "desc").text
    assert len(elements(svg, "rect", "cl-lane")) == len(graph.roles)
    assert len(elements(svg, "rect", "cl-node")) == len(graph.segments)
    assert len(elements(svg, "path", "cl-field")) == sum(len(role.fields) for role in graph.roles.values())
    assert len(elements(svg, "circle", "cl-loss")) == len(graph.losses)
    assert not re.search(r"href|<script|url\((?!#cl-)|http(?!://www.w3.org/2000/svg)", svg)
    assert not re.search(r"nan|inf\b", svg)


def test_cuts_gradients_and_shares_are_drawn():
    svg = vanilla(100).svg()
    legend = 1
    assert len(elements(svg, "path", "cl-cut")) == 1 + legend
    assert len(elements(svg, "path", "cl-back")) == 1 + legend
    assert len(elements(svg, "path", "cl-open")) == 1 + legend
    assert ">float32[B, 4, 4, 4]</text>" in svg
    assert ">100 parties: client-0 … client-99</text>" in svg
    assert "activation head goes from client to server and a gradient comes back" in svg
    assert len(elements(svg, "rect", "cl-behind")) == 2


def test_nothing_is_drawn_that_is_not_there():
    svg = ALL["alone"]().svg()
    assert not elements(svg, "path", "cl-cut") and not elements(svg, "path", "cl-open")
    assert not elements(svg, "rect", "cl-behind")
    assert "labels openly shared" not in svg and "Nothing crosses." in svg


def test_tensors_are_written_once_however_many_receive_them():
    svg = tasks().svg()
    assert len(elements(svg, "text", "cl-label")) == 3
    assert len(elements(svg, "path", "cl-cut")) == 6 + 1
    svg = hybrid().svg()
    assert ">features float32[B, 8]</text>" in svg and ">residual float32[B, 8]</text>" in svg


def test_names_are_escaped():
    svg = ALL["odd_names"]().svg()
    assert "<title>field a&lt;b&gt;&amp;&quot;c&quot;| , float32[B, 4]</title>" in svg
    assert "Split graph &lt;odd&gt; &amp; &#x27;strange&#x27;" in svg


def test_long_names_are_cut_off():
    from torch import nn

    from cutlayer.graph import Role, Segment, SplitGraph
    from cutlayer.graph.parts import Loss

    name = "department-of-very-rare-diseases-and-other-things-of-interest"
    graph = SplitGraph(
        roles=[Role(name, (name,), {"x": None, "y": None})],
        segments=[Segment(name, name, nn.Linear(2, 2), ("x",))],
        losses=[Loss(role=name, prediction=name)],
    )
    drawn = [e.text for e in elements(graph.svg(), "text", "cl-name")]
    assert any(text.startswith("department-of") and text.endswith("…") for text in drawn)
    assert all(text_width(text, 13) <= 240 for text in drawn)
