"""What an audit found out, one line of JSON each: written as it is found, so that an audit can go on after a break."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import LogError

__all__ = ["Finding", "Findings", "Trained"]

FILE = "findings.jsonl"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One training that was attacked, and what it came to.

    Attributes:
        setting: Which of the audit's settings.
        seed: The study's seed.
        defences: What protected its cuts, by cut; empty where nothing did.
        cut: Where the network was cut, in words.
        metrics: Of the task, on the rows held out.
        bytes: That crossed in training and evaluation.
        client_flops: Of all parties that hold raw records.
        seconds: It took.
        measured: What the run itself noted of leaks and defences in its last epoch.
        guarantees: Of differential privacy, in words.
    """

    setting: str
    seed: int
    defences: str
    cut: str
    metrics: Mapping[str, float]
    bytes: int
    client_flops: int
    seconds: float
    measured: Mapping[str, float] = field(default_factory=dict)
    guarantees: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """What it is told by."""
        return ("trained", self.setting, self.seed)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one attack made of one training.

    Attributes:
        setting: Which of the audit's settings.
        seed: The study's seed.
        party: The adversary.
        cut: Where it looked.
        attack: Which attack, with its settings.
        after: What it was after: inputs, labels, members, attribute.
        scores: How well it did, by measure; empty where it was not tried.
        blind: How well a guess does that saw nothing.
        chance: What the attack's own guesses reach by luck, once in twenty; empty where that was not tried.
        rows: On how many rows.
        note: How it went, in words.
        skipped: Why it was not tried; empty if it was.
        seconds: It took.
        pictures: Files with rows as they are and as they were reconstructed, relative to the audit's folder.
    """

    setting: str
    seed: int
    party: str
    cut: str
    attack: str
    after: str
    scores: Mapping[str, float] = field(default_factory=dict)
    blind: Mapping[str, float] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    rows: int = 0
    note: str = ""
    skipped: str = ""
    seconds: float = 0.0
    pictures: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[object, ...]:
        """What it is told by."""
        return ("finding", self.setting, self.seed, self.party, self.cut, self.attack)


_KINDS: dict[str, type[Trained] | type[Finding]] = {"trained": Trained, "finding": Finding}


class Findings:
    """The findings of one audit, in its folder.

    Args:
        folder: The audit's folder; made if missing.
        about: What the audit is of: the study's digest and what was asked. Findings of another audit are refused.

    Raises:
        LogError: The folder cannot be written, what is in it cannot be read, or it is of another audit.
    """

    def __init__(self, folder: Path, about: Mapping[str, str]) -> None:
        self.folder, self._path = folder, folder / FILE
        self._found: dict[tuple[object, ...], Trained | Finding] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not self._path.exists():
                self._append({"audit": dict(about)})
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise LogError(
                f"the audit's folder {folder} cannot be written: {error.strerror}",
                todo="choose another with --out",
            ) from error
        self._read(lines, dict(about))

    def __contains__(self, key: tuple[object, ...]) -> bool:
        return key in self._found

    @property
    def trained(self) -> list[Trained]:
        """All trainings, in order."""
        return [one for one in self._found.values() if isinstance(one, Trained)]

    @property
    def found(self) -> list[Finding]:
        """All findings, in order."""
        return [one for one in self._found.values() if isinstance(one, Finding)]

    def add(self, one: Trained | Finding) -> None:
        """Keep a finding."""
        kind = next(name for name, cls in _KINDS.items() if isinstance(one, cls))
        self._append({kind: dataclasses.asdict(one)})
        self._found[one.key] = one

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_finite(line), ensure_ascii=False) + "\n")
        except OSError as error:
            raise LogError(
                f"{self._path} cannot be written: {error.strerror}", todo="make room on the disk, and go on"
            ) from error

    def _read(self, lines: Sequence[str], about: Mapping[str, str]) -> None:
        for number, line in enumerate(lines, 1):
            try:
                (kind, fields), *more = json.loads(line).items()
                if more:
                    raise ValueError("several things in one line")
                if kind == "audit":
                    self._compare(fields, about)
                    continue
                one = _KINDS[kind](**fields)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                if number == len(lines):  # it was cut off when it was written
                    self._path.write_text("".join(f"{whole}\n" for whole in lines[:-1]), encoding="utf-8")
                    return
                raise LogError(
                    f"{self._path}, line {number} is no finding", todo="move the folder out of the way"
                ) from error
            self._found[one.key] = one

    def _compare(self, before: Mapping[str, str], about: Mapping[str, str]) -> None:
        for name, value in about.items():
            if before.get(name) != value:
                raise LogError(
                    f"the audit in {self.folder} is of another {name}",
                    got=value[:80],
                    expected=str(before.get(name))[:80],
                    todo="choose another folder with --out",
                )


def _finite(value: Any) -> Any:
    """Return what can be written as JSON: what is not finite is left out of tables, as None."""
    if isinstance(value, Mapping):
        kept = {name: _finite(one) for name, one in value.items()}
        return {name: one for name, one in kept.items() if one is not None}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
