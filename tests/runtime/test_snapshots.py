"""Snapshots: whole or not at all; a run that goes on from one comes to the bits of a run that never broke off."""

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
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_studies import pooled, study_of

import cutlayer as cl
from cutlayer.data import Holdings, Records
from cutlayer.errors import LogError, StudyError
from cutlayer.metering.events import encode_event
from cutlayer.metering.run_log import read_log
from cutlayer.runtime.positions import START, Position
from cutlayer.runtime.snapshots import Snapshot, Snapshots

NET = cl.networks.mlp((6, 8, 7, 3), dropout=0.3)


class Broken(Exception):
    """Stands for the power cut."""


@dataclass(frozen=True, kw_only=True)
class Fragile(cl.RoundRobin):
    """Round robin that breaks off in one epoch: while it trains, after that, or after its evaluation."""

    at_epoch: int
    place: str = "training"

    def epoch(self, graph, calendar, epoch):
        for number, item in enumerate(super().epoch(graph, calendar, epoch)):
            if (epoch, self.place, number) == (self.at_epoch, "training", 3):
                raise Broken
            yield item

    def evaluation(self, graph, calendar, epoch, split):
        if (epoch, self.place) == (self.at_epoch, "trained"):
            raise Broken
        yield from super().evaluation(graph, calendar, epoch, split)
        if (epoch, self.place) == (self.at_epoch, "evaluated"):
            raise Broken


@cache
def people():
    return pooled(30)[0].split_rows(3)


@cache
def graph(name):
    if name == "vanilla":
        return cl.vanilla(NET, "linear2", clients=people())
    return cl.u_shaped(NET, ("linear1", "linear2"), clients=people())


def study(name="vanilla", **more):
    schedule = cl.optim.StepLR(step_size=2, gamma=0.5)
    settings = {"optimizer": cl.optim.Adam(lr=0.05, schedule=schedule), "epochs": 5, "metrics": ("loss",)}
    return study_of(graph(name), **(settings | more))


def broken_off(out, at_epoch, place="training", *, resume=False, name="vanilla", **schedule):
    fragile = study(name, schedule=Fragile(at_epoch=at_epoch, place=place, **schedule))
    with pytest.raises(Broken):
        fragile.simulate(people(), out=out, resume=resume)


def said(events):
    """What a log says, but for the times; counts of one epoch come in the order in which they were first made."""
    times = ("seconds", "started", "peak_memory_bytes")
    lines = [json.loads(encode_event(event)) for event in events]
    return sorted(json.dumps({k: v for k, v in line.items() if k not in times}) for line in lines)


@pytest.mark.parametrize("name", ["vanilla", "u_shaped"])
@pytest.mark.parametrize("handover", ["peer", "server"])
@pytest.mark.parametrize("at_epoch", [0, 1, 3])
def test_a_run_that_goes_on_comes_to_the_same_bits(name, handover, at_epoch, tmp_path):
    schedule = cl.RoundRobin(handover=handover, turn=1)
    whole = study(name, schedule=schedule).simulate(people(), out=tmp_path / "whole")
    broken_off(tmp_path / "broken", at_epoch, name=name, handover=handover, turn=1)
    resumed = study(name, schedule=schedule).simulate(people(), out=tmp_path / "broken", resume=True)
    assert resumed.equals(whole)
    assert torch.equal(resumed.predict(torch.ones(2, 6)), whole.predict(torch.ones(2, 6)))


def test_it_may_break_off_more_than_once(tmp_path):
    whole = study().simulate(people())
    broken_off(tmp_path, 1)
    for at_epoch, place in ((2, "trained"), (2, "training"), (4, "evaluated")):
        broken_off(tmp_path, at_epoch, place, resume=True)
    assert study().simulate(people(), out=tmp_path, resume=True).equals(whole)


@pytest.mark.parametrize("place", ["training", "trained", "evaluated"])
def test_the_log_of_a_resumed_run_says_everything_once(place, tmp_path):
    whole = study().simulate(people(), out=tmp_path / "whole")
    broken_off(tmp_path / "broken", 2, place)
    resumed = study().simulate(people(), out=tmp_path / "broken", resume=True)
    assert said(resumed.events) == said(whole.events)
    assert said(read_log(tmp_path / "broken")) == said(whole.events)


