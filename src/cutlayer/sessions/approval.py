"""What a party has approved: kept on its disk, so that it is asked once, and anew when anything differs.

A study's digest covers graph, weights, program, codecs, precision, defences, optimizers, seed and model code. Only
the digest of the model code can be known before that code is executed, so the code can be approved on its own.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConsentError, LogError

if TYPE_CHECKING:
    from ..study import Study

__all__ = ["FILE", "Approval", "Approvals", "code_digest", "vouches_for"]

FILE = "approved.json"
SHORTEST = 16
"""Hex digits of a digest that are shown to name it."""
ENOUGH = 32
"""Hex digits that are enough to approve it: nobody can make another study that begins like one that was looked at.

To make two at once that begin alike, one to be shown and one to be run, would take some 2**64 tries with 32 digits, and
2**128 with all 64.
"""


@dataclass(frozen=True, kw_only=True)
class Approval:
    """One approval, of a whole study or of its model code only.

    Attributes:
        digest: The study's; empty where only its code was approved.
        parts: What the digest is made of, by name.
        code: SHA-256 of each file of model code, by name.
        statement: SHA-256 of the disclosure statement that was shown.
        time: When, in UTC.
        version: Of cutlayer.
        how: ``"--approve"`` or ``"terminal"``.
    """

    digest: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str]
    statement: str = ""
    time: str
    version: str
    how: str


class Approvals:
    """The approvals of one party, in its folder.

    Args:
        folder: The party's folder; made when something is approved.

    Raises:
        LogError: What is kept there cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._kept = _read(self.path)

    @property
    def last(self) -> Approval | None:
        """The last approval of a whole study."""
        return next((one for one in reversed(self._kept) if one.digest), None)

    def covers_code(self, code: Mapping[str, str]) -> bool:
        """Return whether exactly these files were approved before; no files need no approval."""
        return not code or any(one.code == code for one in self._kept)

    def covers(self, study: Study, statement: str) -> bool:
        """Return whether the last approval is of this study, with this disclosure statement."""
        last = self.last
        return last is not None and (last.digest, last.statement) == (study.digest, _hash(statement))

    def differences(self, study: Study) -> list[str]:
        """Return the names of the parts in which ``study`` differs from the one that was approved last."""
        last = self.last
        if last is None:
            return []
        parts = study.parts
        return sorted(n for n in parts.keys() | last.parts.keys() if parts.get(n) != last.parts.get(n))

    def allow_code(self, code: Mapping[str, str], how: str) -> None:
        """Keep that these files may be executed."""
        self._keep(_approval(code=dict(code), how=how))

    def allow(self, study: Study, statement: str, how: str) -> None:
        """Keep that this study, with this disclosure statement, was approved."""
        code, parts = dict(study.code), study.parts
        self._keep(
            _approval(digest=study.digest, parts=parts, code=code, statement=_hash(statement), how=how)
        )

    def _keep(self, approval: Approval) -> None:
        kept = [*self._kept, approval]
        new = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("w", encoding="utf-8") as file:
                file.write(json.dumps([dataclasses.asdict(one) for one in kept], indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.path)
        except OSError as error:
            raise LogError(
                f"cannot keep the approval in {self.path}: {error.strerror}",
                todo="make room on the disk, or choose another folder with --out",
            ) from error
        self._kept = kept


def vouches_for(word: str, digest: str) -> bool:
    """Return whether ``word`` names ``digest``: all of it, or its first hex digits.

    Raises:
        ConsentError: It is no digest, or too short to name one.
    """
    if not re.fullmatch(rf"[0-9a-f]{{{ENOUGH},64}}", word):
        raise ConsentError(
            "that is no digest to approve",
            got=repr(word),
            expected=f"its 64 hex digits, or at least the first {ENOUGH}",
        )
    return digest.startswith(word)


def code_digest(code: Mapping[str, str]) -> str:
    """Return SHA-256 (hex) over files of model code; the part ``model code`` of a study's digest."""
    return _hash("\n".join(f"{name} {found}" for name, found in sorted(code.items())))


def _approval(
    *,
    digest: str = "",
    parts: Mapping[str, str] | None = None,
    code: Mapping[str, str],
    statement: str = "",
    how: str,
) -> Approval:
    from .. import __version__

    now = datetime.datetime.now(datetime.UTC).isoformat("T", "seconds")
    return Approval(
        digest=digest,
        parts=parts or {},
        code=code,
        statement=statement,
        time=now,
        version=__version__,
        how=how,
    )


def _read(path: Path) -> list[Approval]:
    if not path.exists():
        return []
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(kept, list):
            raise TypeError("it is no list of approvals")
        return [_one(one) for one in kept]
    except (OSError, ValueError, TypeError) as error:
        raise LogError(
            f"{path} cannot be read: {error}",
            todo="move it out of the way, and approve the study once more",
        ) from error


def _one(kept: object) -> Approval:
    if not isinstance(kept, dict):
        raise TypeError(f"not an approval: {kept!r}")
    for name, value in kept.items():
        words = (
            [*value, *value.values()] if name in ("parts", "code") and isinstance(value, dict) else [value]
        )
        if not all(isinstance(word, str) for word in words):
            raise TypeError(f"its {name} is {value!r}")
    return Approval(**kept)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
