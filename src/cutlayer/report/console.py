"""A run's key tables for the terminal, in 80 columns: exact counts are in the run's tables and its report."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text

from ..metering.events import Event, Noted
from ..metering.reading import finished
from ..metering.table import Cell, Table, human_bytes, human_flops, shown
from ..metering.tables import tables

__all__ = ["readable", "summary"]

SHOWN_EPOCHS = 6
_TOO_MUCH = ("frames", "tensor bytes", "overhead (%)", "measured")
_WORD = 20  # letters in a cell that is never broken
_UNIT = re.compile(r" \((frame )?bytes( sent)?\)| \(FLOP\)")


def summary(events: Sequence[Event]) -> RenderableType:
    """Return the summary, what was noted, and the tables of metrics, traffic, compute and parameters."""
    found = tables(events)
    parts: list[RenderableType] = [_panel(found["summary"], finished(events))]
    parts += [_card(event) for event in events if isinstance(event, Noted)]
    for name in ("metrics", "protection", "traffic", "parties", "compute", "parameters"):
        if found[name].rows:
            parts.append(readable(_ending(found[name]) if name == "metrics" else found[name]))
    return Group(*parts)


def _panel(table: Table, done: bool) -> Panel:
    grid = RichTable.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    for what, value in table.rows:
        grid.add_row(Text(shown(what)), Text(shown(value)))
    return Panel(
        grid, title="Run" if done else "Run, not finished", border_style="blue" if done else "yellow"
    )


def _card(event: Noted) -> Panel:
    body = Text(event.text)
    if event.figures:
        figures = "   ".join(f"{name} {shown(float(value))}" for name, value in event.figures.items())
        body.append(f"\n{figures}", style="bold")
    return Panel(body, title=Text(event.subject), title_align="left", border_style="green")


def _ending(table: Table) -> Table:
    """Keep the last epochs only."""
    epochs = sorted({row[0] for row in table.rows if isinstance(row[0], int)})[-SHOWN_EPOCHS:]
    rows = tuple(row for row in table.rows if row[0] in epochs)
    title = table.title if len(rows) == len(table.rows) else f"{table.title}, the last {SHOWN_EPOCHS}"
    return Table(title=title, columns=table.columns, rows=rows, note=table.note)


def _narrow(table: Table) -> Table:
    """Leave out the columns that only the report has room for, and what the note says of them."""
    kept = [i for i, name in enumerate(table.columns) if name not in _TOO_MUCH]
    note = table.note if len(kept) == len(table.columns) else table.note.partition(" Overhead: ")[0]
    rows = tuple(tuple(row[i] for i in kept) for row in table.rows)
    return Table(title=table.title, columns=tuple(table.columns[i] for i in kept), rows=rows, note=note)


def readable(table: Table) -> RichTable:
    """Return a table for the terminal: what there is room for, bytes and operations in units that people know."""
    table = _narrow(table)
    caption = Text(table.note, style="dim") if table.note else None
    rich = RichTable(
        title=Text(table.title, style="bold"), caption=caption, box=box.SIMPLE_HEAD, title_justify="left",
        caption_justify="left", collapse_padding=True, pad_edge=False,
    )  # fmt: skip
    rows = [
        [_readable(*it) for it in zip(table.columns, row, cells, strict=True)]
        for row, cells in zip(table.rows, table.cells(), strict=True)
    ]
    for index, name in enumerate(table.columns):
        longest = max((row[index] for row in rows), key=len, default="")
        number = table.is_number(index)
        header = _UNIT.sub("", name)
        rich.add_column(
            Text(header.replace(" ", "\n") if number else header), justify="right" if number else "left",
            overflow="fold", min_width=_longest_word(longest),
            no_wrap=number or (" " not in longest and len(longest) <= _WORD),
        )  # fmt: skip
    for row in rows:
        rich.add_row(*map(Text, row))
    return rich


def _longest_word(cell: str) -> int:
    return min(max(map(len, cell.split()), default=0), _WORD)


def _readable(column: str, cell: Cell, text: str) -> str:
    """Return bytes and FLOPs in units that people know, everything else as ``text``, in few words."""
    if not isinstance(cell, int | float):
        return text.removeprefix("hand-over of ")
    if "bytes" in column:
        return human_bytes(cell)
    return human_flops(cell) if "FLOP" in column else text
