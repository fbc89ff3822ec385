"""A party's own record of what left it: one line a frame, noted before the frame leaves, chained by hashes.

Every line holds the hash of the line before and its own, SHA-256 of the line without its hash. So a line
cannot be changed, removed, put in or moved without being noticed, unless all lines after it are written
anew; and those are noticed by whoever has noted the hash of the last line, the *head*, elsewhere. See
``docs/disclosure-log.md`` for what that can show and what it cannot.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

from ..errors import LogError
from .disclosures import LOG_NAME, START, Damage, Disclosed, Flow, read_disclosures, read_entry

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ..wire.messages import Kind
    from ..wire.peek import Contents, Described

__all__ = ["LOG_NAME", "Disclosed", "DisclosureLog", "Flow", "read_disclosures"]

_SYNC_EVERY_S = 3.0
_FIRST_LINE_BYTES = 65536
_TAIL_BYTES = 65536
_EPOCH, _MICROSECOND = datetime.fromtimestamp(0, UTC), timedelta(microseconds=1)
_EMPTY = sha256()
"""To begin a hash anew costs more than to copy this one."""


class _State(NamedTuple):
    """Where the log stands after its last whole line; replaced in one stroke, so that Ctrl-C cannot split it."""

    end: int = 0
    number: int = 0
    head: str = START
    time_us: int = 0
    frames: int = 0
    frame_bytes: int = 0


class DisclosureLog:
    """Appends to ``disclosure.log``, before a frame leaves, what leaves and to whom.

    A line is with the operating system when :meth:`note` returns: it survives the process, killed at any
    moment. Against a loss of power, the file is brought to the disk every three seconds and at the end.
    Runs that are restarted go on in the same file.

    Args:
        folder: Where the log lies; made if missing.
        party: Whose log it is.
        study: Digest of the study that the parties agreed on.

    Attributes:
        path: The log's file.

    Raises:
        LogError: The log cannot be written, is another party's or being written by another process, or its
            last line was damaged.
    """

    def __init__(self, folder: str | Path, party: str, *, study: str) -> None:
        from ..wire import Limits, peek  # here, so that logs are read without PyTorch

        most = Limits(max_frame_bytes=2**62, max_tensors=2**16 - 1, max_dimensions=64)
        self._peek: Callable[[Buffer], Contents] = partial(peek, limits=most)
        self.path, self._party = Path(folder) / LOG_NAME, party
        self._lock, self._state, self._unsure = threading.Lock(), _State(), False
        self._sync_at = time.monotonic() + _SYNC_EVERY_S
        self._aside = ThreadPoolExecutor(1, "cutlayer-log")
        self._syncing: Future[None] | None = None
        self._file: int | None = None
        try:
            self._file = _open(self.path)
            self._begin(study)
        except OSError as error:
            self._abandon()
            self._fail(error)
        except BaseException:
            self._abandon()
            raise

    @property
    def head(self) -> str:
        """The hash of the last line: whoever notes it elsewhere can tell whether lines were cut off since."""
        return self._state.head

    @property
    def sent_bytes(self) -> int:
        """Bytes of the frames noted since this log was opened."""
        return self._state.frame_bytes

    def note(self, frame: Buffer, to: str, *, via: str = "", sealed: bool = False) -> None:
        """Note that ``frame`` is about to leave; send it only once this has returned.

        Args:
            frame: What leaves. If it is sealed for its receiver: the frame inside, which tells more.
            to: The party that will read it.
            via: The party that passes it on, if any.
            sealed: Whether nobody but the receiver can open it.

        Raises:
            FrameError: These bytes are not a frame.
            LogError: The line cannot be written: the frame must not leave.
        """
        kind, cut, step, _, training, tensors, size, checksum = self._peek(frame)
        fixed = _fixed(to, via, sealed, kind, cut, training, tensors, size)
        with self._lock:
            self._append(f'{fixed},"step":{step},"checksum":"{checksum}"', 1, size)

    def close(self) -> str:
        """Note that the run ended, bring everything to the disk, and return the head to print or send.

        Raises:
            LogError: The last line cannot be written; what was noted before is kept.
        """
        with self._lock:
            if self._file is None:
                return self.head
            try:
                self._add("closed", frames=self._state.frames, bytes=self._state.frame_bytes)
                self._wait_for_sync()
                self._sync(self._file)
            finally:
                self._abandon()
            return self.head

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, study: str) -> None:
        """Find where the file ends, cut off a torn last line, and open a new part of the log."""
        from .. import __version__

        file = self._opened_file()
        size = os.fstat(file).st_size
        line, torn_bytes = _last_line(file, size)
        crashed = torn_bytes > 0
        if line:
            self._check_owner(os.pread(file, _FIRST_LINE_BYTES, 0).split(b"\n")[0] + b"\n")
            last, head = self._checked(line, "its last line")
            written = datetime.fromisoformat(last["time"])
            self._state = _State(size - torn_bytes, last["number"], head, (written - _EPOCH) // _MICROSECOND)
            crashed = crashed or last["entry"] != "closed"
        if torn_bytes:
            os.ftruncate(file, size - torn_bytes)
        self._add("opened", party=self._party, study=study, version=__version__, salt=secrets.token_hex(16))
        if crashed:
            self._add("recovered", torn_bytes=torn_bytes)
        os.fsync(file)

    def _check_owner(self, line: bytes) -> None:
        first, _ = self._checked(line, "its first line")
        if first.get("party") != self._party:
            raise LogError(
                f"{self.path} is the log of another party", party=self._party, got=repr(first.get("party")),
                todo="give each party a folder of its own",
            )  # fmt: skip

    def _checked(self, line: bytes, which: str) -> tuple[dict[str, Any], str]:
        try:
            return read_entry(line)
        except Damage as damage:
            raise LogError(
                f"{self.path}: {which} {damage}", party=self._party,
                todo="keep the file for those who have to look into it, and move it out of the way",
            ) from damage  # fmt: skip

    def _opened_file(self) -> int:
        if self._file is None:
            raise LogError(f"{self.path} is closed", party=self._party, todo="open the log once more")
        return self._file

    def _add(self, entry: str, **more: str | int) -> None:
        self._append(json.dumps({"entry": entry, **more}, separators=(",", ":"))[1:-1])

    def _append(self, said: str, frames: int = 0, size: int = 0) -> None:
        """Write one line; if that fails, the log stands as before and can go on once the cause is gone."""
        file = self._opened_file()
        end, number, previous, time_us, all_frames, all_bytes = self._state
        now = time.time_ns() // 1000
        if now < time_us:
            said += f',"clock":{(now - time_us) / 1e6}'
        second, fraction = divmod(now, 1_000_000)
        stamp = f"{_second(second)}.{str(1_000_000 + fraction)[1:]}"  # a format with zeros takes longer
        body = f'{{"number":{number + 1},"time":"{stamp}Z",{said},"previous":"{previous}"}}'.encode()
        digest = _EMPTY.copy()
        digest.update(body)
        head = digest.hexdigest()
        line = body[:-1] + f',"hash":"{head}"}}\n'.encode()
        try:
            if self._unsure:  # the line before failed, or was interrupted: it did not count
                os.ftruncate(file, end)
            self._unsure = True
            if os.write(file, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(file, end)
            self._fail(error)
        self._state = _State(end + len(line), number + 1, head, now, all_frames + frames, all_bytes + size)
        self._unsure = False
        if time.monotonic() >= self._sync_at:
            self._sync_aside(file)

    def _sync_aside(self, file: int) -> None:
        """Have a thread sync the file, which takes milliseconds, while frames leave; one that failed is raised here."""
        self._wait_for_sync()
        if not self._sync_at:  # it failed: here, until it works
            return self._sync(file)
        self._sync_at = time.monotonic() + _SYNC_EVERY_S
        self._syncing = self._aside.submit(self._sync, file)
        return None

    def _wait_for_sync(self) -> None:
        syncing, self._syncing = self._syncing, None
        if syncing is not None:
            syncing.result()

    def _sync(self, file: int) -> None:
        """Bring the file to the disk, and see that it is still the one in the folder."""
        try:
            os.fsync(file)
            if not os.path.samestat(os.stat(self.path), os.fstat(file)):
                raise FileExistsError(errno.EEXIST, "another file was put in its place")
        except OSError as error:
            self._sync_at = 0.0  # the next frame is due to hear of it
            self._fail(error)
        self._sync_at = time.monotonic() + _SYNC_EVERY_S

    def _abandon(self) -> None:
        self._aside.shutdown()
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):
                os.close(file)

    def _fail(self, error: OSError) -> NoReturn:
        what, todo = str(error.strerror), "make room on the disk or choose a folder you may write to"
        if isinstance(error, BlockingIOError):
            what, todo = "another process is writing to it", "stop that one, or choose another folder"
        raise LogError(
            f"cannot note in {self.path} what is to leave, so nothing leaves: {what}",
            party=self._party, todo=todo,
        ) from error  # fmt: skip


@lru_cache(maxsize=2)
def _second(number: int) -> str:
    """Return a second, counted from 1970, as date and time in UTC."""
    return datetime.fromtimestamp(number, UTC).isoformat()[:-6]


def _open(path: Path) -> int:
    """Return a descriptor of the log that this process alone writes to."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go by the system when the process ends
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # so that a new file has its name after a loss of power
        finally:
            os.close(folder)
    except BaseException:
        os.close(file)
        raise
    return file


