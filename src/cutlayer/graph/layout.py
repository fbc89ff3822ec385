"""Where things go in a drawing of a split graph: a lane for each role, columns from left to right.

A column is a step of the data's way from the fields to the losses, so every arrow points right.
Lanes that share no column stand side by side, others one below the other: two roles that talk in
turn form a U, five roles that feed one form a fan.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from .describe import count, crew, size_of, spec_text
from .parts import Ref, Role

if TYPE_CHECKING:
    from .split_graph import SplitGraph

__all__ = ["Lane", "Layout", "Line", "Node", "place", "text_width"]

NODE_HEIGHT, LOSS_SIZE, LINE_PITCH, ROW_GAP = 46.0, 54.0, 18.0, 18.0
PAD, HEADER, LANE_GAP, INNER_GAP, CURVE = 18.0, 46.0, 26.0, 44.0, 64.0
LABEL_SIZE, STACK = 11.0, 5.0
_NARROW = " ,.:;|il[]()1-"


@dataclass
class Node:
    """A field, segment or loss, and its box: centre (x, y), width and height in pixels."""

    kind: Literal["field", "segment", "loss"]
    key: tuple[str, ...]
    role: str
    column: int
    title: str
    subtitle: str
    row: int = 0
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = NODE_HEIGHT
    arrivals: int = 0


@dataclass
class Line:
    """An arrow between two nodes; ``labels`` are written above it."""

    kind: Literal["inner", "activation", "label"]
    source: Node
    target: Node
    labels: tuple[str, ...] = ()
    gradient: bool = False
    offset: float = 0.0


@dataclass
class Lane:
    """A role's box: left, top, width and height in pixels."""

    role: str
    parties: int
    title: str
    subtitle: str
    nodes: list[Node] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0
    main: float = 0.0

    @property
    def columns(self) -> tuple[int, int]:
        """First and last column."""
        return min(n.column for n in self.nodes), max(n.column for n in self.nodes)


@dataclass
class Layout:
    """Everything placed, in pixels."""

    lanes: list[Lane]
    nodes: list[Node]
    lines: list[Line]
    width: float
    height: float


def text_width(text: str, size: float) -> float:
    """Return about how wide ``text`` is in a sans-serif font of ``size`` pixels: rather too wide."""
    ems = (0.34 if c in _NARROW else 0.62 if c.islower() or c.isdigit() else 0.76 for c in text)
    return sum(ems) * size


def place(graph: SplitGraph) -> Layout:
    """Return where everything goes."""
    nodes = _nodes(graph)
    lines = _lines(graph, nodes)
    lanes = [_lane(role, [n for n in nodes.values() if n.role == role.name]) for role in graph.roles.values()]
    _sizes(lanes, lines)
    _columns(lanes, lines)
    _rows(lanes)
    _lanes(lanes, lines)
    _spread(lines)
    margin = PAD + STACK
    right = max(lane.x + lane.width for lane in lanes) + margin
    bottom = max(lane.y + lane.height for lane in lanes) + margin
    return Layout(lanes, [n for lane in lanes for n in lane.nodes if n.key], lines, right, bottom)


def _lane(role: Role, nodes: list[Node]) -> Lane:
    subtitle = "" if role.parties == (role.name,) else crew(role.parties)
    if len(role.parties) > 1:
        subtitle = f"{count(len(role.parties), 'party')}: {subtitle}"
    nodes = nodes or [Node("field", (), role.name, 0, "", "")]  # room for a role that does nothing
    return Lane(role.name, len(role.parties), role.name, subtitle, nodes)


