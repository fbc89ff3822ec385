"""``cutlayer compare``: a study beside federated averaging and large-batch SGD on the same data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import StudyError, nearest
from .commands import STUDY
from .ending import asked_to_end, exit_status
from .screen import console

if TYPE_CHECKING:
    from rich.console import Console

    from ..baselines import Comparison, Method
    from ..runtime.simulate import Progress

__all__ = ["compare"]

_OUT = Path("compared")
_MANY = 1_000_000
_OPTIONS = {
    "fedavg": ("local_epochs", "sample"),
    "fedprox": ("local_epochs", "sample", "mu"),
    "large-batch": ("steps",),
}
"""Options that are not all baselines', by baseline."""


def compare(
    study: Annotated[Path, STUDY],
    baselines: Annotated[
        str,
        typer.Option("--with", help="What to compare with: fedavg, fedprox, large-batch.", metavar="NAMES"),
    ] = "fedavg,large-batch",
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rounds of each; as many as the study has epochs unless given, or without end with --equal.",
        ),
    ] = None,
    local_epochs: Annotated[
        int | None,
        typer.Option(min=1, help="fedavg, fedprox: epochs of a client in a round; 1 unless given."),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(
            help="fedavg, fedprox: clients in a round, a number or a share (0.1); all unless given.",
            metavar="N|SHARE",
        ),
    ] = None,
    mu: Annotated[
        float | None, typer.Option(help="fedprox: the weight of its proximal term; 0.01 unless given.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=0, help="large-batch: steps from one measurement to the next; 0, the default: an epoch."
        ),
    ] = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            help="Learning rates of one, times so much: large-batch=4; may be repeated.", metavar="NAME=X"
        ),
    ] = None,
    equal: Annotated[
        str,
        typer.Option(
            help="Stop at the split study's cost to a client: of compute, or of traffic.", metavar="WHAT"
        ),
    ] = "",
    times: Annotated[float, typer.Option(help="With --equal: at so many times that cost.")] = 1.0,
    metric: Annotated[str, typer.Option(help="The score; accuracy, or what fits the task.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="The comparison's folder; compared/NAME unless given.", metavar="DIR")
    ] = None,
    reports: Annotated[
        bool, typer.Option("--reports/--no-reports", help="Write report.html of each run too.")
    ] = True,
    threads: Annotated[int | None, typer.Option(min=1, help="Compute threads.")] = None,
) -> None:
    """Train a study and, on the same rows, what split learning is compared with; write compare.html.

    Clients must hold whole rows: vanilla, U-shaped, multi-hop. All train the same network from the same weights, with
    the same batches and optimizer, and are metered alike. What was trained before is not trained again.

    \b
    cutlayer compare study.toml
    cutlayer compare study.toml --with fedavg,fedprox,large-batch --rounds 20 --sample 0.1
    cutlayer compare study.toml --equal compute --times 7 --sample 0.1 --steps 1
    """  # noqa: D301
    from ..baselines import compare as compared
    from ..baselines.drawing import write_comparison
    from ..study_file import load_study

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    screen = console()
    file = load_study(study)
    folder = out or _OUT / file.name.replace(" ", "-")
    built, holdings = file.build()
    _check_metric(metric)
    own = {
        "local_epochs": local_epochs,
        "sample": None if sample is None else _sample(sample),
        "mu": mu,
        "steps": steps,
    }
    methods = _methods(
        baselines,
        rounds or (_MANY if equal else built.epochs),
        {name: value for name, value in own.items() if value is not None},
        _rates(rate or []),
    )
    try:
        with asked_to_end(), _progress(screen) as told:
            found = compared(
                built, holdings, methods, folder, equal=equal, times=times, metric=metric, on_progress=told
            )
    except KeyboardInterrupt as ended:
        screen.print(
            f"\nStopped. What was trained is kept in {folder}; the same command goes on.", markup=False
        )
        raise typer.Exit(exit_status(ended)) from None
    if reports:
        _report(found)
    _finish(screen, found, write_comparison(found, folder))


def _check_metric(metric: str) -> None:
    """Refuse a score that there is not, before anything is trained."""
    from ..metering.metrics import KNOWN

    if metric and metric not in KNOWN:
        raise StudyError(f"--metric: there is no metric {metric!r}", todo=nearest(metric, KNOWN))


def _methods(words: str, rounds: int, own: Mapping[str, float], rates: dict[str, float]) -> list[Method]:
    """Return the baselines that were asked for, each with the options that are its own.

    Args:
        words: Their names.
        rounds: Of each.
        own: Options that were given and that not all have.
        rates: By what learning rates are multiplied, by name.
    """
    from ..baselines import method_of

    found: list[Method] = []
    idle = set(own)
    for word in [word.strip() for word in words.split(",") if word.strip()]:
        kind, rate = method_of(word), rates.pop(word, 1.0)
        fitting = {name: value for name, value in own.items() if name in _OPTIONS[word]}
        found.append(kind(rounds=rounds, rate=rate, **fitting))
        idle -= set(fitting)
    if rates:
        raise typer.BadParameter(f"{next(iter(rates))} is not compared with", param_hint="--rate")
    if not found:
        raise typer.BadParameter("name at least one baseline", param_hint="--with")
    for name in sorted(idle):
        of = " and ".join(word for word, options in _OPTIONS.items() if name in options)
        hint = f"--{name.replace('_', '-')}"
        raise typer.BadParameter(f"it is for {of}, which --with does not name", param_hint=hint)
    return found


def _sample(text: str) -> float:
    """Return a number of clients, or a share of them."""
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a number nor a share", param_hint="--sample") from None


def _rates(words: list[str]) -> dict[str, float]:
    """Return by baseline what its learning rates are multiplied by."""
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise typer.BadParameter(f"{word!r} is not like large-batch=4", param_hint="--rate") from None
    return found


@contextlib.contextmanager
def _progress(screen: Console) -> Iterator[Callable[[str, Progress], None]]:
    """Show where training stands: one moving line in a terminal, a line for each round in a pipe."""
    if not screen.is_terminal:
        yield _Lines(screen)
        return
    with screen.status("") as status:
        yield lambda name, now: status.update(_where(name, now))


class _Lines:
    """One line for each epoch or round."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._told = ("", -1)

    def __call__(self, name: str, now: Progress) -> None:
        if (name, now.epoch) != self._told:
            self._told = (name, now.epoch)
            self._screen.print(_where(name, now), markup=False)


def _where(name: str, now: Progress) -> str:
    of = f" of {now.epochs}" if now.epochs < _MANY else ""
    return f"{name}: epoch {now.epoch + 1}{of}, step {now.step + 1}, loss {now.loss:.4f}"


def _report(found: Comparison) -> None:
    """Write the reports that are not there yet."""
    from ..report.html import write_report

    for run in found.folders.values():
        if not (run / "report.html").is_file():
            write_report(run)


def _finish(screen: Console, found: Comparison, page: Path) -> None:
    """Print what came out and where it lies."""
    from ..report.console import readable

    screen.print(readable(found.table()))
    for line in found.sentences():
        screen.print(line, markup=False)
    screen.print(f"Comparison: {page}", markup=False, soft_wrap=True)
