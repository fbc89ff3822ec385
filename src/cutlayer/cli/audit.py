"""``cutlayer audit``: what attacks get of a study, with and without defences."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import StudyError
from .ending import asked_to_end, exit_status
from .screen import console

if TYPE_CHECKING:
    from rich.console import Console

    from ..audit.auditing import Setting, Told
    from ..audit.base import Attack
    from ..audit.findings import Findings
    from ..data import Holdings
    from ..data.pool import Pool
    from ..study import Study
    from ..study_file import StudyFile

__all__ = ["audit"]

_OUT = Path("audits")
_NONE, _OWN = "without defences", "as the study says"
_FRONTIER = ("nopeek:0.1", "nopeek:0.5", "laplace:1,0.1", "laplace:1,0.5")
_PLACES = (0.02, 0.3, 0.7)


def audit(
    what: Annotated[
        Path, typer.Argument(help="A study file, or the folder of a run of one.", metavar="STUDY.TOML|RUN")
    ],
    defences: Annotated[
        list[str] | None,
        typer.Option(
            "--try", help="Defences to try besides, several joined by '+'; may be repeated.", metavar="WORDS"
        ),
    ] = None,
    cuts: Annotated[
        list[str] | None, typer.Option("--cut", help="Cut here instead; may be repeated.", metavar="CUT")
    ] = None,
    frontier: Annotated[
        bool,
        typer.Option(
            "--frontier",
            help="Try several cuts (of a network with one) and strengths of defences, to choose from.",
        ),
    ] = False,
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attack", help="Only these attacks; may be repeated.", metavar="NAME"),
    ] = None,
    attributes: Annotated[
        list[str] | None,
        typer.Option(
            "--attribute",
            help="Find out this column or field of the rows, too; may be repeated.",
            metavar="FIELD",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to train with.")] = 1,
    rows: Annotated[int, typer.Option(min=8, help="Rows that each attack is after.")] = 64,
    hijacking: Annotated[
        bool, typer.Option(help="Let a dishonest server steer the clients, in a training of its own.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="The audit's folder; audits/NAME unless given.", metavar="DIR")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Compute threads.")] = None,
) -> None:
    """Attack a study with what its parties really see, and write audit.html: pictures, scores, costs.

    The study is trained in this process, once for each setting and seed; everybody's data must be at hand. A training
    gives the same bits each time, so an audit of a run sees what its parties saw. Broken off, it goes on there.

    \b
    cutlayer audit study.toml
    cutlayer audit study.toml --try nopeek:0.5 --try gaussian:1,0.5 --seeds 3
    cutlayer audit study.toml --attribute age --attribute sex
    cutlayer audit study.toml --frontier --cut relu1 --cut relu2
    cutlayer audit runs/digits-20250101-120000
    """  # noqa: D301
    from ..audit.auditing import Audit, Plan, labels_of
    from ..audit.columns import attribute_of
    from ..audit.findings import Findings
    from ..audit.hijacking import Hijacking
    from ..audit.page import write_page
    from ..study_file import load_study

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    screen = console()
    file = load_study(_study_of(what))
    settings = _settings(file, list(cuts or ()), list(defences or ()), frontier)
    first = file.tables.study.seed
    plan = Plan(
        settings=settings,
        attacks=_attacks(attacks or [], attributes or []),
        seeds=range(first, first + seeds),
        rows=rows,
        hijacking=Hijacking() if hijacking and not attacks else None,
        pool=_pool(file),
    )
    study, holdings = settings[0].build(first)
    for name in attributes or ():
        attribute_of(holdings, name, labels_of(study), plan.pool)  # one that is none is told before training
    _same_as_the_run(what, file)
    folder = out or _OUT / file.name.replace(" ", "-")
    findings = Findings(folder, {"study": study.digest, "rows": str(rows)})
    known = {attack.word: (attack.adversary, attack.needs, attack.source) for attack in plan.attacks}
    try:
        with asked_to_end(), _progress(screen) as told:
            Audit(plan, findings, told).run()
    except KeyboardInterrupt as ended:
        screen.print(
            f"\nStopped. What was found is kept in {folder}; the same command goes on.", markup=False
        )
        raise typer.Exit(exit_status(ended)) from None
    finally:
        page = write_page(findings, file.name, known)
    _finish(screen, findings, page)


def _attacks(words: list[str], attributes: list[str]) -> list[Attack]:
    """Return the attacks of these words, all if there are none; attribute inference once for each attribute."""
    from ..audit.attributes import AttributeInference
    from ..audit.known import attacks_of

    chosen = attacks_of(words)
    if not attributes:
        return chosen
    others = [attack for attack in chosen if not isinstance(attack, AttributeInference)]
    return [*others, *(AttributeInference(of=name) for name in dict.fromkeys(attributes))]


def _pool(file: StudyFile) -> Pool | None:
    """Return the rows of a study's data before they are dealt, for their columns; None where data are dealt already."""
    from ..study_file.dealing import is_at_hand, read_source

    if not is_at_hand(file):
        return None
    return read_source(file, file.tables.data, file.path.parent).splits["train"]


