"""What the host remembers: read as it was written, safe on the disk, and never guessed where it is damaged."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cutlayer.errors import LogError
from cutlayer.schedules import Leave
from cutlayer.sessions.messages import Offer
from cutlayer.sessions.remembered import Roster, read_roster, write_roster

ROSTER = Roster(
    generation=7,
    kept=True,
    offers={"client-0": Offer(rows={"train": 20}, ids={"train": "0" * 64})},
    absent=["client-1"],
    leaves=[Leave(1, 2, 3)],
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_roster(tmp_path) is None
    write_roster(tmp_path, ROSTER)
    assert read_roster(tmp_path) == ROSTER


def test_a_loss_of_power_brings_no_older_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noting(handle: int) -> None:
        synced.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def replacing(*paths: Path) -> None:
        synced.append("replaced")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(os, "replace", replacing)
    write_roster(tmp_path, ROSTER)
    assert synced == ["file", "replaced", "folder"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"generation": "x"}', '{"generation": 1, "kept": true, "finished": false}']
)
def test_a_damaged_one_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "roster.json").write_text(text)
    with pytest.raises(LogError, match=r"roster\.json cannot be read"):
        read_roster(tmp_path)


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"cannot write .*roster\.json"):
        write_roster(tmp_path / "nowhere", ROSTER)
