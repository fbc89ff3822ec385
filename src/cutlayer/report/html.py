"""A run's report: one HTML file that needs nothing else, runs nothing and loads nothing."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LogError
from ..metering.events import Began, Ended, Event, Measured, Noted, Placed, Traffic
from ..metering.learned import averaged_metrics, merged_metrics
from ..metering.reading import finished, last, viewer
from ..metering.run_log import read_log
from ..metering.table import Table, human_bytes, human_flops, human_seconds, shown
from ..metering.tables import compute, parties, tables, traffic
from .plots import save_plots
from .telling import told_of_labels

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["write_report"]

REPORT_NAME = "report.html"
LONG_TABLE = 16

_CAPTIONS = {
    "comparison": "The axis does not start at zero.",
    "protection": "Measured while training went on, means over each epoch.",
    "learning": "Training loss and metrics by epoch.",
    "traffic": "Whole frames, counted where they are made.",
    "compute": "Counted by PyTorch's own counter.",
    "time": "Added up over all epochs.",
}


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` and ``plots/`` into a run's folder, from its log alone.

    The log may be of a run that goes on or was cut off, or of one party's own part in it; the report says so.

    Returns:
        The report's path.

    Raises:
        LogError: There is no log, no run ever began in it, or the folder cannot be written.
    """
    events = read_log(run_folder)
    began = last(events, Began)
    if began is None:
        raise LogError(
            f"the log in {run_folder} has no beginning", todo="give the folder of a run that was started"
        )
    plots = save_plots(events, run_folder / "plots")
    page = _page(events, began, {name: path.with_suffix(".svg").read_bytes() for name, path in plots.items()})
    path = run_folder / REPORT_NAME
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise LogError(
            f"cannot write {path}: {error.strerror}", todo="choose a folder you may write to"
        ) from error
    return path


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A figure that a reader should see first."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Disclosure:
    """What a party said would leave, and what did."""

    party: str
    others: str
    statement: str
    sent: str
    measured: Table


def _page(events: Sequence[Event], began: Began, plots: dict[str, bytes]) -> str:
    environment = _environment()
    style = environment.get_template("report.css").render()
    found = tables(events)
    return environment.get_template("report.html.j2").render(
        began=began,
        ended=last(events, Ended) if finished(events) else None,
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        drawing=_data_uri(began.svg.encode()),
        facts=_facts(events, began),
        notes=[e for e in events if isinstance(e, Noted)],
        labels=_labels(events),
        told=told_of_labels(events),
        disclosures=_disclosures(events, began),
        roles=_roles(began),
        plots={name: _data_uri(plots[name]) for name in plots},
        captions=_CAPTIONS,
        tables=found,
        long_table=LONG_TABLE,
    )


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cutlayer.report", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": shown,
        "figure": lambda value: shown(float(value)),
        "duration": human_seconds,
    }
    return environment


def _data_uri(svg: bytes) -> str:
    """Return an SVG as an address for an image, in which no script runs and nothing is loaded."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _facts(events: Sequence[Event], began: Began) -> list[Fact]:
    roles = Counter(began.parties.values())
    facts = [Fact(label="Parties", value=str(len(began.parties)), detail=", ".join(_roles(began)))]
    for split in ("test", "valid"):
        names = dict.fromkeys(e.loss for e in events if isinstance(e, Measured) and e.split == split)
        if names:
            facts += [_result(events, split, name, several=len(names) > 1) for name in list(names)[:3]]
            break
    sent = parties(events).column("sent (bytes)")
    facts.append(
        Fact(
            label=f"Sent by {began.party}" if began.party else "Traffic",
            value=human_bytes(_total(sent)),
            detail="its disclosure log lists each frame" if began.party else "all frames of all parties",
        )
    )
    flops = _total(compute(events).column("all (FLOP)"))
    where = f"at {began.party}" if began.party else "all parties"
    facts.append(Fact(label="Compute", value=human_flops(flops), detail=f"{where}, training and evaluation"))
    sizes = {e.segment: e.parameters for e in events if isinstance(e, Placed)}
    if sizes:
        total = f"{sum(sizes.values()):,}"
        facts.append(
            Fact(label="Network", value=total, detail=f"parameters, at {_several(len(roles), 'role')}")
        )
    ended = last(events, Ended)
    if ended is not None and finished(events):
        facts.append(
            Fact(label="Time", value=human_seconds(ended.seconds), detail=_several(ended.epochs, "epoch"))
        )
    return facts


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _total(cells: Sequence[object]) -> int:
    return sum(cell for cell in cells if isinstance(cell, int))


def _result(events: Sequence[Event], split: str, loss: str, *, several: bool) -> Fact:
    """Return the metric that people ask for first, with the others beside it."""
    figures, means = merged_metrics(events, split, loss), averaged_metrics(events, split, loss)
    known = [metric for metric in ("accuracy", "auc", "r2", "mae") if metric in figures]
    first = next(iter([*known, *figures]), "loss")
    others = [f"{metric} {shown(value)}" for metric, value in figures.items() if metric != first]
    if means:
        others.append(f"row-weighted mean: {', '.join(means)}")
    if whose := viewer(events):
        others.append(f"measured at {whose}")
    words = [first.capitalize() if len(first) > 3 else first.upper(), split, *([loss] if several else [])]
    return Fact(label=", ".join(words), value=shown(figures.get(first)), detail=", ".join(others))


def _roles(began: Began) -> list[str]:
    sizes = Counter(began.parties.values())
    return [f"{role} ({size})" if size > 1 else role for role, size in sizes.items()]


def _labels(events: Sequence[Event]) -> list[Fact]:
    """Return which cuts labels went over, and how much."""
    sums: Counter[str] = Counter()
    for event in events:
        if isinstance(event, Traffic) and event.content == "label":
            sums[event.cut] += event.tensor_bytes
    return [Fact(label=cut, value=human_bytes(size)) for cut, size in sums.items()]


def _without(table: Table, column: str) -> Table:
    index = table.columns.index(column)
    cut = [(*row[:index], *row[index + 1 :]) for row in (table.columns, *table.rows)]
    return replace(table, columns=tuple(map(str, cut[0])), rows=tuple(cut[1:]))


def _disclosures(events: Sequence[Event], began: Began) -> list[Disclosure]:
    roles = Counter(began.parties.values())
    pages = []
    for party, statement in began.disclosures.items():
        role = began.parties.get(party, "")
        told = [p for p in began.disclosures if began.parties.get(p) == role]
        others = roles[role] - len(told)
        own = [began, *(e for e in events if isinstance(e, Traffic) and e.sender == party)]
        measured = _without(traffic(own), "from")
        pages.append(
            Disclosure(
                party=party,
                others=_same(others, role),
                statement=statement,
                sent=human_bytes(_total(measured.column("frame bytes"))),
                measured=measured,
            )
        )
    return pages


def _same(others: int, role: str) -> str:
    """Say how many others have the same statement."""
    if others == 0:
        return ""
    who = "1 other party" if others == 1 else f"{others} other parties"
    return f"{who} of role {role} {'has' if others == 1 else 'have'} the same statement"
