"""A split study and the baselines on its data, one after the other, each in a folder of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data import Holdings
from ..errors import StudyError, nearest
from ..metering.events import Began, Event, Measured
from ..metering.reading import all_of, finished, last
from ..metering.run_log import LOG_NAME, read_log
from ..metering.table import Table, human_bytes, human_flops
from ..runtime.cohorts import Cohorts
from ..runtime.simulate import Progress
from ..study import Study
from .account import Budget, spent
from .clients import client_role
from .curves import Curve, Point, curve_of, training_share
from .methods import Method
from .training import train

__all__ = ["EQUAL", "SPLIT", "Comparison", "compare"]

SPLIT = "split learning"
EQUAL = ("compute", "traffic")
_FIRST = ("accuracy", "auc", "r2", "f1", "rmse", "mae", "loss")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Curves of a split study and of baselines on the same data.

    Attributes:
        name: The study's name.
        clients: How many clients there are.
        metric: The score, of which split and loss.
        curves: The study's own, then those of the baselines.
        settings: How each trained, in words, by the curve's name.
        folders: Each one's run, by the curve's name.
    """

    name: str
    clients: int
    metric: str
    curves: tuple[Curve, ...]
    settings: dict[str, str]
    folders: dict[str, Path]

    @property
    def split(self) -> Curve:
        """The study's own curve."""
        return self.curves[0]

    def table(self) -> Table:
        """Return a row for each method: what it cost a client, how well it did, also at the split study's cost."""
        end = self.split.points[-1] if self.split.points else Point(0, math.nan, math.nan, math.nan, math.nan)
        rows = [
            (
                curve.name,
                len(curve.points),
                curve.points[-1].flops,
                curve.points[-1].bytes,
                curve.points[-1].seconds,
                curve.best,
                curve.points[-1].score,
                _score(curve.at("flops", end.flops)),
                _score(curve.at("bytes", end.bytes)),
            )
            for curve in self.curves
            if curve.points
        ]
        return Table(
            title=f"{self.name}: {self.metric} against what it costs a client, a mean over {self.clients} clients",
            columns=(
                "method", "measured", "compute (FLOP)", "traffic (bytes)", "time (s)", "best", "last",
                "at split's compute", "at split's traffic",
            ),
            rows=tuple(rows),
            note="Compute: forwards and backwards. Traffic: whole frames, sent and received, evaluation apart. "
            "Time: of training, all parties in one process. Blank: it had spent more before it was first measured.",
        )  # fmt: skip

    def sentences(self) -> list[str]:
        """Return what came out, in words."""
        if not self.split.points:
            return []
        end, lines = self.split.points[-1], []
        for axis, shown in (("flops", human_flops(end.flops)), ("bytes", human_bytes(end.bytes))):
            what = "computing" if axis == "flops" else "traffic"
            found = ", ".join(f"{c.name} {_told(c, axis, getattr(end, axis))}" for c in self.curves[1:])
            lines.append(
                f"With the {what} of a client in split learning, {shown}, it reaches {self.metric} "
                f"{end.score:.3f}; {found}."
            )
        return lines


def _score(point: Point | None) -> float | None:
    return None if point is None else point.score


def _told(curve: Curve, axis: str, limit: float) -> str:
    """Return how well a method did within a limit, in words."""
    point = curve.at(axis, limit)
    if point is None:
        return "was not measured within it"
    used = getattr(point, axis) / limit
    return f"{point.score:.3f}" + ("" if used > 0.9 else f" (it had used {used:.1%} of it when it ended)"
                                   if point is curve.points[-1] else f" (at {used:.0%} of it)")  # fmt: skip


