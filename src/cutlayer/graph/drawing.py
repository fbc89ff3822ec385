"""A split graph as a stand-alone SVG drawing: a lane for each role, arrows for what crosses between them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from .layout import CURVE, LABEL_SIZE, PAD, STACK, Lane, Layout, Line, Node, place, text_width

if TYPE_CHECKING:
    from .split_graph import SplitGraph

__all__ = ["svg"]

GRADIENT_OFFSET = 8.0
SHOWN_LABELS = 4

_STYLE = """
.cl-page{fill:#fbfbfa} .cl-lane{fill:#f1f2f0;stroke:#b9bdb8} .cl-behind{fill:#e4e6e2;stroke:#b9bdb8}
.cl-node{fill:#ffffff;stroke:#5c6770} .cl-field{fill:#fdf4dd;stroke:#a07f2c}
.cl-loss{fill:#e6f2ea;stroke:#3d7f58}
text{font-family:system-ui,sans-serif;fill:#23292e} .cl-role{font-size:14px;font-weight:600}
.cl-name{font-size:13px;font-weight:600;text-anchor:middle} .cl-small{font-size:10px;fill:#5c6770}
.cl-mid{text-anchor:middle}
.cl-label{font-size:11px;fill:#0b4f8a;paint-order:stroke;stroke:#f6f7f5;stroke-width:3px}
.cl-share{fill:#a8480a;font-weight:600}
.cl-line{fill:none;stroke:#8a939a;stroke-width:1.3} .cl-cut{fill:none;stroke:#0072b2;stroke-width:2.2}
.cl-back{fill:none;stroke:#0072b2;stroke-width:1.1;stroke-dasharray:5 3.5}
.cl-open{fill:none;stroke:#d55e00;stroke-width:2;stroke-dasharray:2 3.5;stroke-linecap:round}
.cl-tip{fill:#8a939a} .cl-cut-tip{fill:#0072b2} .cl-open-tip{fill:#d55e00}
@media (prefers-color-scheme:dark){
.cl-page{fill:#1b1e21} .cl-lane{fill:#25292d;stroke:#4d555c} .cl-behind{fill:#2f3439;stroke:#4d555c}
.cl-node{fill:#32383e;stroke:#9aa4ad} .cl-field{fill:#3d3521;stroke:#c9a94f}
.cl-loss{fill:#233a2c;stroke:#6db288}
text{fill:#e8eaec} .cl-small{fill:#a9b2ba} .cl-label{fill:#8ec8f2;stroke:#202428} .cl-share{fill:#ffb27a}
.cl-line{stroke:#77818a} .cl-tip{fill:#77818a} .cl-cut,.cl-back{stroke:#56b4e9} .cl-cut-tip{fill:#56b4e9}}
"""


def svg(graph: SplitGraph) -> str:
    """Return ``graph`` as an SVG document that needs nothing else: no script, no font, no other file."""
    layout = place(graph)
    legend = _legend(graph, layout)
    width = max(layout.width, 2 * PAD + sum(text_width(text, 10) + 60 for _, text in legend))
    height = layout.height + 26
    behind = [line for line in layout.lines if line.kind == "inner"]
    above = [line for line in layout.lines if line.kind != "inner"]
    body = [
        *(_lane(lane) for lane in layout.lanes),
        *(_inner(line, layout.nodes) for line in behind),
        *(_crossing(line, layout.nodes) for line in above),
        *(_node(node) for node in layout.nodes),
        *_labels(above),
        *_legend_lines(legend, layout.height + 4),
    ]
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="cl-title cl-desc">',
        f'<title id="cl-title">Split graph {_text(graph.name)}</title>',
        f'<desc id="cl-desc">{_text(_described(graph))}</desc>',
        f"<style>{_STYLE}</style>",
        f"<defs>{''.join(_marker(name) for name in ('tip', 'cut-tip', 'open-tip'))}</defs>",
        f'<rect class="cl-page" width="{width:.0f}" height="{height:.0f}" rx="8"/>',
    ]
    return "\n".join([*head, *body, "</svg>\n"])


def _described(graph: SplitGraph) -> str:
    """Return what the drawing shows in words, for those who cannot see it."""
    places = "; ".join(
        f"{role.name} runs {', '.join(s.name for s in graph.segments_of(role.name)) or 'nothing'}"
        for role in graph.roles.values()
    )
    cuts = "; ".join(
        f"{cut.kind} {cut.producer} goes from {cut.source} to {cut.target}"
        + (" and a gradient comes back" if cut.has_gradient else "")
        for cut in graph.cuts
    )
    return f"{places}. {cuts or 'Nothing crosses'}."


def _marker(name: str) -> str:
    size = 8 if name == "tip" else 9
    return (
        f'<marker id="cl-{name}" class="cl-{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="{size}" '
        f'markerHeight="{size}" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z"/></marker>'
    )


def _lane(lane: Lane) -> str:
    box = f'width="{lane.width:.1f}" height="{lane.height:.1f}" rx="10"'
    parts = [
        f'<rect class="cl-behind" x="{lane.x + k * STACK:.1f}" y="{lane.y + k * STACK:.1f}" {box}/>'
        for k in ((2, 1) if lane.parties > 1 else ())
    ]
    left, room = lane.x + PAD - 4, lane.width - 2 * PAD + 10
    parts.append(f'<rect class="cl-lane" x="{lane.x:.1f}" y="{lane.y:.1f}" {box}/>')
    parts.append(_say("cl-role", left, lane.y + 21, _fitted(lane.title, 14, room)))
    if lane.subtitle:
        parts.append(_say("cl-small", left, lane.y + 35, _fitted(lane.subtitle, 10, room)))
    return _group(f"role {lane.title}: {lane.subtitle or lane.title}", parts)


def _node(node: Node) -> str:
    if node.kind == "loss":
        return _loss(node)
    left, top, wide, high = node.x - node.width / 2, node.y - node.height / 2, node.width, node.height
    drop = 0.0
    if node.kind == "field":
        drop, rim = 5.0, ("a", wide / 2, 5, "0 0 0")
        outline = _d(
            "M", left, top + 5, "v", high - 10, *rim, wide, 0, "v", 10 - high, *rim, -wide, 0, *rim, wide, 0
        )
        shape = f'<path class="cl-field" d="{outline}"/>'
    else:
        box = f'x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{high:.1f}" rx="8"'
        shape = f'<rect class="cl-node" {box}/>'
    name = _say("cl-name", node.x, node.y - 2 + drop, _fitted(node.title, 13, wide - 10))
    below = _say("cl-small cl-mid", node.x, node.y + 12 + drop, _fitted(node.subtitle, 10, wide - 10))
    return _group(f"{node.kind} {node.title}, {node.subtitle}", [shape, name, below])


def _loss(node: Node) -> str:
    radius = node.width / 2 - 1
    parts = [
        f'<circle class="cl-loss" cx="{node.x:.1f}" cy="{node.y:.1f}" r="{radius:.1f}"/>',
        _say("cl-small cl-mid", node.x, node.y + 3.5, "loss"),
    ]
    if node.title != "loss":  # names are longer than circles are wide
        parts.append(_say("cl-small cl-mid", node.x, node.y - radius - 6, _fitted(node.title, 10, 96)))
    return _group(f"loss {node.title}", parts)


def _inner(line: Line, nodes: list[Node]) -> str:
    start, end = line.source.x + line.source.width / 2, line.target.x - line.target.width / 2
    y, to, drop = line.source.y, line.target.y, 0.0
    if line.target.kind == "loss" and to < y - 1:  # a label from below meets the circle at its lower left
        end, to = line.target.x - line.target.width * 0.354, to + line.target.width * 0.354
        return _arrow("cl-line", "cl-tip", _d("M", start, y, "Q", end - 6, y, end, to))
    if line.target.column - line.source.column > 1 and line.source.kind == "segment":
        y, to, drop = y + 15, to + 15, _detour(line, nodes)
    if abs(y - to) < 0.5 and not drop:
        return _arrow("cl-line", "cl-tip", _d("M", start, y, "H", end))
    bend = min(max((end - start) / 2, 14.0), 60.0)
    course = _d("M", start, y, "C", start + bend, y + drop, end - bend, to + drop, end, to)
    return _arrow("cl-line", "cl-tip", course)


def _crossing(line: Line, nodes: list[Node]) -> str:
    """Draw a cut: level under its label, then a curve; its gradient comes back beside it."""
    if line.kind == "label":
        return _share(line)
    parts = [_course(line, nodes, 0.0, back=False)]
    if line.gradient:
        parts.append(_course(line, nodes, GRADIENT_OFFSET, back=True))
    words = f"{line.source.title} to {line.target.title}: {', '.join(line.labels)}"
    return _group(words + ("; gradient back" if line.gradient else ""), parts)


def _course(line: Line, nodes: list[Node], drop: float, *, back: bool) -> str:
    x, y = line.source.x + line.source.width / 2, line.source.y - 3 + drop
    end, to = line.target.x - line.target.width / 2, line.target.y + line.offset - 3 + drop
    turn = max(x, min(x + PAD + _label_width(line) + 4, end - CURVE))
    if abs(to - y) > 0.5:  # keep the two curves apart where they turn
        turn += drop / 2 if to < y else -drop / 2
    bend, up = (end - turn) / 2, _detour(line, nodes)
    if abs(to - y) < 0.5 and not up:
        there, again = _d("M", x, y, "H", end), _d("M", end, y, "H", x)
    else:
        near, far = (turn + bend, y - up), (end - bend, to - up)
        there = _d("M", x, y, "H", turn, "C", *near, *far, end, to)
        again = _d("M", end, to, "C", *far, *near, turn, y, "H", x)
    return _arrow("cl-back", "cl-cut-tip", again) if back else _arrow("cl-cut", "cl-cut-tip", there)


def _detour(line: Line, nodes: list[Node]) -> float:
    """Return how far a long arrow must swing aside to get past the nodes between its ends."""
    low, high = sorted((line.source.y, line.target.y))
    columns = range(line.source.column + 1, line.target.column)
    between = [
        n for n in nodes if n.column in columns and low < n.y + n.height / 2 and n.y - n.height / 2 < high
    ]
    return 1.1 * max((n.height for n in between), default=0.0)


def _share(line: Line) -> str:
    """Draw an openly shared label: below everything, then up into the loss."""
    x, y = line.source.x + line.source.width / 2, line.source.y
    end, low = line.target.x, line.target.y + line.target.height / 2
    if y < low + 12:
        course = _d("M", x, y, "C", x + 60, low + 50, end - 60, low + 50, end, low)
    else:
        course = _d("M", x, y, "H", end - 14, "Q", end, y, end, y - 14, "V", low)
    return _group(f"{line.labels[0]} openly shared", [_arrow("cl-open", "cl-open-tip", course)])


def _labels(lines: list[Line]) -> list[str]:
    """Write what leaves a node once, above where its arrows leave, however many roles receive it."""
    written: dict[tuple[str, ...], tuple[Line, dict[str, None]]] = {}
    for line in lines:
        written.setdefault(line.source.key, (line, {}))[1].update(dict.fromkeys(line.labels))
    parts = []
    for line, labels in written.values():
        shown = list(labels)
        if len(shown) > SHOWN_LABELS:
            shown[SHOWN_LABELS - 1 :] = ["… and more"]
        x = line.source.x + line.source.width / 2 + (PAD + 4 if line.kind == "activation" else 12)
        style = "cl-label" if line.kind == "activation" else "cl-label cl-share"
        for index, label in enumerate(reversed(shown)):
            parts.append(_say(style, x, line.source.y - 9 - index * (LABEL_SIZE + 2), _text(label)))
    return parts


def _label_width(line: Line) -> float:
    return max((text_width(label, LABEL_SIZE) for label in line.labels), default=0.0)


def _legend(graph: SplitGraph, layout: Layout) -> list[tuple[str, str]]:
    found = []
    if any(line.kind == "activation" for line in layout.lines):
        found.append(("cl-cut", "activations (B: rows of a batch)"))
    if any(line.gradient for line in layout.lines):
        found.append(("cl-back", "gradients, in training only"))
    if graph.shares:
        found.append(("cl-open", "labels openly shared"))
    return [*found, ("cl-line", "within one party")]


def _legend_lines(legend: list[tuple[str, str]], y: float) -> list[str]:
    parts, x = [], PAD + STACK
    for style, text in legend:
        parts.append(f'<path class="{style}" d="{_d("M", x, y, "h", 26)}"/>')
        parts.append(_say("cl-small", x + 32, y + 3.5, _text(text)))
        x += 32 + text_width(text, 10) + 24
    return parts


def _d(*steps: str | float) -> str:
    """Return a path's data: letters as they are, numbers with one decimal."""
    return " ".join(step if isinstance(step, str) else f"{step:.1f}" for step in steps)


def _arrow(style: str, tip: str, course: str) -> str:
    return f'<path class="{style}" marker-end="url(#{tip})" d="{course}"/>'


def _say(style: str, x: float, y: float, escaped: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escaped}</text>'


def _group(title: str, parts: list[str]) -> str:
    return f"<g><title>{_text(title)}</title>{''.join(parts)}</g>"


def _fitted(text: str, size: float, room: float) -> str:
    """Return ``text``, cut off with an ellipsis where it is wider than ``room`` pixels."""
    if text_width(text, size) > room:
        while text and text_width(text + "…", size) > room:
            text = text[:-1]
        text += "…"
    return _text(text)


def _text(text: str) -> str:
    """Return ``text`` escaped; characters that XML does not allow become spaces."""
    return escape("".join(c if c.isprintable() else " " for c in text))
