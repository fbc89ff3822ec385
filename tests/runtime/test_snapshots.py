"""Snapshots on disk: whole and unchanged or not at all, whatever breaks off."""

import hashlib
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutlayer.errors import LogError
from cutlayer.runtime.positions import START, Position
from cutlayer.runtime.snapshots import Snapshot, Snapshots


def state(value, size=5):
    """A segment's state with tensors of odd sizes and of many types."""
    return {
        "weight/w": torch.full((size, 3), float(value)),
        "weight/b": torch.full((7,), value, dtype=torch.int16),
        "slot/0/step": torch.tensor(float(value)),
        "slot/0/half": torch.full((3, 3), value, dtype=torch.bfloat16),
        "weight/none": torch.empty(0, 4),
        "scalars": torch.tensor([value % 256] * 3, dtype=torch.uint8),
    }


def snapshot(epoch, item=0, value=None, **more):
    value = 100 * epoch + item if value is None else value
    states = {
        "client-0": {"head": state(value), "tail": state(value + 1)},
        "server": {"top": state(value + 2)},
    }
    return Snapshot(position=Position(epoch, item), states=states, memory={"value": value}, **more)


def same(one, other):
    def bits(states):
        return {(p, s): {k: (t.dtype, t.tolist()) for k, t in state.items()}
                for p, segments in states.items() for s, state in segments.items()}  # fmt: skip

    return (
        (one.position, dict(one.memory)) == (other.position, dict(other.memory))
        and bits(one.states) == bits(other.states)
        and bits(one.best) == bits(other.best)
    )


def names(folder):
    return sorted(path.name for path in (folder / "snapshot").iterdir())


@pytest.mark.parametrize("background", [False, True])
def test_what_was_kept_is_loaded_by_this_and_by_another_process(background, tmp_path):
    snapshots = Snapshots(tmp_path, background=background)
    written = [snapshot(0, 7, best={"server": {"top": state(9)}, "a/b ü": {}}), snapshot(0, 12), snapshot(1)]
    for one in written:
        snapshots.keep(one)
    snapshots.wait()
    for reader in (snapshots, Snapshots(tmp_path)):
        assert reader.held() == (Position(0, 7), Position(0, 12), Position(1, 0))
        assert all(same(reader.load(one.position), one) for one in written)
        assert same(reader.last(), written[-1])
    assert set(snapshots.load(Position(0, 7)).best) == {"server", "a/b ü"}


def test_without_a_folder_nothing_is_kept():
    snapshots = Snapshots(None, background=True)
    snapshots.keep(snapshot(3))
    snapshots.forget(Position(3, 0))
    snapshots.rewind(START)
    assert snapshots.last() == Snapshot() and snapshots.held() == ()


@pytest.mark.parametrize("background", [False, True])
def test_tensors_may_change_once_keep_returns(background, tmp_path):
    snapshots = Snapshots(tmp_path, background=background)
    tensor = torch.ones(1_000_000)
    for epoch in range(4):
        tensor.fill_(epoch)
        snapshots.keep(
            Snapshot(position=Position(epoch, 0), states={"a": {"s": {"w": tensor, "tied": tensor}}})
        )
        tensor.fill_(-1)
    for epoch in range(4):
        found = snapshots.load(Position(epoch, 0)).states["a"]["s"]
        assert (found["w"] == epoch).all() and (found["tied"] == epoch).all()


