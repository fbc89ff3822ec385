"""A run that goes on from a snapshot comes to the bits of a run that never broke off."""

import json
import resource
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from small_studies import pooled, study_of

import cutlayer as cl
from cutlayer.data import Holdings, Records
from cutlayer.errors import LogError, StudyError
from cutlayer.metering.events import encode_event
from cutlayer.metering.run_log import read_log
from cutlayer.runtime.positions import Position
from cutlayer.runtime.snapshots import Snapshots

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


def names(folder):
    return sorted(path.name for path in (folder / "snapshot").iterdir())


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


def test_a_run_whose_snapshot_is_damaged_starts_anew_and_says_so(tmp_path, caplog):
    broken_off(tmp_path, 2)
    (tmp_path / "snapshot/2-0/server.safetensors").write_bytes(b"torn")
    assert study().simulate(people(), out=tmp_path, resume=True).equals(study().simulate(people()))
    assert "2-0 is damaged" in caplog.text and names(tmp_path) == ["5-0", "damaged-2-0"]


@contextmanager
def files_of_at_most(size):
    """No file may grow beyond ``size`` bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


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
