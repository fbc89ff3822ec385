"""Snapshots on disk: each party's own segments and optimizer slots, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import LogError
from .live import LiveSegment, State

__all__ = ["Snapshots"]

_DONE = "snapshot.json"
_SUFFIX = ".safetensors"


class Snapshots:
    """The last snapshot of a run: ``snapshot/<party>/<segment>.safetensors`` below the run's folder.

    A new one is written beside the old one and takes its place when it is complete, so a crash in
    the middle loses nothing.

    Args:
        folder: The run's folder; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def keep(self, epoch: int, live: Mapping[str, Mapping[str, LiveSegment]]) -> None:
        """Write what each party holds after ``epoch``.

        Raises:
            LogError: The disk is full or not writable; the snapshot before is still whole.
        """
        if self.folder is None:
            return
        new, last, old = (self.folder / name for name in ("snapshot.new", "snapshot", "snapshot.old"))
        try:
            shutil.rmtree(new, ignore_errors=True)
            for party, segments in live.items():
                for name, segment in segments.items():
                    path = new / party / f"{name}{_SUFFIX}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    save_file({k: t.detach().cpu().clone() for k, t in segment.state().items()}, path)
            new.mkdir(parents=True, exist_ok=True)
            (new / _DONE).write_text(json.dumps({"epoch": epoch, "files": _files(new)}))
            shutil.rmtree(old, ignore_errors=True)
            if last.exists():
                os.replace(last, old)
            os.replace(new, last)
            shutil.rmtree(old, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            raise LogError(
                f"cannot write the snapshot of epoch {epoch} to {new}: {error}",
                todo="make room on the disk and resume; the snapshot before is whole",
            ) from error

    def last(self) -> tuple[int, dict[str, dict[str, State]]]:
        """Return the epoch of the last whole snapshot and each party's segments in it; epoch -1 where there is none.

        Raises:
            LogError: It was damaged.
        """
        for name in ("snapshot", "snapshot.old"):
            path = self.folder / name if self.folder is not None else None
            if path is None or not (path / _DONE).is_file():
                continue
            try:
                noted = json.loads((path / _DONE).read_text())
                epoch, files = int(noted["epoch"]), _files(path)
                if files != noted["files"]:
                    raise ValueError(f"it holds {len(files)} of {len(noted['files'])} files")
                states: dict[str, dict[str, State]] = {}
                for file in files:
                    party, segment = file.removesuffix(_SUFFIX).split("/")
                    states.setdefault(party, {})[segment] = load_file(path / file)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                raise LogError(
                    f"the snapshot in {path} is damaged: {error}",
                    todo="delete that folder and start the run anew",
                ) from error
            return epoch, states
        return -1, {}


def _files(folder: Path) -> list[str]:
    """Return the snapshot's files, ``party/segment.safetensors``."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob(f"*/*{_SUFFIX}"))