def test_a_finished_run_that_is_resumed_stays_as_it_is(tmp_path):
    whole = study().simulate(people(), out=tmp_path)
    again = study().simulate(people(), out=tmp_path, resume=True)
    assert again.equals(whole)
    assert [e.kind for e in read_log(tmp_path)].count("ended") == 1
    assert again.events[-2].epochs == 5


def test_resuming_where_nothing_is_starts_from_the_beginning(tmp_path):
    assert study().simulate(people(), out=tmp_path / "new", resume=True).equals(study().simulate(people()))


def test_another_study_is_not_resumed(tmp_path):
    study().simulate(people(), out=tmp_path)
    for other in (
        study(seed=8),
        study(batch_size=6),
        study("u_shaped"),
        study(optimizer=cl.optim.SGD(lr=0.1)),
    ):
        with pytest.raises(StudyError, match="the run in that folder is of another study; got digest"):
            other.simulate(people(), out=tmp_path, resume=True)
    with pytest.raises(StudyError, match="resume needs the folder"):
        study().simulate(people(), resume=True)


def renamed(holdings):
    """The same rows with other ids."""
    parties = {
        p.name: {split: Records(r.ids + 1000, r.fields) for split, r in p.splits.items()}
        for p in holdings.parties
    }
    return Holdings.of(parties, {p.name: p.role for p in holdings.parties})


@pytest.mark.parametrize(
    "other",
    [
        lambda: pooled(27)[0].split_rows(3),
        lambda: pooled(30, test=5)[0].split_rows(3),
        lambda: renamed(people()),
    ],
    ids=["fewer rows", "fewer test rows", "other ids"],
)
def test_a_run_is_not_resumed_with_other_data(other, tmp_path):
    broken_off(tmp_path, 2)
    written = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(StudyError, match="the run in that folder was trained on other data; got rows"):
        study().simulate(other(), out=tmp_path, resume=True)
    assert (tmp_path / "log.jsonl").read_bytes() == written
    assert study().simulate(people(), out=tmp_path, resume=True).equals(study().simulate(people()))


# Files


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


def test_each_party_has_a_file_of_its_own_in_the_folder_of_the_position(tmp_path):
    study(epochs=2, early_stopping=cl.EarlyStopping(split="train"), evaluate=("train",)).simulate(
        people(), out=tmp_path
    )
    last = Snapshots(tmp_path).last()
    assert names(tmp_path) == ["2-0"]
    files = {path.name for path in (tmp_path / "snapshot/2-0").iterdir()}
    assert last.position == Position(2, 0)
    assert {p: list(segments) for p, segments in last.states.items()} == {
        "client-2": ["head"],
        "server": ["top"],
    }
    assert files == {"snapshot.json"} | {
        f"{party}{best}.safetensors" for party in ("client-2", "server") for best in ("", "+best")
    }
    noted = json.loads((tmp_path / "snapshot/2-0/snapshot.json").read_text())
    assert (noted["position"], list(noted)[-1], set(noted["files"])) == (
        "2/0",
        "sha256",
        files - {"snapshot.json"},
    )


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
    (folder / "other").mkdir()
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
        with pytest.raises(LogError, match=r"the snapshot in .*2-0 is damaged: .*; go on from one before it"):
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


def test_a_run_whose_snapshot_is_damaged_starts_anew_and_says_so(tmp_path, caplog):
    broken_off(tmp_path, 2)
    _cut(tmp_path / "snapshot/2-0/server.safetensors")
    assert study().simulate(people(), out=tmp_path, resume=True).equals(study().simulate(people()))
    assert "2-0 is damaged" in caplog.text and names(tmp_path) == ["5-0", "damaged-2-0"]


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
    call = ["unshare", "-m", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, SMALL_DISK]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if "mounted" not in done.stdout:
        pytest.skip("not allowed to mount a disk here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("No space left on device") == 2


@dataclass(frozen=True, kw_only=True)
class DiskFills(cl.RoundRobin):
    """The disk is full from the third epoch on."""

    def epoch(self, graph, calendar, epoch):
        if epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
        yield from super().epoch(graph, calendar, epoch)


def test_a_full_disk_in_the_middle_of_a_run_can_be_gone_on_from(tmp_path):
    whole = study().simulate(people())
    with pytest.raises(LogError, match="make room on the disk"), files_of_at_most(resource.RLIM_INFINITY):
        study(schedule=DiskFills()).simulate(people(), out=tmp_path)
    assert read_log(tmp_path)[-1].epoch == 1
    assert study().simulate(people(), out=tmp_path, resume=True).equals(whole)


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