def _nodes(graph: SplitGraph) -> dict[tuple[str, ...], Node]:
    """Return fields, segments and losses by key, each with its column."""
    depth: dict[str, int] = {}
    for name in graph.order:
        depth[name] = 1 + max((depth[r.segment] for r in graph.wiring[name] if isinstance(r, Ref)), default=0)
    nodes: dict[tuple[str, ...], Node] = {}
    for name in graph.order:
        segment = graph.segments[name]
        parameters = size_of(segment.module).parameters
        subtitle = f"{parameters:,} parameters" if parameters else type(segment.module).__name__
        nodes["segment", name] = Node("segment", ("segment", name), segment.role, depth[name], name, subtitle)
    for loss in graph.losses.values():
        column = depth[loss.prediction.partition(":")[0]] + 1
        nodes["loss", loss.name] = Node("loss", ("loss", loss.name), loss.role, column, loss.name, "")
    for role in graph.roles.values():
        for name, spec in role.fields.items():
            key = ("field", role.name, name)
            column = _before(graph, nodes, role.name, name)
            nodes[key] = Node("field", key, role.name, column, name, spec_text(spec))
    return nodes


def _before(graph: SplitGraph, nodes: dict[tuple[str, ...], Node], role: str, name: str) -> int:
    """Return the column of a field: left of what reads it, else left of all that its role does."""
    readers = [nodes["segment", s.name] for s in graph.segments_of(role) if name in graph.wiring[s.name]]
    scored = [nodes["loss", x.name] for x in graph.losses.values() if (x.role, x.target) == (role, name)]
    others = [n for n in nodes.values() if n.role == role and n.kind != "field"]
    return min((n.column for n in readers or scored or others), default=1) - 1


def _lines(graph: SplitGraph, nodes: dict[tuple[str, ...], Node]) -> list[Line]:
    lines = []
    for name in graph.order:
        target = nodes["segment", name]
        for ref in graph.wiring[name]:
            if isinstance(ref, str):
                lines.append(Line("inner", nodes["field", target.role, ref], target))
        for producer in dict.fromkeys(r.segment for r in graph.wiring[name] if isinstance(r, Ref)):
            refs = [r for r in graph.wiring[name] if isinstance(r, Ref) and r.segment == producer]
            source = nodes["segment", producer]
            if source.role == target.role:
                lines.append(Line("inner", source, target))
                continue
            named = len(graph.segments[producer].outputs) > 1
            labels = tuple((f"{r.output} " if named else "") + spec_text(graph.specs.get(r)) for r in refs)
            gradient = any(graph.needs_gradient(r) for r in refs)
            lines.append(Line("activation", source, target, labels, gradient))
    for loss in graph.losses.values():
        target = nodes["loss", loss.name]
        lines.append(Line("inner", nodes["segment", loss.prediction.partition(":")[0]], target))
        if loss.target in graph.roles[loss.role].fields:
            lines.append(Line("inner", nodes["field", loss.role, loss.target], target))
        for share in graph.shares:
            if (share.field, share.target) == (loss.target, loss.role):
                source = nodes["field", share.source, share.field]
                lines.append(Line("label", source, target, (f"label {share.field}",)))
    return lines


def _sizes(lanes: list[Lane], lines: list[Line]) -> None:
    for line in lines:
        line.target.arrivals += line.kind != "inner"
    for node in (n for lane in lanes for n in lane.nodes):
        inside = max(text_width(node.title, 13), text_width(node.subtitle, 10)) + 24
        node.width = (
            54.0 if node.kind == "loss" else min(max(inside, 84.0 if node.kind == "field" else 104.0), 240.0)
        )
        node.height = max(54.0 if node.kind == "loss" else NODE_HEIGHT, LINE_PITCH * node.arrivals + 14)


