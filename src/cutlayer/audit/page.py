"""``audit.html``: what an audit found, for a security officer; one file that loads nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import LogError
from ..metering.table import human_bytes, human_flops, human_seconds
from .findings import Finding, Findings, Trained
from .frontier import draw_frontier, points
from .verdicts import AFTER, Verdict, metric_of, spread, verdicts, worst

__all__ = ["PAGE", "write_page"]

PAGE = "audit.html"
_TOLD = 4
"""Settings that the summary goes through; where there are more, the picture and the tables do."""
_NEVER = (
    "Attacks that need several runs, or that join what several parties saw, are not tried.",
    "Side channels (times, sizes, the operating system) are not looked at; nor is what the study's model files do.",
    "Membership is guessed by confidence alone; attacks with shadow models may do better.",
    "An attack that fails here may succeed with more computing, better public rows or a better idea.",
)


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """A row of the table of what settings cost."""

    setting: str
    defences: str
    cut: str
    metric: str
    bytes: str
    flops: str
    seconds: str
    measured: tuple[str, ...]
    guarantees: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """Pictures of one attack, a row for each setting."""

    title: str
    rows: tuple[tuple[str, str], ...]


def write_page(findings: Findings, name: str, descriptions: dict[str, tuple[str, str, str]]) -> Path:
    """Write the page of an audit, as far as it got, and return its path.

    Args:
        findings: What was found.
        name: The study's name.
        descriptions: Of each attack by its word: who may do it, what it needs, its source.

    Raises:
        LogError: It cannot be written.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loader = ChoiceLoader([PackageLoader("cutlayer.audit", ""), PackageLoader("cutlayer.report", "")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = environment.get_template("report.css").render()
    found, trained = verdicts(findings.found), findings.trained
    settings = list(dict.fromkeys(one.setting for one in trained))
    drawing = draw_frontier(points(trained, found), findings.folder)
    text = environment.get_template("audit.html.j2").render(
        name=name,
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        settings=settings,
        summary=_summary(found, settings, trained),
        verdicts=found,
        panels=_panels(found, settings, findings.folder),
        costs=[_cost(setting, trained) for setting in settings],
        metric=metric_of(trained),
        frontier=_data_uri(drawing) if drawing is not None else "",
        skipped=_skipped(findings.found),
        never=_NEVER,
        after=AFTER,
        descriptions=descriptions,
        seeds=sorted({one.seed for one in trained}),
        share="%.0f %%",
    )
    path = findings.folder / PAGE
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LogError(f"cannot write {path}: {error.strerror}", todo="make room on the disk") from error
    return path


def _summary(found: Sequence[Verdict], settings: Sequence[str], trained: Sequence[Trained]) -> list[str]:
    """Return sentences that somebody reads who reads nothing else."""
    lines = []
    pairs = dict.fromkeys((verdict.party, verdict.after) for verdict in found)
    for party, after in pairs:
        there = [(s, v) for s in settings if (v := worst(found, s, party, after)) is not None]
        (first, best), *others = there
        text = (
            f"As curious as it can be, {party} could {AFTER[after]}: {best.word}. By “{best.name}” it gets "
            f"{best.measure} {best.score:.2f}, where a guess that saw nothing gets {best.blind:.2f} ({first})."
        )
        for setting, verdict in others[: _TOLD - 1]:
            text += (
                f" With {setting}: {verdict.word} ({verdict.measure} {verdict.score:.2f}, “{verdict.name}”)."
            )
        if len(there) > _TOLD:
            text += f" The other {len(there) - _TOLD} settings are in the picture and the tables."
        lines.append(text)
    metric = metric_of(trained)
    if metric and 1 < len(settings) <= _TOLD:
        means = {s: _metric(s, trained, metric) for s in settings}
        first = settings[0]
        told = ", ".join(f"{s} {means[s][0] - means[first][0]:+.3f}" for s in settings[1:])
        lines.append(f"What that costs the task: {metric} {means[first][0]:.3f} {first}; {told}.")
    return lines


def _metric(setting: str, trained: Sequence[Trained], metric: str) -> tuple[float, float]:
    values = [one.metrics[metric] for one in trained if one.setting == setting and metric in one.metrics]
    return spread(values) if values else (float("nan"), 0.0)


def _cost(setting: str, trained: Sequence[Trained]) -> _Cost:
    own = [one for one in trained if one.setting == setting]
    metric = metric_of(trained)
    mean, deviation = _metric(setting, trained, metric)
    names = dict.fromkeys(name for one in own for name in one.measured)
    measured = [
        f"{name} {statistics.fmean([one.measured[name] for one in own if name in one.measured]):.3g}"
        for name in names
    ]
    return _Cost(
        setting=setting,
        defences=own[0].defences or "none",
        cut=own[0].cut,
        metric=f"{mean:.4f}" + (f" ± {deviation:.4f}" if len(own) > 1 else "") if metric else "",
        bytes=human_bytes(round(statistics.fmean([one.bytes for one in own]))),
        flops=human_flops(round(statistics.fmean([one.client_flops for one in own]))),
        seconds=human_seconds(statistics.fmean([one.seconds for one in own])),
        measured=tuple(measured),
        guarantees=tuple(dict.fromkeys(one.guarantees for one in own if one.guarantees)),
    )


def _panels(found: Sequence[Verdict], settings: Sequence[str], folder: Path) -> list[_Panel]:
    """Return the pictures by attack: the originals, then what was made of them in each setting."""
    panels = []
    for party, attack in dict.fromkeys((v.party, v.attack) for v in found if v.pictures):
        own = [v for v in found if (v.party, v.attack) == (party, attack) and v.pictures]
        own.sort(key=lambda verdict: settings.index(verdict.setting))
        rows = []
        for verdict in own:
            original, guess = (folder / verdict.pictures[which] for which in ("original", "reconstruction"))
            if original.is_file() and guess.is_file():
                rows.append(("as it is", _data_uri(original)))
                words = f"{verdict.setting}: {verdict.measure} {verdict.score:.2f}"
                rows.append((f"as {party} sees it, {words}", _data_uri(guess)))
        title = f"{attack.partition(':')[0]}, by {party}"
        panels.append(_Panel(title=title, rows=tuple(dict.fromkeys(rows))))
    return panels


def _skipped(found: Sequence[Finding]) -> list[tuple[str, str, str, str]]:
    """Return what was not tried or came to nothing: attack, party, cut, why; no attribute if one was tried."""
    tried = any(one.after == "attribute" and not one.skipped for one in found)
    skipped = [
        (one.attack, one.party, one.cut, one.skipped or "it was, and came to no score on these data")
        for one in found
        if (one.skipped or not one.scores) and not (tried and one.attack.startswith("attribute:of=,"))
    ]
    return list(dict.fromkeys(skipped))


def _data_uri(path: Path) -> str:
    kind = "svg+xml" if path.suffix == ".svg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
