"""What a disclosure log says: its chain is walked, and what left is summed up by receiver and cut."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import LogError

__all__ = ["LOG_NAME", "START", "Damage", "Disclosed", "Flow", "read_disclosures", "read_entry"]

LOG_NAME = "disclosure.log"
START = "0" * 64
"""What stands for the hash of the line before the first."""

_HASH_KEY = b',"hash":"'
_END = b'"}\n'
_HASH = re.compile("[0-9a-f]{64}")
_HASH_AT = -64 - len(_END)
_BODY_END = _HASH_AT - len(_HASH_KEY)


class Damage(ValueError):
    """What is wrong with a line, as the end of a sentence about it."""


@dataclass(kw_only=True)
class Flow:
    """What went to one party over one cut.

    Attributes:
        frames: How many frames.
        frame_bytes: Their size in all.
        training_frames: How many of them belonged to training, not to an evaluation.
        first: When the first was noted, in UTC.
        last: When the last was noted.
        first_step: The lowest step.
        last_step: The highest step.
    """

    to: str
    via: str
    cut: str
    kind: str
    sealed: bool
    frames: int = 0
    frame_bytes: int = 0
    training_frames: int = 0
    first: str = ""
    last: str = ""
    first_step: int = 0
    last_step: int = 0


@dataclass(kw_only=True)
class Disclosed:
    """The sum of a disclosure log whose chain is whole.

    Attributes:
        party: Whose log it is.
        studies: Digests of the studies it was written in.
        entries: Number of lines.
        runs: How often it was opened.
        crashes: How many of those runs did not end in order, except for the last.
        clock_jumps: How often the clock was set back.
        closed: Whether the last run ended in order. If not, the process was ended hard, is still running, or
            lines were cut off at the end.
        torn_bytes: Size of a last line that was not written to its end.
        head: The hash of the last line.
        head_line: The line that has the hash asked for.
        flows: What went where.
    """

    party: str = ""
    studies: list[str] = field(default_factory=list)
    entries: int = 0
    runs: int = 0
    crashes: int = 0
    clock_jumps: int = 0
    closed: bool = False
    torn_bytes: int = 0
    head: str = START
    head_line: int | None = None
    flows: list[Flow] = field(default_factory=list)


def read_entry(line: bytes) -> tuple[dict[str, Any], str]:
    """Return what a line with its newline says, without its hash, and the hash, which fits.

    Raises:
        Damage: It is not as it was written.
    """
    if line[_BODY_END:_HASH_AT] != _HASH_KEY or not line.endswith(_END):
        raise Damage("is not an entry that ends in its hash: it was changed, or does not belong here")
    body = line[:_BODY_END] + b"}"
    head = sha256(body).hexdigest()
    if head.encode() != line[_HASH_AT : -len(_END)]:
        raise Damage(f"was changed after it was written: its hash is {head[:12]}…, not the one it says")
    try:
        entry = json.loads(body)
        if not isinstance(entry["number"], int) or not isinstance(entry["entry"], str):
            raise TypeError(f"number {entry['number']!r}, entry {entry['entry']!r}")
        if not _HASH.fullmatch(entry["previous"]):
            raise ValueError(f"not a hash: {entry['previous']!r}")
        if datetime.fromisoformat(entry["time"]).utcoffset() is None:
            raise ValueError(f"a time without its zone: {entry['time']}")
        return entry, head
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damage("is not an entry that this version of cutlayer knows") from error


def read_disclosures(path: str | Path, *, head: str | None = None) -> Disclosed:
    """Walk the chain of a disclosure log and sum it up.

    Args:
        path: The log, or the folder that it lies in.
        head: A hash noted earlier; there must be a line that has it.

    Raises:
        LogError: The log cannot be read, or a line was changed, removed, put in or moved, or nothing in it has
            the hash ``head``.
    """
    path = Path(path)
    path = path / LOG_NAME if path.is_dir() else path
    if head is not None and not _HASH.fullmatch(head):
        raise LogError("the head is not one that a log has", got=repr(head), expected="64 digits 0-9 and a-f")
    walk = _Walk(head)
    try:
        with path.open("rb") as file:
            for line in file:
                walk.step(line)
    except OSError as error:
        raise LogError(
            f"cannot read {path}: {error.strerror}", todo=f"give a party's {LOG_NAME} or its folder"
        ) from error
    except Damage as damage:
        raise LogError(
            f"{path}, line {walk.sum.entries + 1} {damage}",
            todo="the lines before it are as they were written; nothing after it can be relied on",
        ) from damage
    found = walk.sum
    if not found.entries:
        raise LogError(
            f"{path} holds no entry", todo="a log that was begun has at least one: lines are missing"
        )
    if head is not None and found.head_line is None:
        raise LogError(
            f"no line of {path} has the hash that was noted: lines were removed at the end, or all were rewritten",
            got=f"{found.entries:,} lines up to {found.head}", expected=head,
        )  # fmt: skip
    return found


class _Walk:
    """Goes over a log line by line; ``sum`` is the sum of those that were in order."""

    def __init__(self, wanted: str | None) -> None:
        self.sum = Disclosed()
        self._wanted = wanted
        self._flows: dict[tuple[str, ...], Flow] = {}

    def step(self, line: bytes) -> None:
        """Take one more line.

        Raises:
            Damage: It is not the one that was written there.
        """
        if not line.endswith(b"\n"):
            self.sum.torn_bytes, self.sum.closed = len(line), False
            return
        entry, head = read_entry(line)
        self._check_place(entry)
        try:
            self._count(entry)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise Damage("is not an entry that this version of cutlayer knows") from error
        self.sum.entries, self.sum.head = self.sum.entries + 1, head
        if head == self._wanted:
            self.sum.head_line = self.sum.entries

    def _check_place(self, entry: dict[str, Any]) -> None:
        due, number = self.sum.entries + 1, entry["number"]
        if number > due:
            missing = f"entry {due} is" if number == due + 1 else f"entries {due} to {number - 1} are"
            raise Damage(f"is entry {number}: {missing} missing before it, removed or moved")
        if number < due:
            raise Damage(f"is entry {number}, and entry {due} belongs there: it was put in or moved")
        if entry["previous"] != self.sum.head:
            raise Damage(
                f"follows a line with the hash {entry['previous'][:12]}…, and the line before it has "
                f"{self.sum.head[:12]}…: one was exchanged"
            )
        if due == 1 and entry["entry"] != "opened":
            raise Damage("does not open the log, as the first line does")

    def _count(self, entry: dict[str, Any]) -> None:
        total = self.sum
        total.clock_jumps += "clock" in entry
        match entry["entry"]:
            case "opened":
                total.party, total.runs = str(entry["party"]), total.runs + 1
                if entry["study"] not in total.studies:
                    total.studies.append(str(entry["study"]))
            case "recovered":
                total.crashes += 1
            case "frame":
                self._count_frame(entry)
            case "closed":
                pass
            case other:
                raise ValueError(other)
        total.closed = entry["entry"] == "closed"

    def _count_frame(self, entry: dict[str, Any]) -> None:
        to, via, cut, kind = (str(entry[key]) for key in ("to", "via", "cut", "kind"))
        sealed, step, now = bool(entry["sealed"]), int(entry["step"]), entry["time"]
        size, training = int(entry["bytes"]), entry["phase"] == "training"
        key = (to, via, cut, kind, str(sealed))
        flow = self._flows.get(key)
        if flow is None:
            flow = self._flows[key] = Flow(
                to=to, via=via, cut=cut, kind=kind, sealed=sealed, first=now, first_step=step, last_step=step
            )
            self.sum.flows.append(flow)
        flow.frames += 1
        flow.frame_bytes += size
        flow.training_frames += training
        flow.last = now
        flow.first_step, flow.last_step = min(flow.first_step, step), max(flow.last_step, step)