def _study_of(what: Path) -> Path:
    """Return the study file, also of a run's folder."""
    if not what.is_dir():
        return what
    note = what / "study.json"
    if not note.is_file():
        raise StudyError(
            f"{what} does not say which study file it is a run of", todo="give the study file itself"
        )
    return Path(json.loads(note.read_text(encoding="utf-8"))["file"])


def _same_as_the_run(what: Path, file: StudyFile) -> None:
    """Refuse to audit a run by a study file that was changed since."""
    if not what.is_dir():
        return
    digest = json.loads((what / "study.json").read_text(encoding="utf-8"))["digest"]
    study, _ = file.build()
    if study.digest != digest:
        raise StudyError(
            f"{file.path} was changed since the run in {what}",
            got=f"digest {study.digest[:16]}",
            expected=digest[:16],
            todo="audit the study file itself, or undo the change",
        )


def _settings(file: StudyFile, cuts: list[str], tried: list[str], frontier: bool) -> list[Setting]:
    """Return every combination of a cut and of defences."""
    from ..audit.auditing import Setting
    from ..privacy import defences_of

    moves = frontier and hasattr(file.tables.graph, "cut")  # several cuts at once stay where they are
    places: Sequence[str | float | None] = cuts or (_PLACES if moves else (None,))
    words: list[tuple[str, list[str] | None]] = [(_NONE, [])]
    if file.tables.defences:
        words.append((_OWN, None))
    words += [(word, word.split("+")) for word in (tried or (list(_FRONTIER) if frontier else []))]
    for _, defences in words:
        defences_of(defences or ())  # a word that is none is told before anything is trained
    found = []
    for place in places:
        at = (
            ""
            if place is None
            else f"cut at {place}"
            if isinstance(place, str)
            else f"cut at {place:.0%} of the work"
        )
        for name, defences in words:
            build = functools.partial(_built, file, place, defences)
            found.append(Setting(name=f"{at}, {name}" if at else name, build=build, cut=at))
    return found


def _built(
    file: StudyFile, place: str | float | None, defences: list[str] | None, seed: int
) -> tuple[Study, Holdings]:
    """Return the study of a file with another seed, another cut and other defences."""
    tables = file.tables
    change: dict[str, object] = {"study": tables.study.model_copy(update={"seed": seed})}
    if defences is not None:
        change["defences"] = defences or None
    if place is not None:
        if not hasattr(tables.graph, "cut"):
            raise StudyError(
                "only a network with one cut can be cut elsewhere", got=getattr(tables.graph, "topology", ""),
                expected="vanilla", todo="leave --cut and --frontier out, or change the study file",
            )  # fmt: skip
        change["graph"] = tables.graph.model_copy(update={"cut": place})
    study, holdings = dataclasses.replace(file, tables=tables.model_copy(update=change)).build()
    return study, holdings


@contextlib.contextmanager
def _progress(screen: Console) -> Iterator[Told]:
    """Show how far the audit is: a bar in a terminal, a line for each thing that is done in a pipe."""
    if not screen.is_terminal:
        yield lambda done, all_, what: screen.print(f"{done} of {all_}: {_in_short(what)}", markup=False)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=screen, transient=True) as bars:
        task = bars.add_task("", total=None)

        def told(done: int, all_: int, what: str) -> None:
            bars.update(task, completed=done, total=all_, description=_in_short(what))

        yield told


def _in_short(what: str) -> str:
    """Return what is done without an attack's settings: "seed 0: inversion:steps=500 by server" loses the number."""
    where, colon, doing = what.rpartition(": ")
    attack, by, party = doing.partition(" by ")
    return f"{where}{colon}{attack.partition(':')[0]}{by}{party}"


def _finish(screen: Console, findings: Findings, page: Path) -> None:
    """Print the summary and where the page lies."""
    from rich.table import Table

    from ..audit.verdicts import AFTER, verdicts

    table = Table("setting", "by", box=None)
    table.add_column("attack", no_wrap=True)
    for heading in ("to", "measure", "score", "blind guess", "it got"):
        table.add_column(heading)
    for one in sorted(verdicts(findings.found), key=lambda verdict: -verdict.share):
        table.add_row(
            one.setting, one.party, one.name, AFTER[one.after], one.measure, f"{one.score:.3f}",
            f"{one.blind:.3f}", one.word,
        )  # fmt: skip
    if table.row_count:
        screen.print(table)
    skipped = dict.fromkeys(one.attack.partition(":")[0] for one in findings.found if not one.scores)
    if skipped:
        screen.print(
            f"Without a score, here or there: {', '.join(skipped)}. The page says what was not tried, and why.",
            markup=False,
        )
    screen.print(f"Audit: {page}", markup=False, soft_wrap=True)