def compare(
    study: Study,
    holdings: Holdings,
    methods: Sequence[Method],
    folder: str | Path,
    *,
    equal: str = "",
    times: float = 1.0,
    metric: str = "",
    on_progress: Callable[[str, Progress], None] | None = None,
) -> Comparison:
    """Train a study and baselines on its data; what was trained in the folder before is not trained again.

    Args:
        study: The study.
        holdings: Who holds what.
        methods: The baselines.
        folder: Where each run gets a folder.
        equal: Stop a baseline when it has cost a client as much as the split study did: of ``"compute"`` or of
            ``"traffic"``; otherwise after its rounds.
        times: So many times as much.
        metric: The score; the first that fits the task unless given.
        on_progress: Called with the method's name and where its training stands.

    Raises:
        StudyError: A client does not hold whole rows, nothing is measured, or the folder is of something else.
    """
    if equal not in ("", *EQUAL):
        raise StudyError(f"what is to be equal is not {equal!r}", todo=nearest(equal, EQUAL))
    words = [method.word for method in methods]
    if len(set(words)) < len(words):
        raise StudyError("a baseline is named twice", got=", ".join(words))
    if not (math.isfinite(times) and times > 0):
        raise StudyError("times is a number above 0", got=repr(times))
    if times != 1.0 and not equal:
        raise StudyError(
            "times says how often a cost is met, and no cost is named", got=f"times {times:g}",
            todo='say equal="compute" or equal="traffic"',
        )  # fmt: skip
    role = client_role(study)
    names = study.graph.roles[role].parties
    for method in methods:
        method.check(len(names))
    events, folders = _split(study, holdings, Path(folder) / "split", on_progress), {}
    split, metric = _measured_on(events), metric or _metric(events)
    share = training_share(study, holdings, study.epochs)
    loss = next(iter(study.graph.losses))
    curves = [curve_of(SPLIT, events, names, metric, split=split, loss=loss, share=share)]
    settings, folders = {SPLIT: study.schedule.describe()}, {SPLIT: Path(folder) / "split"}
    budget = _budget(equal, times, events, names, share)
    for method in methods:
        out = Path(folder) / method.word
        outcome = train(
            study, holdings, method, out=out, resume=(out / LOG_NAME).is_file(), budget=budget,
            on_progress=_named(method.title, on_progress),
        )  # fmt: skip
        curves.append(curve_of(method.title, outcome.events, names, metric, split=split, loss=loss))
        settings[method.title], folders[method.title] = method.describe(), out
    return Comparison(
        name=study.name, clients=len(names), metric=metric, curves=tuple(curves), settings=settings,
        folders=folders,
    )  # fmt: skip


def _split(
    study: Study,
    holdings: Holdings,
    out: Path,
    on_progress: Callable[[str, Progress], None] | None,
) -> list[Event]:
    """Return the log of the split study, trained if it was not yet."""
    there = (out / LOG_NAME).is_file()
    if there and finished(events := read_log(out)):
        began = last(events, Began)
        data = Cohorts(study.graph, holdings).digest(holdings)
        if began is not None and (began.digest, began.data) == (study.digest, data):
            return events
    return study.simulate(holdings, out=out, resume=there, on_progress=_named(SPLIT, on_progress)).events


def _named(name: str, told: Callable[[str, Progress], None] | None) -> Callable[[Progress], None] | None:
    return None if told is None else lambda now: told(name, now)


def _budget(
    equal: str, times: float, events: Sequence[Event], names: Sequence[str], share: dict[int, float]
) -> Budget | None:
    cost = spent(events, names, share)
    if equal == "compute":
        return Budget(flops=times * cost.flops)
    return Budget(bytes=times * cost.bytes) if equal == "traffic" else None


def _measured_on(events: Sequence[Event]) -> str:
    """Return the split to compare on: test, if it was measured."""
    splits = [e.split for e in all_of(events, Measured)]
    if not splits:
        raise StudyError(
            "the study measures nothing, so there is nothing to compare", todo="hold rows out to test"
        )
    return "test" if "test" in splits else splits[0]


def _metric(events: Sequence[Event]) -> str:
    known = {name for e in all_of(events, Measured) for name in e.metrics}
    return next(name for name in (*_FIRST, *known) if name in known)
