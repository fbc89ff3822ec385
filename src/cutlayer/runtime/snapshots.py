"""Snapshots on disk: what parties have at positions of the program, whole and unchanged or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from ..errors import LogError
from .live import State
from .positions import START, Position

__all__ = ["Snapshot", "Snapshots"]

_NOTE = "snapshot.json"
_NAME = re.compile("(0|[1-9][0-9]{0,14})-(0|[1-9][0-9]{0,14})")
_NEW, _OLD, _GONE, _DAMAGED = ".new", ".old", ".gone.new", "damaged-"
_NOT_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_SEAL = re.compile(rb'(.*), "sha256": "([0-9a-f]{64})"\}\n', re.DOTALL)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What is kept of one party, or in a simulation of all, at a position of the program.

    Attributes:
        position: Where to go on from.
        states: By party, the state of each segment it has now.
        best: By party, the state of each segment as of the best epoch, with early stopping.
        memory: What else to go on with: numbers, texts, lists, and mappings by text.
    """

    position: Position = START
    states: Mapping[str, Mapping[str, State]] = field(default_factory=dict)
    best: Mapping[str, Mapping[str, State]] = field(default_factory=dict)
    memory: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _File:
    """One file of a snapshot, ready to be written: tensors by ``segment/name``."""

    name: str
    party: str
    best: bool
    segments: tuple[str, ...]
    tensors: State


