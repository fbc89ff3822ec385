"""``cutlayer plan``: what a split costs, before anything is trained."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CutlayerError, StudyError, nearest
from ..metering.table import human_seconds
from .screen import console

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from torch import Tensor, nn

    from ..data import Holdings
    from ..metering.table import Table
    from ..planner import Plan

__all__ = ["plan"]

_LIMIT = "A limit; ways beyond it are marked x and not advised."
_SPARED = (
    "client FLOP forward", "client weights", "up a row", "down a row", "other FLOP", "all traffic", "client memory",
)  # fmt: skip
"""Columns that a narrow terminal does without, the first one first."""
_WIDE = 1000
_KEPT = {
    "u_shaped": "Only U-shaped ways were looked at, as the study is: labels stay. --topology names others.",
    "multi_hop": "Only ways with several hops were looked at, as the study has them. --topology names others.",
}
"""What is said of studies of which a plan keeps the topology."""


def plan(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A study.toml with one model, file.py:function, or a network such as vgg16.",
            metavar="STUDY.TOML|MODEL",
        ),
    ] = None,
    shape: Annotated[
        str | None, typer.Option("--input", help="Shape of one sample.", metavar="3,32,32")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Length of one sample of token ids, instead.", metavar="64")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="An argument of the function.", metavar="NAME=VALUE")
    ] = None,
    clients: Annotated[int | None, typer.Option(min=1, help="Clients; 10 unless given.")] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Training rows of all clients; 50,000 unless given.")
    ] = None,
    test_rows: Annotated[int | None, typer.Option(min=0, help="Rows measured after each epoch.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Rows in a batch; 64 unless given.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs; 1 unless given.")] = None,
    local_epochs: Annotated[
        int, typer.Option(min=1, help="Epochs of federated averaging between two averages.")
    ] = 1,
    codec: Annotated[str | None, typer.Option(help="How what crosses is written.", metavar="int8")] = None,
    link: Annotated[float, typer.Option(help="Mbit/s that a client receives.", metavar="MBIT")] = 100.0,
    up: Annotated[
        float | None, typer.Option(help="Mbit/s that it sends; as many unless given.", metavar="MBIT")
    ] = None,
    latency: Annotated[float, typer.Option(help="Milliseconds one way.", metavar="MS")] = 10.0,
    server_link: Annotated[float, typer.Option(help="Mbit/s of the server.", metavar="MBIT")] = 1000.0,
    client_flops: Annotated[
        float | None,
        typer.Option(
            help="FLOP a second of a client; this machine's, measured, unless given.", metavar="5e9"
        ),
    ] = None,
    server_flops: Annotated[
        float | None,
        typer.Option(
            help="FLOP a second of the server; 50 times this machine's unless given.", metavar="1e12"
        ),
    ] = None,
    spread: Annotated[
        float,
        typer.Option(
            min=0.0, help="How much clients differ in speed; 0.5: one in six has 0.6 of the median."
        ),
    ] = 0.0,
    topologies: Annotated[
        list[str] | None,
        typer.Option(
            "--topology",
            help="Only vanilla, u_shaped or multi_hop; may be repeated. Unless given: all, or only its own if a study "
            "has labels that stay, or several hops.",
            metavar="NAME",
        ),
    ] = None,
    schedules: Annotated[
        list[str] | None,
        typer.Option(
            "--schedule",
            help="round_robin, splitfed1, 2, 3, parallel or local_loss; the first at every cut, all at the best, and "
            "what is best there at every cut again; may be repeated.",
            metavar="NAME",
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every topology and schedule at every cut; takes a while.")
    ] = False,
    goal: Annotated[
        str, typer.Option(help="What is wanted least: time, bytes, flops, memory, leakage.")
    ] = "time",
    max_client_flops: Annotated[float | None, typer.Option(help=_LIMIT, metavar="1e12")] = None,
    max_client_memory: Annotated[float | None, typer.Option(help=_LIMIT, metavar="BYTES")] = None,
    max_client_bytes: Annotated[float | None, typer.Option(help=_LIMIT, metavar="BYTES")] = None,
    max_seconds: Annotated[float | None, typer.Option(help=_LIMIT, metavar="SECONDS")] = None,
    max_leakage: Annotated[
        float | None,
        typer.Option(help=f"{_LIMIT} It is measured where a study's data are at hand.", metavar="0.8"),
    ] = None,
    rehearse: Annotated[
        bool,
        typer.Option(
            "--rehearse",
            help="Train the study for a moment on noise, and say how long cutlayer simulate takes on this machine.",
        ),
    ] = False,
    paper: Annotated[
        str | None,
        typer.Option(help="Work out a paper's tables instead: health-tables or singh.", metavar="NAME"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the trade-off into this folder, as SVG and PNG.", metavar="DIR")
    ] = None,
) -> None:
    """Work out what a split costs, cut by cut, before anything is trained: FLOPs, bytes, memory, time, leakage.

    FLOPs and bytes are those that the meters of a run will count. Time is by the speeds and links given. Beside them
    stand federated averaging and large-batch SGD on the same data, and the best cut within limits is advised.

    \b
    cutlayer plan vgg16 --clients 100 --rows 50000 --epochs 5
    cutlayer plan resnet18 --link 20 --up 5 --latency 40 --client-flops 5e9 --max-client-bytes 1e9
    cutlayer plan model.py:network --input 3,224,224 --topology u_shaped --codec int8
    cutlayer plan study.toml --max-leakage 0.5 --rehearse
    cutlayer plan lenet --plot plots --goal bytes
    cutlayer plan --paper health-tables
    """  # noqa: D301
    if paper is not None:
        _show_paper(paper, plot, as_json)
        return
    if model is None:
        raise StudyError(
            "there is nothing to plan", todo="name a study.toml, file.py:function or a network like vgg16"
        )
    from ..planner import SCHEDULES, Limits, Line
    from ..planner import plan as plan_

    for speed, hint in ((client_flops, "--client-flops"), (server_flops, "--server-flops")):
        if speed is not None and not 0 < speed < math.inf:
            raise typer.BadParameter("a speed is a number above 0, in FLOP a second", param_hint=hint)
    if rehearse and not model.endswith(".toml"):
        raise StudyError(
            "only a study can be rehearsed", got=model, todo="name a study.toml, or leave --rehearse out"
        )
    subject = (
        _from_study(model, shape, tokens)
        if model.endswith(".toml")
        else _made(model, shape, tokens, settings)
    )
    with console(stderr=True).status("Working out cuts, topologies and schedules …"):
        made = plan_(
            subject.model,
            subject.example,
            labels=subject.labels,
            share_labels=subject.share_labels,
            leak=subject.real,
            optimizer=subject.optimizer,
            loss=subject.loss,
            clients=clients or subject.clients,
            rows=rows or subject.rows,
            test_rows=subject.test_rows if test_rows is None else test_rows,
            batch_size=batch or subject.batch_size,
            epochs=epochs or subject.epochs,
            local_epochs=local_epochs,
            codecs=codec,
            client_flops=client_flops,
            server_flops=server_flops,
            line=Line(mbit=link, up_mbit=up, latency_ms=latency),
            server_line=Line(mbit=server_link, latency_ms=0.0),
            spread=spread,
            topologies=topologies or subject.topologies,
            schedules=schedules or tuple(SCHEDULES),
            every=every,
            goal=goal,
            limits=Limits(
                client_flops=max_client_flops,
                client_memory_bytes=max_client_memory,
                client_bytes=max_client_bytes,
                seconds=max_seconds,
                leakage=max_leakage,
            ),
        )
    seconds = _rehearsed(model) if rehearse else None
    _show(made, plot, as_json, "" if topologies else subject.kept, seconds)


def _rehearsed(path: str) -> float:
    """Return how many seconds a simulation of a study file takes on this machine, without reading its data."""
    from ..planner import Forecast
    from ..planner import rehearse as rehearse_
    from ..runtime.cohorts import Cohorts
    from ..study_file import load_study

    study, holdings = load_study(path).build()
    rows = Cohorts(study.graph, holdings).rows
    measured = max((turn.get(split, 0) for turn in rows for split in study.evaluate), default=0)
    return rehearse_(study, rows=measured or None).simulation(Forecast(study, rows))


def _show(made: Plan, plot: Path | None, as_json: bool, kept: str, seconds: float | None) -> None:
    files = made.plot(plot) if plot is not None else []
    if as_json:
        typer.echo(
            json.dumps(made.record() | ({} if seconds is None else {"rehearsed_seconds": seconds}), indent=2)
        )
        return
    screen = console()
    for table in (made.table(), made.ways()):
        _print(table)
    screen.print(made.text, markup=False)
    if kept:
        screen.print(kept)
    if seconds is not None:
        screen.print(
            f"As the study is now, cutlayer simulate trains for about {human_seconds(seconds)} on this machine, as "
            "rehearsed; reading the data comes on top, and it may stop early."
        )
    for file in files:
        screen.print(f"Plot: {file}", markup=False, soft_wrap=True)


def _print(table: Table) -> None:
    """Print a table: in colour, with as many of its columns as there is room for."""
    from rich.text import Text

    screen = console()
    spared = 0
    wide = screen.options.update(max_width=_WIDE)
    while (
        spared < len(_SPARED)
        and screen.measure(_drawn(table, _SPARED[:spared]), options=wide).maximum > screen.width
    ):
        spared += 1
    screen.print(_drawn(table, _SPARED[:spared]))
    if spared:
        screen.print(
            Text(f"In a wider terminal, and with --json: {', '.join(_SPARED[:spared])}.", style="dim")
        )
    if table.note:
        screen.print(Text(table.note, style="dim"))


def _drawn(table: Table, without: Sequence[str]) -> RichTable:
    """Return a table to print, without some columns; numbers stay in one piece."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=Text(table.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    kept = [index for index, column in enumerate(table.columns) if column not in without]
    for index in kept:
        number = index > 2
        heading = table.columns[index].replace(" ", "\n") if number else table.columns[index]
        shown.add_column(
            heading, justify="right" if number else "left", no_wrap=number or index == 0, overflow="fold"
        )
    for cells in table.cells():
        style = {"*": "bold green", "x": "dim"}.get(cells[0], "")
        shown.add_row(*(Text(cells[index]) for index in kept), style=style)
    return shown


