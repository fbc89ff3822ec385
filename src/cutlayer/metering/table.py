"""A table of numbers and how it reads: as aligned text, as Markdown, with units that people know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["UNKNOWN", "Cell", "Table", "human_bytes", "human_flops", "human_seconds", "shown"]

Cell = str | int | float | None

UNKNOWN = "-"
"""The cell of a number that nobody could count."""


def shown(cell: Cell) -> str:
    """Return a cell as text: thousands separated, four digits of a fraction, nothing for None.

    >>> shown(1234567), shown(0.123456), shown(12345.678), shown(None), shown("head")
    ('1,234,567', '0.1235', '12,346', '', 'head')
    """
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return f"{cell:,}"
    if not math.isfinite(cell):
        return str(cell)
    if abs(cell) >= 1000:
        return f"{cell:,.0f}"
    return f"{cell:.4g}" if cell == 0 or abs(cell) >= 1e-3 else f"{cell:.3e}"


def _decimals(column: Sequence[Cell]) -> int:
    """Return how many decimals show the largest number of a column with four digits, or a little more."""
    sizes = [abs(cell) for cell in column if isinstance(cell, int | float) and math.isfinite(cell)]
    biggest = max(sizes, default=0.0)
    return 4 if biggest < 10 else 2 if biggest < 100 else 1 if biggest < 1000 else 0


def _aligned(cell: Cell, decimals: int) -> str:
    if not isinstance(cell, float) or not math.isfinite(cell):
        return shown(cell)
    text = f"{cell:,.{decimals}f}"
    return shown(cell) if cell and not text.strip("-0.,") else text


def _scaled(value: float, steps: Sequence[str], unit: str) -> str:
    """Return ``value`` with three digits and the largest of ``steps`` (of a thousand each) that fits."""
    index = 0
    while abs(value) >= 999.5 and index < len(steps) - 1:
        value, index = value / 1000, index + 1
    digits = 0 if index == 0 else max(0, 2 - len(str(int(abs(value)))) + 1)
    return f"{value:,.{digits}f} {steps[index]}{unit}"


def human_bytes(count: float) -> str:
    """Return bytes for people, in steps of 1000.

    >>> human_bytes(999), human_bytes(1530), human_bytes(2_345_678), human_bytes(12e9)
    ('999 B', '1.53 KB', '2.35 MB', '12.0 GB')
    """
    return _scaled(count, ("", "K", "M", "G", "T", "P"), "B")


def human_flops(count: float) -> str:
    """Return floating point operations for people.

    >>> human_flops(12), human_flops(154_800_000_000)
    ('12 FLOP', '155 GFLOP')
    """
    return _scaled(count, ("", "K", "M", "G", "T", "P", "E"), "FLOP")


def human_seconds(seconds: float) -> str:
    """Return a duration for people.

    >>> human_seconds(0.0042), human_seconds(59.9), human_seconds(75), human_seconds(3700)
    ('4.2 ms', '59.9 s', '1 min 15 s', '1 h 1 min')
    """
    if not math.isfinite(seconds):
        return f"{seconds} s"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: what it is about, its columns (with units), its rows, and what a reader must know.

    Attributes:
        title: What it is about.
        columns: Names of the columns, with units.
        rows: Cells by row; None where there is nothing to say.
        note: How the numbers came about.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def is_number(self, column: int) -> bool:
        """Return whether a column holds numbers only, as far as they are known, so that it is set flush right."""
        cells = [row[column] for row in self.rows if row[column] not in (None, UNKNOWN)]
        return bool(cells) and not any(isinstance(cell, str) for cell in cells)

    def cells(self) -> list[list[str]]:
        """Return the cells as text, the fractions of a column with the same number of decimals."""
        decimals = [_decimals([row[i] for row in self.rows]) for i in range(len(self.columns))]
        return [[_aligned(cell, d) for cell, d in zip(row, decimals, strict=True)] for row in self.rows]

    def column(self, name: str) -> tuple[Cell, ...]:
        """Return the cells of the column ``name``."""
        index = self.columns.index(name)
        return tuple(row[index] for row in self.rows)

    def text(self) -> str:
        """Return the table as aligned plain text."""
        lines = [self.columns, *map(tuple, self.cells())]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        right = [self.is_number(i) for i in range(len(self.columns))]
        lines.insert(1, tuple("-" * width for width in widths))
        body = [
            "  ".join(
                c.rjust(w) if flush else c.ljust(w) for c, w, flush in zip(line, widths, right, strict=True)
            ).rstrip()
            for line in lines
        ]
        return "\n".join([self.title, "", *body, *(["", self.note] if self.note else [])]) + "\n"

    def markdown(self) -> str:
        """Return the table in Markdown."""
        rule = ["---:" if self.is_number(i) else "---" for i in range(len(self.columns))]
        lines = [self.columns, rule, *self.cells()]
        body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        return "\n".join([f"**{self.title}**", "", *body, *(["", self.note] if self.note else [])]) + "\n"