def _columns(lanes: list[Lane], lines: list[Line]) -> None:
    """Set each node's x: columns as wide as their widest node, gaps as wide as the labels that cross them."""
    nodes = [n for lane in lanes for n in lane.nodes]
    last = max(n.column for n in nodes)
    widths = [max((n.width for n in nodes if n.column == c), default=0.0) for c in range(last + 1)]
    gaps = [INNER_GAP] * (last + 1)
    for lane in lanes:
        first, end = lane.columns
        if first:
            gaps[first - 1] = max(gaps[first - 1], 2 * PAD + CURVE)
        gaps[end] = max(gaps[end], 2 * PAD + CURVE)
    for line in lines:
        if line.kind != "inner" and line.labels:
            needed = max(text_width(label, LABEL_SIZE) for label in line.labels)
            gaps[line.source.column] = max(gaps[line.source.column], needed + 2 * PAD + CURVE)
    left = 2 * PAD + STACK
    centres = []
    for width, gap in zip(widths, gaps, strict=True):
        centres.append(left + width / 2)
        left += width + gap
    for node in nodes:
        node.x = centres[node.column]
    for lane in lanes:
        first, end = lane.columns
        lane.x = centres[first] - widths[first] / 2 - PAD
        lane.width = centres[end] + widths[end] / 2 + PAD - lane.x


def _rows(lanes: list[Lane]) -> None:
    """Set each node's y within its lane: segments and losses on the main line, what else is there below."""
    for lane in lanes:
        rows: dict[int, list[Node]] = {}
        for column in dict.fromkeys(n.column for n in lane.nodes):
            here = [n for n in lane.nodes if n.column == column]
            for row, node in enumerate(sorted(here, key=lambda n: n.kind == "field")):
                node.row = row
                rows.setdefault(row, []).append(node)
        below = HEADER
        for row in sorted(rows):
            height = max(n.height for n in rows[row])
            for node in rows[row]:
                node.y = below + height / 2
            if row == 0:
                lane.main = below + height / 2
            below += height + ROW_GAP
        lane.height = below


def _lanes(lanes: list[Lane], lines: list[Line]) -> None:
    """Set each lane's y, column by column: level with what feeds it where there is room, else below."""
    placed: list[Lane] = []
    for start in sorted({lane.columns[0] for lane in lanes}):
        block = [lane for lane in lanes if lane.columns[0] == start]
        block.sort(key=lambda lane: -(lane.columns[1] - lane.columns[0]))
        wishes = [w for w in (_wish(lane, placed, lines) for lane in block) if w is not None]
        below = 0.0
        for lane in block:
            lane.y = below
            below += lane.height + LANE_GAP
        if wishes:
            middle = sum(lane.y + lane.main for lane in block) / len(block)
            _shift(block, sum(wishes) / len(wishes) - middle)
        while shift := max((_overlap(a, b) for a in block for b in placed), default=0.0):
            _shift(block, shift)
        placed += block
    _shift(lanes, PAD + STACK - min(lane.y for lane in lanes))
    for lane in lanes:
        for node in lane.nodes:
            node.y += lane.y


def _wish(lane: Lane, placed: Iterable[Lane], lines: list[Line]) -> float | None:
    """Return the y of the main line that would be level with the lanes that feed ``lane``."""
    feeding = {
        line.source.role for line in lines if line.target.role == lane.role and line.kind == "activation"
    }
    levels = [other.y + other.main for other in placed if other.role in feeding]
    return sum(levels) / len(levels) if levels else None


def _overlap(lane: Lane, other: Lane) -> float:
    """Return by how much ``lane`` must go down so as not to touch ``other``."""
    apart = lane.columns[0] > other.columns[1] or lane.columns[1] < other.columns[0]
    if apart or lane.y >= other.y + other.height + LANE_GAP or lane.y + lane.height + LANE_GAP <= other.y:
        return 0.0
    return other.y + other.height + LANE_GAP - lane.y


def _shift(lanes: Iterable[Lane], by: float) -> None:
    for lane in lanes:
        lane.y += by


def _spread(lines: list[Line]) -> None:
    """Set where each cut's arrow meets its target, in the order in which the arrows come from above."""
    arriving: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        if line.kind != "inner":
            arriving.setdefault(line.target.key, []).append(line)
    for group in arriving.values():
        group.sort(key=lambda line: line.source.y)
        for index, line in enumerate(group):
            line.offset = (index - (len(group) - 1) / 2) * LINE_PITCH
