"""Snapshots on disk: each party's own segments and optimizer slots, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import LogError
from .live import State

__all__ = ["Snapshot", "Snapshots"]

_DONE = "snapshot.json"
_SUFFIX = ".safetensors"
_BEST = ".best.safetensors"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What is kept of all parties after an epoch.

    Attributes:
        epoch: The epoch that was done; -1 where there is no snapshot.
        states: By party, the state of each segment it has now.
        best: By party, the state of each segment as of the best epoch, with early stopping.
        memory: Numbers to go on with: the judge's, and which epoch was the best.
    """

    epoch: int = -1
    states: Mapping[str, Mapping[str, State]] = field(default_factory=dict)
    best: Mapping[str, Mapping[str, State]] = field(default_factory=dict)
    memory: Mapping[str, float] = field(default_factory=dict)


class Snapshots:
    """The last snapshot of a run: ``snapshot/<party>/<segment>.safetensors`` below the run's folder.

    A new one is written beside the old one and takes its place when it is complete, so a crash in
    the middle loses nothing.

    Args:
        folder: The run's folder; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def keep(self, snapshot: Snapshot) -> None:
        """Write ``snapshot``.

        Raises:
            LogError: The disk is full or not writable; the snapshot before is still whole.
        """
        if self.folder is None:
            return
        new, last, old = (self.folder / name for name in ("snapshot.new", "snapshot", "snapshot.old"))
        try:
            shutil.rmtree(new, ignore_errors=True)
            _write(new, snapshot.states, _SUFFIX)
            _write(new, snapshot.best, _BEST)
            noted = {"epoch": snapshot.epoch, "memory": dict(snapshot.memory), "files": _files(new)}
            (new / _DONE).write_text(json.dumps(noted))
            shutil.rmtree(old, ignore_errors=True)
            if last.exists():
                os.replace(last, old)
            os.replace(new, last)
            shutil.rmtree(old, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            raise LogError(
                f"cannot write the snapshot of epoch {snapshot.epoch} to {new}: {error}",
                todo="make room on the disk and resume; the snapshot before is whole",
            ) from error

    def last(self) -> Snapshot:
        """Return the last whole snapshot.

        Raises:
            LogError: It was damaged.
        """
        for name in ("snapshot", "snapshot.old"):
            path = self.folder / name if self.folder is not None else None
            if path is None or not (path / _DONE).is_file():
                continue
            try:
                noted = json.loads((path / _DONE).read_text())
                files = _files(path)
                if files != noted["files"]:
                    raise ValueError(f"it holds {len(files)} of {len(noted['files'])} files")
                states: dict[str, dict[str, State]] = {}
                best: dict[str, dict[str, State]] = {}
                for file in files:
                    party, segment = file.removesuffix(_SUFFIX).split("/")
                    kept = best if file.endswith(_BEST) else states
                    kept.setdefault(party, {})[segment.removesuffix(".best")] = load_file(path / file)
                return Snapshot(epoch=int(noted["epoch"]), states=states, best=best, memory=noted["memory"])
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                raise LogError(
                    f"the snapshot in {path} is damaged: {error}",
                    todo="delete that folder and start the run anew",
                ) from error
        return Snapshot()


def _write(folder: Path, states: Mapping[str, Mapping[str, State]], suffix: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for party, segments in states.items():
        for name, state in segments.items():
            path = folder / party / f"{name}{suffix}"
            path.parent.mkdir(exist_ok=True)
            save_file({key: tensor.detach().cpu().clone() for key, tensor in state.items()}, path)


def _files(folder: Path) -> list[str]:
    """Return the snapshot's files, ``party/segment.safetensors``."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob(f"*/*{_SUFFIX}"))
