"""Options that ``cutlayer serve`` and ``cutlayer join`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Approve", "AsJson", "Data", "Device", "Keys", "Out", "Report", "Threads"]

Approve = Annotated[
    list[str] | None,
    typer.Option(
        help="Approve the study of this digest. Its model code has to run before the digest is known; given twice, "
        "the other digest is the code's, and no other code is run.",
        metavar="DIGEST",
    ),
]
Keys = Annotated[
    Path | None,
    typer.Option(
        help="The party's keys; keys/PARTY beside the study or in this folder unless given.", metavar="DIR"
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(help="The party's own data; those that `cutlayer deal` put beside the study unless given.",
                 metavar="DIR"),
]  # fmt: skip
Out = Annotated[
    Path | None,
    typer.Option(help="Where this party's part is kept; runs/STUDY/PARTY unless given.", metavar="DIR"),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where this party computes: cpu, cuda, cuda:1; what \\[study] device says unless given.",
        metavar="DEVICE",
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Compute threads.")]
AsJson = Annotated[bool, typer.Option("--json", help="Show what happens as lines of JSON, for programs.")]
Report = Annotated[
    bool, typer.Option("--report/--no-report", help="Write report.html of this party's part at the end.")
]
