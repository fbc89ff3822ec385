"""Which snapshots a party holds and which it lets go, on a real disk."""

from __future__ import annotations

import pytest
import torch

from cutlayer.runtime.positions import START, Position
from cutlayer.runtime.snapshots import Snapshot
from cutlayer.sessions.keeping import Keeping


def kept(folder, *positions) -> tuple[Keeping, list]:
    told = []
    keeping = Keeping(folder, lambda: told.append(keeping.places))
    for position in positions:
        state = {"p": {"head": {"weight/w": torch.full((3,), float(position.item))}}}
        keeping.snapshots.keep(Snapshot(position=position, states=state, memory={"item": position.item}))
    keeping.snapshots.wait()
    return keeping, told


def on_disk(folder) -> list[str]:
    return sorted(path.name for path in (folder / "snapshot").iterdir())


POSITIONS = [Position(0, item) for item in (2, 4, 6, 8)]


def test_each_is_told_of_once_it_is_safe(tmp_path):
    keeping, told = kept(tmp_path, *POSITIONS[:2])
    assert told == [[(0, 2)], [(0, 2), (0, 4)]] == [told[0], keeping.places]


def test_another_process_finds_them(tmp_path):
    kept(tmp_path, *POSITIONS)
    again, _ = kept(tmp_path)
    assert again.places == []
    again.look()
    assert again.places == [(0, 2), (0, 4), (0, 6), (0, 8)]


def test_what_nobody_goes_back_to_is_deleted(tmp_path):
    keeping, _ = kept(tmp_path, *POSITIONS)
    keeping.let_old_ones_go()
    assert len(on_disk(tmp_path)) == 4 and not keeping.is_gone(START)
    keeping.keep_from(Position(0, 7))
    keeping.keep_from(Position(0, 1))  # never back
    keeping.let_old_ones_go()
    assert on_disk(tmp_path) == ["0-6", "0-8"] and keeping.places == [(0, 6), (0, 8)]
    assert keeping.is_gone(Position(0, 5)) and not keeping.is_gone(Position(0, 6))


@pytest.mark.parametrize("item, newest", [(1, 0), (4, 4), (5, 4), (9, 8)])
def test_going_back_takes_the_newest_before(tmp_path, item, newest):
    keeping, _ = kept(tmp_path, *POSITIONS)
    snapshot = keeping.at(Position(0, item))
    assert snapshot.position == Position(0, item)
    assert snapshot.memory.get("item", 0) == newest
    assert all(place[1] <= item for place in keeping.places)


def test_after_the_end_only_the_last_is_kept(tmp_path):
    keeping, _ = kept(tmp_path, *POSITIONS)
    keeping.keep_the_last()
    assert on_disk(tmp_path) == ["0-8"] and keeping.places == [(0, 8)]
    assert keeping.at(Position(0, 8)).memory == {"item": 8}


def test_after_the_end_a_damaged_last_one_does_not_take_the_others_along(tmp_path):
    kept(tmp_path, *POSITIONS)
    (tmp_path / "snapshot" / "0-8" / "p.safetensors").write_bytes(b"torn")
    keeping, _ = kept(tmp_path)
    keeping.keep_the_last()
    assert on_disk(tmp_path) == ["0-6", "damaged-0-8"]


def test_the_end_while_one_is_being_written(tmp_path):
    keeping, _ = kept(tmp_path, *POSITIONS[:2])
    big = {"p": {"head": {"weight/w": torch.zeros(2_000_000)}}}
    keeping.snapshots.keep(Snapshot(position=POSITIONS[2], states=big))
    keeping.keep_the_last()
    assert on_disk(tmp_path) == ["0-6"]


def test_nothing_to_keep(tmp_path):
    keeping, _ = kept(tmp_path)
    keeping.keep_the_last()
    assert keeping.places == [] and not keeping.is_gone(START)
