"""The run's log: events as JSON lines, readable while the run goes on and after it was cut off."""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from pathlib import Path

from ..errors import LogError
from .events import Ended, Event, decode_event, encode_event

__all__ = ["RunLog", "read_log"]

LOG_NAME = "log.jsonl"

_logger = logging.getLogger(__name__)


class RunLog:
    """Keeps events in memory and, with a folder, appends each to ``log.jsonl`` as it comes.

    Args:
        folder: The run's folder, made if missing; without one nothing is written.
        append: Go on with the log that is there; otherwise a log that is there is an error.

    Raises:
        LogError: The folder cannot be made, the log exists, or the disk is full.
    """

    def __init__(self, folder: Path | None = None, *, append: bool = False) -> None:
        self.events: list[Event] = []
        self.folder = folder
        self._file = None
        if folder is None:
            return
        path = folder / LOG_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if append and path.is_file():
                self.events = _repair(path)
            self._file = path.open("a" if append else "x", encoding="utf-8")
        except FileExistsError as error:
            raise LogError(
                f"{path} exists already", todo="choose another folder, or resume the run in it"
            ) from error
        except OSError as error:
            raise LogError(
                f"cannot write {path}: {error.strerror}", todo="choose a folder you may write to"
            ) from error

    def write(self, event: Event) -> None:
        """Note ``event``; what was noted before stays whole if this fails."""
        self.events.append(event)
        if self.folder is None:
            return
        path = self.folder / LOG_NAME
        try:
            with nullcontext(self._file) if self._file else path.open("a", encoding="utf-8") as file:
                file.write(encode_event(event) + "\n")
                file.flush()
        except OSError as error:
            raise LogError(
                f"cannot write {path}: {error.strerror}",
                todo="make room on the disk; everything noted before is kept, and the run can be resumed",
            ) from error

    def rewind(self, epoch: int) -> None:
        """Forget all that was noted after ``epoch``: those epochs are done once more.

        Raises:
            LogError: The file cannot be changed.
        """
        later = [
            i for i, e in enumerate(self.events) if isinstance(e, Ended) or getattr(e, "epoch", -1) > epoch
        ]
        if not later:
            return
        self.events = self.events[: later[0]]
        if self._file is None:
            return
        try:
            lines = Path(self._file.name).read_bytes().split(b"\n")
            self._file.truncate(sum(len(line) + 1 for line in lines[: later[0]]))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise LogError(f"cannot shorten {self._file.name}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file; whatever is noted later opens it again for that."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as error:
                raise LogError(
                    f"cannot finish {file.name}: {error.strerror}", todo="make room on the disk"
                ) from error


def read_log(path: Path) -> list[Event]:
    """Return the events of a log file or run folder; a last line that was cut off is left out, with a warning logged.

    Raises:
        LogError: There is no log, or a line other than the last is damaged.
    """
    path = path / LOG_NAME if path.is_dir() else path
    try:
        *lines, cut = path.read_bytes().decode(errors="replace").split("\n")
    except OSError as error:
        raise LogError(
            f"cannot read {path}: {error.strerror}", todo="give a run's folder or its log.jsonl"
        ) from error
    events = []
    for number, line in enumerate(lines, 1):
        try:
            events.append(decode_event(line))
        except LogError as error:
            raise LogError(f"{path}, line {number}: {error.what}", todo=error.todo) from error
    if cut:
        _logger.warning("%s: the last line was cut off and is left out", path)
    return events


def _repair(path: Path) -> list[Event]:
    """Read the log and take off a last line that was cut, so that it can go on."""
    events = read_log(path)
    whole = path.read_bytes()
    if whole and not whole.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(whole.rfind(b"\n") + 1)
    return events