class Snapshots:
    """The snapshots of a run: ``snapshot/<epoch>-<item>/`` below the run's folder.

    Each holds one file per party (``<party>.safetensors``, ``<party>+best.safetensors``) and ``snapshot.json``,
    which names size and SHA-256 of each file and ends with its own. A snapshot is written beside the others,
    made safe on the disk, and then renamed, so whatever breaks off leaves the ones before whole.

    Args:
        folder: The run's folder; None keeps nothing.
        background: Write in a thread, while training goes on.
        on_disk: Called with the position of each snapshot once it is safe; in the background, in that thread.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        background: bool = False,
        on_disk: Callable[[Position], None] = lambda position: None,
    ) -> None:
        self.folder = folder / "snapshot" if folder is not None else None
        self._whole: set[Position] = set()
        self._thread = ThreadPoolExecutor(1, "snapshots") if background else None
        self._pending: Future[None] | None = None
        self._on_disk = on_disk
        if self.folder is not None:
            _clean(self.folder)

    def keep(self, snapshot: Snapshot) -> None:
        """Write ``snapshot``, in the place of one at the same position; its tensors may change once this returns.

        In the background at most one is being written: this waits for the one before.

        Raises:
            LogError: The disk is full or not writable, now or for the one before in the background; then
                this one is not kept, those on the disk stay whole, and the next may succeed.
        """
        self.wait()
        if self.folder is None:
            return
        memory = json.dumps(dict(snapshot.memory))
        files = [*_files(snapshot.states, best=False), *_files(snapshot.best, best=True)]
        self._whole.add(snapshot.position)  # unless the writing fails
        if self._thread is None:
            self._write(self.folder, snapshot.position, memory, files)
        else:
            self._pending = self._thread.submit(self._write, self.folder, snapshot.position, memory, files)

    def wait(self) -> None:
        """Wait until all is on the disk.

        Raises:
            LogError: It could not be written; those before are whole.
        """
        self._settle()
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def held(self) -> tuple[Position, ...]:
        """Return the positions of the snapshots that are on the disk, whole and unchanged, oldest first.

        Each is read once to see; a damaged one is renamed to ``damaged-…`` and logged, and one that cannot be
        read at the moment is logged and left out.
        """
        self._settle()
        return tuple(position for position in self._found() if self._is_whole(position))

    def load(self, position: Position) -> Snapshot:
        """Return the snapshot at ``position``, on the CPU, its tensors aligned and on their own.

        Raises:
            LogError: There is none, or it is damaged.
        """
        self._settle()
        if self.folder is None or position not in self._found():
            raise LogError(
                f"there is no snapshot at {position}",
                got=", ".join(str(found) for found in self._found()) or "none at all",
                todo="go on from one that is held",
            )
        path = _path(self.folder, position)
        try:
            snapshot = _read(path, position)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            self._set_aside(path, position, error)
            raise LogError(
                f"the snapshot in {path} is damaged or cannot be read: {error}",
                todo="go on from one before it, or start anew",
            ) from error
        self._whole.add(position)
        return snapshot

    def last(self) -> Snapshot:
        """Return the newest whole snapshot; an empty one at the start if there is none."""
        self._settle()
        for position in reversed(self._found()):
            try:
                return self.load(position)
            except LogError:
                continue  # set aside and logged
        return Snapshot()

    def forget(self, before: Position) -> None:
        """Delete what is older than the newest whole snapshot at or before ``before``.

        That one stays, since a party that did nothing since then goes on from it.
        """
        earlier = [position for position in self._found() if position <= before]
        whole = next((position for position in reversed(earlier) if self._is_whole(position)), START)
        self._delete([position for position in earlier if position < whole])

    def rewind(self, position: Position) -> None:
        """Delete the snapshots after ``position``: what came after it is done once more, perhaps otherwise."""
        self._settle()
        later = [found for found in self._found() if found > position]
        self._delete(later)
        if later and self.folder is not None:
            with contextlib.suppress(
                OSError
            ):  # deleting goes on without; only a power cut could bring them back
                _sync(self.folder)

    def _settle(self) -> None:
        if self._pending is not None:
            wait([self._pending])

    def _write(self, folder: Path, position: Position, memory: str, files: list[_File]) -> None:
        path = _path(folder, position)
        new, old = path.with_name(path.name + _NEW), path.with_name(path.name + _OLD)
        try:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            _sync(folder.parent)
            _fill(new, position, memory, files)
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                os.replace(path, old)
            os.replace(new, path)
            _sync(folder)
        except Exception as error:
            self._whole.discard(position)
            _clean(folder)
            if not isinstance(error, OSError | SafetensorError):
                raise
            raise LogError(
                f"cannot write the snapshot at {position} to {path}: {error}",
                todo="make room on the disk or choose a folder you may write to, and resume; those before are whole",
            ) from error
        shutil.rmtree(old, ignore_errors=True)
        self._on_disk(position)

    def _found(self) -> list[Position]:
        """Return the positions of all snapshots on the disk, whole or not, oldest first."""
        if self.folder is None or not self.folder.is_dir():
            return []
        names = [_NAME.fullmatch(path.name) for path in self.folder.iterdir() if path.is_dir()]
        return sorted(Position(int(name[1]), int(name[2])) for name in names if name)

    def _is_whole(self, position: Position) -> bool:
        if position in self._whole or self.folder is None:
            return True
        path = _path(self.folder, position)
        try:
            _verify(path, position)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._set_aside(path, position, error)
            return False
        self._whole.add(position)
        return True

    def _set_aside(self, path: Path, position: Position, why: Exception) -> None:
        self._whole.discard(position)
        if isinstance(why, OSError) and not isinstance(why, _NOT_THERE):
            _logger.warning("the snapshot %s cannot be read: %s", path, why)
            return  # it may be whole: too many open files, a disk that is away for a moment
        taken = [p.name for p in path.parent.glob(f"{_DAMAGED}{path.name}*")]
        aside = path.with_name(f"{_DAMAGED}{path.name}" + (f".{len(taken)}" if taken else ""))
        try:
            os.replace(path, aside)
        except OSError as error:
            _logger.warning("the snapshot %s is damaged (%s) and cannot be set aside: %s", path, why, error)
        else:
            _logger.warning("the snapshot %s is damaged (%s); set aside as %s", path, why, aside.name)

    def _delete(self, positions: list[Position]) -> None:
        for position in positions:
            self._whole.discard(position)
            if self.folder is not None:
                path = _path(self.folder, position)
                # Renamed first: one that is half deleted is not a damaged one.
                gone = path.with_name(path.name + _GONE)
                try:
                    os.replace(path, gone)
                except OSError as error:
                    _logger.warning("cannot delete the snapshot %s: %s", path, error)
                shutil.rmtree(gone, ignore_errors=True)


def _path(folder: Path, position: Position) -> Path:
    return folder / f"{position.epoch}-{position.item}"


def _clean(folder: Path) -> None:
    """Remove what an interrupted write left, and bring back what it was about to replace."""
    if not folder.is_dir():
        return
    for new in folder.glob(f"*{_NEW}"):
        shutil.rmtree(new, ignore_errors=True)
    for old in folder.glob(f"*{_OLD}"):
        path = old.with_name(old.name.removesuffix(_OLD))
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.replace(old, path)


# Writing


def _files(states: Mapping[str, Mapping[str, State]], *, best: bool) -> list[_File]:
    """Return the files that hold ``states``, with copies of the tensors on the CPU."""
    return [
        _File(
            name=f"{quote(party, safe='')}{'+best' if best else ''}.safetensors",
            party=party,
            best=best,
            segments=tuple(segments),
            tensors={
                f"{number}/{name}": _copy(tensor)
                for number, state in enumerate(segments.values())
                for name, tensor in state.items()
            },
        )
        for party, segments in states.items()
    ]


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _fill(new: Path, position: Position, memory: str, files: list[_File]) -> None:
    """Write a snapshot's files to the folder ``new`` and make them safe on the disk."""
    noted = {}
    for file in files:
        path = new / file.name
        save_file(file.tensors, path)
        _sync(path)
        noted[file.name] = {
            "party": file.party,
            "best": file.best,
            "segments": file.segments,
            "size": path.stat().st_size,
            "sha256": _digest(path),
        }
    text = f'{{"position": "{position}", "memory": {memory}, "files": {json.dumps(noted)}'
    seal = hashlib.sha256(text.encode()).hexdigest()
    (new / _NOTE).write_text(f'{text}, "sha256": "{seal}"}}\n', encoding="utf-8")
    _sync(new / _NOTE)
    _sync(new)


