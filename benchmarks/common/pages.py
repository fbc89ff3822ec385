"""Tables of figures in the pages of docs/, between two marks that name them."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["put"]

DOCS = Path(__file__).resolve().parents[2] / "docs"


def put(page: str, name: str, text: str) -> None:
    """Put ``text`` between the marks ``<!-- name -->`` and ``<!-- end of name -->`` of a page.

    Raises:
        SystemExit: The page has no such marks.
    """
    path = DOCS / page
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        sys.exit(f"{path} has no lines {begin!r} and {end!r}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