def _last_line(file: int, size: int) -> tuple[bytes, int]:
    """Return the last whole line of the first ``size`` bytes, empty if there is none, and the bytes after it."""
    start, tail = size, b""
    while start and tail.count(b"\n") < 2:
        start, end = max(0, start - _TAIL_BYTES), start
        tail = os.pread(file, end - start, start) + tail
    end = tail.rfind(b"\n") + 1
    begin = tail.rfind(b"\n", 0, max(0, end - 1)) + 1
    return tail[begin:end], len(tail) - end


@lru_cache(maxsize=256)
def _fixed(
    to: str, via: str, sealed: bool, kind: Kind, cut: str, training: bool,
    tensors: tuple[Described, ...], size: int,
) -> str:  # fmt: skip
    """Return what is the same in every line about such frames; few kinds of frames leave a party."""
    shapes = [
        [name, None if dtype is None else str(dtype).removeprefix("torch."), shape]
        for name, dtype, shape in tensors
    ]
    line = {
        "entry": "frame", "to": to, "via": via, "kind": kind.name.lower(), "cut": cut,
        "phase": "training" if training else "evaluation", "tensors": shapes, "bytes": size,
        "sealed": sealed or kind.name == "SEALED",
    }  # fmt: skip
    return json.dumps(line, separators=(",", ":"))[1:-1]