def _sync(path: Path) -> None:
    """Have a file or folder on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Reading; what is wrong is a ValueError


def _note(path: Path, position: Position) -> dict[str, Any]:
    """Return what ``snapshot.json`` of the snapshot at ``path`` says, found unchanged."""
    match = _SEAL.fullmatch((path / _NOTE).read_bytes())
    if match is None or hashlib.sha256(match[1]).hexdigest() != match[2].decode():
        raise ValueError(f"{_NOTE} was changed or is torn")
    noted: dict[str, Any] = json.loads(match[1] + b"}")
    if noted["position"] != str(position):
        raise ValueError(f"it is the one at {noted['position']}")
    return noted


def _verify(path: Path, position: Position) -> None:
    for name, about in _note(path, position)["files"].items():
        _check(name, about, (path / name).stat().st_size, _digest(path / name))


def _check(name: str, about: Mapping[str, object], size: int, digest: str) -> None:
    if (about["size"], about["sha256"]) != (size, digest):
        raise ValueError(f"{name} has {size} bytes, SHA-256 {digest}; {_NOTE} says another content")


def _read(path: Path, position: Position) -> Snapshot:
    note = _note(path, position)
    states: dict[str, dict[str, State]] = {}
    best: dict[str, dict[str, State]] = {}
    for name, about in note["files"].items():
        content = (path / name).read_bytes()
        _check(name, about, len(content), hashlib.sha256(content).hexdigest())
        kept = best if about["best"] else states
        kept[about["party"]] = _segments(about["segments"], content)
    return Snapshot(position=position, states=states, best=best, memory=note["memory"])


def _segments(names: list[str], content: bytes) -> dict[str, State]:
    """Return the state of each segment; copies, since what is read lies at odd addresses, which changes results."""
    found: list[State] = [{} for _ in names]
    for key, tensor in load(content).items():
        number, _, name = key.partition("/")
        found[int(number)][name] = tensor.clone()
    return dict(zip(names, found, strict=True))
