"""``cutlayer simulate``: train with all parties in this process."""

from __future__ import annotations

import contextlib
import datetime
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .commands import STUDY
from .ending import asked_to_end, exit_status
from .screen import console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from ..run import Run
    from ..runtime.simulate import Progress

__all__ = ["simulate"]

_RUNS = Path("runs")


def simulate(
    study: Annotated[Path, STUDY],
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; runs/NAME-TIME unless given.", metavar="DIR")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, or with the study's last run.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Compute threads; the same number gives the same bits.")
    ] = None,
) -> None:
    """Train a study with all parties in this process.

    Frames are really made and counted. The run's folder gets the log, snapshots, plots and report.html.

    \b
    cutlayer simulate study.toml
    cutlayer simulate study.toml --out runs/first --threads 4
    cutlayer simulate study.toml --out runs/first --resume
    """  # noqa: D301
    from ..study_file import load_study

    screen = console()
    file = load_study(study)
    folder = _resumable(out or _last_run(file.name)) if resume else _own(out or _new_run(file.name))
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    built, holdings = file.build()
    screen.print(
        f"{built.name}: {built.graph.name}, {len(built.graph.parties)} parties -> {folder}", markup=False
    )
    _note_source(folder, study, built.digest)
    try:
        with asked_to_end(), _progress(screen) as show:
            run = built.simulate(holdings, out=folder, resume=resume, on_progress=show)
    except KeyboardInterrupt as ended:
        screen.print(_how_to_go_on(study, folder, threads), markup=False, soft_wrap=True)
        raise typer.Exit(exit_status(ended)) from None
    _finish(screen, run)


def _note_source(folder: Path, file: Path, digest: str) -> None:
    """Note which study file the run is of, for an audit of it; the note of another study's run is left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.json"
    if (folder / "log.jsonl").is_file() and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["digest"] != digest:
            return  # this run is about to be refused
    note = json.dumps({"file": str(file.resolve()), "digest": digest})
    path.write_text(note + "\n", encoding="utf-8")


def _finish(screen: Console, run: Run) -> None:
    """Print what came out and where it lies."""
    screen.print(run.summary())
    report = run.report()
    screen.print(f"Report: {report}", markup=False, soft_wrap=True)
    screen.print(f"Log:    {report.parent / 'log.jsonl'}", markup=False, soft_wrap=True)


def _new_run(name: str) -> Path:
    return _RUNS / f"{_in_a_path(name)}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def _last_run(name: str) -> Path:
    """Return the newest of the study's runs in the folder ``runs``."""
    from ..errors import StudyError

    runs = sorted(_RUNS.glob(f"{_in_a_path(name)}-*/log.jsonl"))
    if not runs:
        raise StudyError(
            f"there is no run of {name!r} in {_RUNS}/ to go on with", todo="name its folder with --out"
        )
    return runs[-1].parent


def _resumable(folder: Path) -> Path:
    from ..errors import StudyError

    if not (folder / "log.jsonl").is_file():
        raise StudyError(
            f"there is no run in {folder} to go on with", todo="leave --resume out to begin one there"
        )
    return folder


def _own(folder: Path) -> Path:
    """Return the folder of a new run, unless there are files in it that a run could write over."""
    from ..errors import StudyError

    if folder.is_dir() and any(folder.iterdir()) and not (folder / "log.jsonl").is_file():
        raise StudyError(
            f"{folder} holds something else than a run",
            todo="choose a new folder, or an empty one, with --out",
        )
    return folder


def _in_a_path(name: str) -> str:
    return name.replace(" ", "-")


def _how_to_go_on(file: Path, folder: Path, threads: int | None) -> str:
    """Say what an interrupted run left behind."""
    command = ["cutlayer", "simulate", str(file), "--out", str(folder), "--resume"]
    command += [] if threads is None else ["--threads", str(threads)]
    return f"\nStopped. Everything up to the last whole epoch is kept. Go on with:\n  {shlex.join(command)}"


@contextlib.contextmanager
def _progress(screen: Console) -> Iterator[Callable[[Progress], None]]:
    """Show where the run stands: a bar in a terminal, a line for each epoch in a pipe."""
    if not screen.is_terminal:
        yield _Lines(screen)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"),
        TextColumn("loss {task.fields[loss]}"), TimeRemainingColumn(), TextColumn("left"),
    )  # fmt: skip
    with Bars(*columns, console=screen, transient=True) as bars:
        yield _Bar(bars)


class _Lines:
    """One line for each epoch."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._epoch = -1

    def __call__(self, now: Progress) -> None:
        if now.epoch != self._epoch:
            self._epoch = now.epoch
            where = f"epoch {now.epoch + 1} of {now.epochs}, step {now.step + 1} of {now.steps}"
            self._screen.print(f"{where}, loss {now.loss:.4f}")


class _Bar:
    """A progress bar that begins where the run begins, so that the time left is right after a resume."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def __call__(self, now: Progress) -> None:
        epoch, loss = f"{now.epoch + 1}/{now.epochs}", f"{now.loss:.4f}"
        if self._task is None:
            self._task = self._bars.add_task("", total=now.steps, completed=now.step, epoch=epoch, loss=loss)
        self._bars.update(self._task, completed=now.step + 1, epoch=epoch, loss=loss)