def _show_paper(word: str, plot: Path | None, as_json: bool) -> None:
    from ..planner.papers import PAPERS

    if word not in PAPERS:
        raise StudyError(f"no tables are known of a paper {word!r}", todo=nearest(word, list(PAPERS)))
    found = PAPERS[word]()
    files: Sequence[Path] = ()
    if plot is not None:
        from ..planner.drawing import save_break_even

        if word != "singh":
            raise StudyError(f"there is no plot of {word}, only tables", todo="leave --plot out")

        files = save_break_even(plot)
    if as_json:
        typer.echo(json.dumps({"paper": found.title, "figures": dict(found.figures)}, indent=2))
        return
    screen = console()
    screen.print(found.title, style="bold", markup=False)
    screen.print("\n".join(found.lines), markup=False, soft_wrap=True)
    for table in found.tables:
        screen.print()
        screen.print(table.text(), markup=False, soft_wrap=True)
    for file in files:
        screen.print(f"Plot: {file}", markup=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What is planned, as far as the command line does not say it."""

    model: nn.Module
    example: tuple[Tensor, ...]
    real: bool = False
    labels: Tensor | None = None
    share_labels: bool = True
    loss: Any = None
    optimizer: Any = None
    clients: int = 10
    rows: int = 50_000
    test_rows: int = 0
    batch_size: int = 64
    epochs: int = 1
    topologies: tuple[str, ...] | None = None
    kept: str = ""


def _made(word: str, shape: str | None, tokens: int | None, settings: list[str] | None) -> _Subject:
    from .cuts import _made as made

    network, example = made(word, shape, tokens, settings or [])
    return _Subject(model=network, example=example)


def _from_study(path: str, shape: str | None, tokens: int | None) -> _Subject:
    """Return the model of a study file, with its settings, and rows of its data where they are at hand."""
    from ..runtime.cohorts import Cohorts
    from ..study_file import load_study

    if shape is not None or tokens is not None:
        raise StudyError("a study file's data say what the input is", todo="leave --input and --tokens out")
    file = load_study(path)
    network, few = file.network()
    study, holdings = file.build()
    dealt = Cohorts(study.graph, holdings).rows
    label, own = next(iter(study.graph.losses.values())), study.graph.name
    example, labels, shared = _rows_of(holdings, few)
    return _Subject(
        model=network,
        example=example,
        real=len(example[0]) > len(few[0]),
        labels=labels,
        share_labels=shared,
        loss=label.function,
        optimizer=study.optimizers[study.graph.order[0]],
        clients=len(study.graph.turns),
        rows=sum(turn.get("train", 0) for turn in dealt),
        test_rows=sum(turn.get(split, 0) for turn in dealt for split in study.evaluate),
        batch_size=study.batch_size,
        epochs=study.epochs,
        topologies=(own,) if own in _KEPT else None,
        kept=_KEPT.get(own, ""),
    )


def _rows_of(holdings: Holdings, few: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor | None, bool]:
    """Return rows of inputs and labels, and whether clients hold the labels; a few of noise where data are away."""
    roles = [role for role in holdings.roles if "y" in holdings.fields(role)]
    shared = "client" in roles or not roles
    try:
        fields = holdings.example("client", 64)
        labels = holdings.example(roles[0], 2)["y"] if roles else None
    except CutlayerError:
        return few, None, shared
    return tuple(rows for name, rows in fields.items() if name != "y"), labels, shared
