"""A run's key tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text

from ..metering.events import Event, Noted
from ..metering.table import Table, shown
from ..metering.tables import finished, tables

__all__ = ["summary"]

SHOWN_EPOCHS = 6


def summary(events: Sequence[Event]) -> RenderableType:
    """Return the summary, what was noted, and the tables of metrics, traffic, compute and parameters."""
    found = tables(events)
    parts: list[RenderableType] = [_panel(found["summary"], finished(events))]
    parts += [_card(event) for event in events if isinstance(event, Noted)]
    for name in ("metrics", "traffic", "parties", "compute", "parameters"):
        if found[name].rows:
            parts.append(_table(_ending(found[name]) if name == "metrics" else found[name]))
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


def _table(table: Table) -> RichTable:
    caption = Text(table.note, style="dim") if table.note else None
    rich = RichTable(
        title=Text(table.title, style="bold"), caption=caption, box=box.SIMPLE_HEAD, title_justify="left",
        caption_justify="left",
    )  # fmt: skip
    for index, name in enumerate(table.columns):
        rich.add_column(Text(name), justify="right" if table.is_number(index) else "left", overflow="fold")
    for row in table.cells():
        rich.add_row(*map(Text, row))
    return rich