def test_views_and_transposed_tensors_are_kept(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    odd = {
        "t": base.t(),
        "row": base[1],
        "step": base[:, ::2],
        "same": base[0].expand(3, 6),
        "grad": base.clone().requires_grad_(),
    }
    Snapshots(tmp_path).keep(Snapshot(position=Position(1, 0), states={"a": {"s": odd}}))
    found = Snapshots(tmp_path).last().states["a"]["s"]
    assert all(torch.equal(found[name], odd[name]) for name in odd) and found.keys() == odd.keys()


def test_loaded_tensors_are_aligned_and_own_their_memory(tmp_path):
    """A tensor at another address than PyTorch's own changes the last bits of a matrix product."""
    Snapshots(tmp_path).keep(snapshot(1))
    loaded = Snapshots(tmp_path).last()
    tensors = [t for segments in loaded.states.values() for s in segments.values() for t in s.values()]
    assert len(tensors) == 18 and all(t.data_ptr() % 64 == 0 for t in tensors)
    assert all(t.untyped_storage().nbytes() == t.nbytes and t.untyped_storage().resizable() for t in tensors)


def test_memory_survives_to_the_last_bit(tmp_path):
    numbers = [0.1 + 0.2, 5e-324, -0.0, math.inf, -math.inf, 2**70, 1.7976931348623157e308]
    memory = {
        "numbers": numbers,
        "nan": math.nan,
        "text": 'ü", "sha256": "',
        "deep": {"list": [[], {}, None, True]},
    }
    Snapshots(tmp_path).keep(Snapshot(position=Position(1, 0), memory=memory))
    found = dict(Snapshots(tmp_path).last().memory)
    assert math.isnan(found.pop("nan")) and repr(found) == repr(
        {k: v for k, v in memory.items() if k != "nan"}
    )


def test_one_at_the_same_position_is_replaced(tmp_path):
    snapshots = Snapshots(tmp_path)
    snapshots.keep(snapshot(1, 5, value=1))
    snapshots.keep(snapshot(1, 5, value=2))
    assert same(snapshots.last(), snapshot(1, 5, value=2)) and names(tmp_path) == ["1-5"]


PLACES = st.sets(st.builds(Position, st.integers(0, 3), st.integers(0, 3)), max_size=5)


@settings(max_examples=25, deadline=None)
@given(PLACES, st.builds(Position, st.integers(0, 3), st.integers(0, 3)), st.booleans())
def test_forget_keeps_the_newest_at_or_before_and_rewind_nothing_after(places, place, again):
    with tempfile.TemporaryDirectory() as folder:
        snapshots = Snapshots(Path(folder))
        for position in places:
            snapshots.keep(Snapshot(position=position))
        if again:
            snapshots = Snapshots(Path(folder))
        snapshots.forget(place)
        floor = max((p for p in places if p <= place), default=START)
        assert set(snapshots.held()) == {p for p in places if p >= floor}
        snapshots.rewind(place)
        assert set(snapshots.held()) == {p for p in places if p == floor}


def test_a_damaged_one_is_not_what_forget_relies_on(tmp_path, caplog):
    for item in (1, 2, 3):
        Snapshots(tmp_path).keep(snapshot(0, item))
    _cut(tmp_path / "snapshot/0-2/server.safetensors")
    snapshots = Snapshots(tmp_path)
    snapshots.forget(Position(0, 2))
    assert snapshots.held() == (Position(0, 1), Position(0, 3)) and "0-2 is damaged" in caplog.text


def test_what_an_interrupted_write_left_is_cleaned_away(tmp_path):
    Snapshots(tmp_path).keep(snapshot(1))
    Snapshots(tmp_path).keep(snapshot(2))
    folder = tmp_path / "snapshot"
    shutil.copytree(folder / "2-0", folder / "3-0.new")
    shutil.copytree(folder / "2-0", folder / "2-0.old")
    (folder / "1-0").rename(folder / "1-0.old")
    assert Snapshots(tmp_path).held() == (Position(1, 0), Position(2, 0))
    assert names(tmp_path) == ["1-0", "2-0"]
    (folder / "notes.txt").write_text("somebody's")
    for other in ("other", "07-1", "7-1.tmp"):
        (folder / other).mkdir()
    assert same(Snapshots(tmp_path).last(), snapshot(2)) and (folder / "notes.txt").exists()


# Damage


def _cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def _append(path):
    path.write_bytes(path.read_bytes() + b"\0")


def _note(folder, **more):
    """Write a note that is sealed rightly but says something else."""
    text = json.dumps({"position": "2/0", "memory": {}, "files": {}} | more)[:-1]
    seal = hashlib.sha256(text.encode()).hexdigest()
    (folder / "snapshot.json").write_text(f'{text}, "sha256": "{seal}"}}\n')


DAMAGES = {
    "a file is cut": lambda s: _cut(s / "server.safetensors"),
    "a file is empty": lambda s: (s / "server.safetensors").write_bytes(b""),
    "a file is longer": lambda s: _append(s / "server.safetensors"),
    "a file is no safetensors": lambda s: (s / "server.safetensors").write_bytes(b"\x80\x04pickle"),
    "a file is missing": lambda s: (s / "server.safetensors").unlink(),
    "two files are swapped": lambda s: shutil.copy(s / "client-0.safetensors", s / "server.safetensors"),
    "a file is a folder": lambda s: ((s / "server.safetensors").unlink(), (s / "server.safetensors").mkdir()),
    "the note is missing": lambda s: (s / "snapshot.json").unlink(),
    "the note is cut": lambda s: _cut(s / "snapshot.json"),
    "the note is no mapping": lambda s: (s / "snapshot.json").write_text("[]"),
    "the note is of another": lambda s: _note(s, position="1/0"),
    "the note lacks what a file is": lambda s: _note(s, files={"server.safetensors": {}}),
    "it is another one's folder": lambda s: (shutil.rmtree(s), shutil.copytree(s.with_name("1-0"), s)),
}


@pytest.mark.parametrize("look", ["held", "load", "last"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_set_aside_and_the_one_before_goes(damage, look, tmp_path, caplog):
    Snapshots(tmp_path).keep(snapshot(1))
    Snapshots(tmp_path).keep(snapshot(2))
    DAMAGES[damage](tmp_path / "snapshot/2-0")
    snapshots = Snapshots(tmp_path)
    if look == "held":
        assert snapshots.held() == (Position(1, 0),)
    elif look == "load":
        with pytest.raises(
            LogError,
            match=r"the snapshot in .*2-0 is damaged or cannot be read: .*; go on from one before it",
        ):
            snapshots.load(Position(2, 0))
    assert same(snapshots.last(), snapshot(1))
    assert names(tmp_path) == ["1-0", "damaged-2-0"] and caplog.text.count("set aside as damaged-2-0") == 1
    with pytest.raises(LogError, match=r"no snapshot at 2/0; got 1/0; go on from one that is held"):
        snapshots.load(Position(2, 0))
    snapshots.keep(snapshot(2))
    DAMAGES[damage](tmp_path / "snapshot/2-0")
    assert Snapshots(tmp_path).held() == (Position(1, 0),)
    assert names(tmp_path) == ["1-0", "damaged-2-0", "damaged-2-0.1"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for epoch in (1, 2):
        Snapshots(folder).keep(snapshot(epoch))
    return folder


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_no_changed_bit_and_no_torn_end_goes_unnoticed(whole, data):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(whole, Path(place) / "run"))
        path = data.draw(st.sampled_from(sorted((folder / "snapshot/2-0").iterdir())))
        content = bytearray(path.read_bytes())
        where = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[where] ^= 1 << data.draw(st.integers(0, 7))
        else:
            del content[where:]
        path.write_bytes(content)
        snapshots = Snapshots(folder)
        assert data.draw(st.booleans()) or snapshots.held() == (Position(1, 0),)
        assert same(snapshots.last(), snapshot(1))


def test_one_damaged_after_it_was_looked_at_is_still_found_out(tmp_path):
    snapshots = Snapshots(tmp_path)
    snapshots.keep(snapshot(1))
    assert snapshots.held() == (Position(1, 0),)
    _cut(tmp_path / "snapshot/1-0/server.safetensors")
    with pytest.raises(LogError, match="is damaged"):
        snapshots.load(Position(1, 0))
    assert snapshots.held() == ()


def test_one_that_cannot_be_read_for_a_moment_is_left_where_it_is(tmp_path, caplog):
    """As with too many open files, or a disk that is away."""
    for epoch in (1, 2):
        Snapshots(tmp_path).keep(snapshot(epoch))
    note, away = tmp_path / "snapshot/2-0/snapshot.json", tmp_path / "away"
    note.rename(away)
    note.symlink_to(note)
    snapshots = Snapshots(tmp_path)
    assert snapshots.held() == (Position(1, 0),) and "2-0 cannot be read" in caplog.text
    assert same(snapshots.last(), snapshot(1))
    away.replace(note)
    assert snapshots.held() == (Position(1, 0), Position(2, 0)) and same(snapshots.last(), snapshot(2))


def test_a_tensor_that_no_file_can_hold_leaves_nothing(tmp_path):
    snapshots = Snapshots(tmp_path, background=True)
    odd = torch.zeros(3, dtype=torch.complex128)
    snapshots.keep(Snapshot(position=Position(1, 0), states={"a": {"s": {"w": odd}}}))
    with pytest.raises((KeyError, TypeError, ValueError, LogError)):
        snapshots.wait()
    assert snapshots.held() == () and names(tmp_path) == []


# A full disk


@contextmanager
def files_of_at_most(size):
    """No file may grow beyond ``size`` bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_leaves_the_snapshot_before(background, tmp_path):
    snapshots = Snapshots(tmp_path, background=background)
    snapshots.keep(snapshot(1))
    snapshots.wait()
    message = r"cannot write the snapshot at 1/7 to .*1-7: .*; make room on the disk"
    with files_of_at_most(500), pytest.raises(LogError, match=message):
        snapshots.keep(snapshot(1, 7))
        snapshots.wait()
    assert names(tmp_path) == ["1-0"] and snapshots.held() == (Position(1, 0),)
    assert same(snapshots.last(), snapshot(1))
    snapshots.keep(snapshot(1, 7))
    assert same(snapshots.last(), snapshot(1, 7))


def test_a_full_disk_leaves_what_was_to_be_replaced(tmp_path):
    snapshots = Snapshots(tmp_path)
    snapshots.keep(snapshot(1, value=1))
    with files_of_at_most(500), pytest.raises(LogError):
        snapshots.keep(snapshot(1, value=2))
    assert same(snapshots.last(), snapshot(1, value=1)) and names(tmp_path) == ["1-0"]


def test_what_went_wrong_in_the_background_is_raised_by_the_next_keep_once(tmp_path):
    snapshots = Snapshots(tmp_path, background=True)
    with files_of_at_most(500):
        snapshots.keep(snapshot(1))
        assert snapshots.held() == ()
    with pytest.raises(LogError, match="snapshot at 1/0"):
        snapshots.keep(snapshot(2))
    snapshots.keep(snapshot(3))
    snapshots.wait()
    assert snapshots.held() == (Position(3, 0),)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "snapshot").write_text("in the way")
    with pytest.raises(
        LogError, match=r"cannot write the snapshot at 1/0 .*choose a folder you may write to"
    ):
        Snapshots(tmp_path).keep(snapshot(1))
    assert Snapshots(tmp_path).last() == Snapshot()


SMALL_DISK = """
import sys
from pathlib import Path
import torch
from cutlayer.errors import LogError
from cutlayer.runtime.positions import Position
from cutlayer.runtime.snapshots import Snapshot, Snapshots

folder = Path(sys.argv[1])
ballast = folder / "ballast"
ballast.write_bytes(bytes(3_000_000))
for background in (False, True):
    snapshots = Snapshots(folder / str(background), background=background)

    def keep(epoch, size):
        tensors = {"w": torch.full((size,), float(epoch))}
        snapshots.keep(Snapshot(position=Position(epoch, 0), states={"a": {"s": tensors}}))
        snapshots.wait()

    keep(1, 100_000)
    try:
        keep(2, 1_000_000)
    except LogError as error:
        print(error)
    assert snapshots.held() == (Position(1, 0),), snapshots.held()
    assert (snapshots.last().states["a"]["s"]["w"] == 1).all()
    assert [p.name for p in snapshots.folder.iterdir()] == ["1-0"]
    ballast.unlink()
    keep(2, 1_000_000)
    assert (snapshots.last().states["a"]["s"]["w"] == 2).all()
    snapshots.rewind(Position(0, 0))
    ballast.write_bytes(bytes(3_000_000))
"""


def test_a_disk_that_is_really_full(tmp_path):
    """A disk of 5 MB in memory, which only this subprocess sees."""
    mount = 'mount -t tmpfs -o size=5m none "$1" && echo mounted && exec "$2" -c "$3" "$1"'
    call = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        mount,
        "sh",
        str(tmp_path),
        sys.executable,
        SMALL_DISK,
    ]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("unshare is not installed (Debian, Ubuntu: apt install util-linux)")
    if "mounted" not in done.stdout:
        pytest.skip(
            f"no disk can be mounted here ({done.stderr.strip()}): run as root, or allow user namespaces"
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("No space left on device") == 2


# kill -9

WRITER = """
import os, sys
from pathlib import Path
import torch
from cutlayer.runtime.positions import Position
from cutlayer.runtime.snapshots import Snapshot, Snapshots

def write(folder, mode, number):
    snapshots = Snapshots(folder, background=mode == "background")
    while True:
        value = torch.full((200_000,), float(number))
        place = Position(5, 5) if mode == "in place" else Position(0, number)
        states = {party: {"s": {"w": value + k}} for k, party in enumerate(("a", "b"))}
        snapshots.keep(Snapshot(position=place, states=states, memory={"number": number}))
        snapshots.forget(place)
        os.write(1, f"kept {number}\\n".encode())
        number += 1

torch.set_num_threads(1)
for line in sys.stdin:
    child = os.fork()
    if not child:
        write(Path(sys.argv[1]), sys.argv[2], int(line))
    os.write(1, f"child {child}\\n".encode())
    os.waitpid(child, 0)
    os.write(1, b"dead\\n")
"""


@pytest.mark.parametrize("mode", ["in turn", "in place", "background"])
def test_a_writer_killed_at_any_moment_leaves_a_whole_snapshot(mode, tmp_path):
    """Each line the writer says is a snapshot kept, or in the background: the one before it."""
    chance = random.Random(mode)
    call = [sys.executable, "-c", WRITER, str(tmp_path), mode]
    number, left_over = 1, set()
    with subprocess.Popen(
        call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as writer:
        for _ in range(20):
            writer.stdin.write(f"{number}\n")
            said = {"child": [], "kept": []}
            while not said["child"] or len(said["kept"]) < 2:
                what, word = writer.stdout.readline().split()
                said[what].append(int(word))
            time.sleep(chance.uniform(0, 0.02))
            os.kill(said["child"][0], signal.SIGKILL)
            kept = said["kept"] + [int(line.split()[1]) for line in iter(writer.stdout.readline, "dead\n")]
            left_over |= {Path(name).suffix for name in names(tmp_path)}
            found = Snapshots(tmp_path).last()
            number = found.memory["number"]
            assert kept[-1] - (mode == "background") <= number <= kept[-1] + 1
            assert [(found.states[p]["s"]["w"] == number + k).all() for k, p in enumerate("ab")] == [
                True,
                True,
            ]
            assert not [name for name in names(tmp_path) if not re.fullmatch(r"\d+-\d+", name)]
            number += 1
        writer.stdin.close()
    assert ".new" in left_over  # it was hit while it wrote
