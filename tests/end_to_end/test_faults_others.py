"""Other things that happen: two die at once, one stays away, snapshots tear, disks fill, clocks jump, frames repeat."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trial
from trial import Bench, Trial

from cutlayer.schedules.calendar import Leave

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with trial.bench(tmp_path_factory.mktemp("faults")) as made:
        yield made


def test_two_parties_and_then_host_and_client_are_killed_at_once(bench: Bench, tmp_path: Path) -> None:
    plan = {"server": [["gate:0:8", "gate:1:8"]]}
    with Trial(bench, bench.dealt("u-shape"), tmp_path, plan) as tried:
        tried.wait_at_gate("server")
        tried.kill("client-0")
        tried.kill("client-1")
        tried.open_gate("server")
        tried.wait_at_gate("server")
        tried.kill("server")
        tried.kill("client-2")
        tried.wait()
        tried.check()
        assert tried.kills == {"client-0": 1, "client-1": 1, "client-2": 1, "server": 1}


@pytest.mark.parametrize("party", ["lab", "server"])
def test_a_party_that_stays_away_is_waited_for_and_named(bench: Bench, party: str, tmp_path: Path) -> None:
    with Trial(bench, bench.dealt("vertical"), tmp_path, {party: [["gate:0:8"]]}) as tried:
        tried.wait_at_gate(party)
        tried.kill(party, stay_away=True)
        began = time.monotonic()
        tried.wait(lambda: time.monotonic() > began + 5)
        assert not any(code == 0 for code in tried.codes.values()), tried.output()
        if party == "lab":
            for other in ("clinic", "server"):
                assert tried.said(other, "waiting for lab")
        else:
            assert tried.said("clinic", "nobody listens at")
        tried.start(party)
        tried.wait()
        tried.check()


def test_a_torn_snapshot_is_gone_back_behind(bench: Bench, tmp_path: Path) -> None:
    plan = {"server": [["gate:0:10"], ["gate:1:10"]]}
    with Trial(bench, bench.dealt("vanilla"), tmp_path, plan) as tried:
        for _ in range(2):  # the second time, all begin from the position that is torn then
            tried.wait_at_gate("server")
            tried.kill("server", stay_away=True)
            tried.wait(lambda: "server" in tried.codes)
            newest = tried.snapshots("server")[-1]
            file = tried.out("server") / "snapshot" / "{}-{}".format(*newest) / "server.safetensors"
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
            tried.start("server")
        tried.wait()
        tried.check()
        assert len(list((tried.out("server") / "snapshot").glob("damaged-*"))) == 2


def test_a_party_without_its_snapshots_is_named_and_nothing_else_is_lost(
    bench: Bench, tmp_path: Path
) -> None:
    plan = {"server": [[f"gate:{epoch}:0" for epoch in range(1, 8)]]}
    with Trial(bench, bench.dealt("vertical", epochs=9), tmp_path, plan) as tried:
        _until_early_snapshots_may_go(tried)
        tried.kill("lab", stay_away=True)
        tried.wait(lambda: "lab" in tried.codes)
        tried.open_gate("server")
        kept = tried.out("lab") / "snapshot"
        shutil.move(kept, tmp_path / "kept")
        tried.start("lab")
        tried.wait(lambda: len([c for c in tried.codes.values() if c == 1]) == 3, failing=tried.parties)
        for party in tried.parties:
            assert "lab" in tried.log(party).read_text().partition("no snapshot in common")[2], tried.output()
        assert tried.weights() == {}
        shutil.rmtree(kept, ignore_errors=True)  # somebody finds them, and all start again
        shutil.move(tmp_path / "kept", kept)
        for party in tried.parties:
            tried.start(party)
        tried.wait()
        tried.check()


def _until_early_snapshots_may_go(tried: Trial) -> None:
    """Go on from gate to gate until nobody can begin again from nothing: the host looks every second."""
    roster = tried.out("server") / "roster.json"

    def may_go() -> bool:
        return bool(json.loads(roster.read_text())["kept"])

    while True:
        tried.wait_at_gate("server")
        until = time.monotonic() + 1.5
        tried.wait(lambda until=until: may_go() or time.monotonic() > until)
        if may_go():
            return
        tried.open_gate("server")


@pytest.mark.parametrize("party", ["client-0", "server"])
def test_a_full_disk_is_told_and_nothing_is_lost(bench: Bench, party: str, tmp_path: Path) -> None:
    with Trial(bench, bench.dealt("vanilla"), tmp_path, {party: [["disk:full:2"]]}) as tried:
        tried.wait(lambda: 1 in tried.codes.values(), failing=tried.parties)
        assert tried.codes[party] == 1
        assert tried.said(party, "make room on the disk"), tried.output()
        tried.start(party)  # after there is room again
        tried.wait()
        tried.check()


def test_clocks_that_jump_a_day_change_nothing(bench: Bench, tmp_path: Path) -> None:
    plan = {
        "server": [["clock:forward:86400"]],
        "client-1": [["clock:back:86400", "step:after:9"], ["clock:back:86400"]],
    }
    with Trial(bench, bench.dealt("u-shape"), tmp_path, plan) as tried:
        tried.wait()
        tried.check()


@pytest.mark.parametrize(("party", "how"), [("lab", "envelope:twice:3"), ("server", "envelope:swapped:40")])
def test_messages_that_come_twice_or_out_of_order_change_nothing(
    bench: Bench, party: str, how: str, tmp_path: Path
) -> None:
    with Trial(bench, bench.dealt("vertical"), tmp_path, {party: [[how]]}, patient=True) as tried:
        tried.wait()
        tried.check()
        assert ("out of order" in tried.output(200)) == (party == "server")


@pytest.mark.parametrize(("party", "how"), [("clinic", "frame:twice:9"), ("server", "frame:swapped:9")])
def test_a_frame_sent_twice_or_too_late_is_refused(
    bench: Bench, party: str, how: str, tmp_path: Path
) -> None:
    with Trial(bench, bench.dealt("vertical"), tmp_path, {party: [[how]]}, patient=True) as tried:
        tried.wait()
        tried.check()


@pytest.mark.parametrize("party", ["client-1", "server"])
def test_a_party_that_is_stopped_for_12_seconds_goes_on(bench: Bench, party: str, tmp_path: Path) -> None:
    with Trial(bench, bench.dealt("u-shape"), tmp_path, {"server": [["gate:1:0"]]}) as tried:
        tried.wait_at_gate("server")
        tried.signal(party, signal.SIGSTOP)
        tried.open_gate("server")
        began = time.monotonic()
        tried.wait(lambda: time.monotonic() > began + 12)
        tried.signal(party, signal.SIGCONT)
        tried.wait()
        tried.check()
        assert sum(tried.kills.values()) == 0


# Who does not come back


def test_stop_ends_the_study_with_the_name_of_who_is_missing(bench: Bench, tmp_path: Path) -> None:
    study = bench.dealt("vertical", network='absent = "stop"\nabsent_after_s = 1.0')
    with Trial(bench, study, tmp_path, {"clinic": [["gate:0:8"]]}) as tried:
        tried.wait_at_gate("clinic")
        tried.kill("clinic", stay_away=True)
        tried.wait(
            lambda: tried.codes.get("lab") == tried.codes.get("server") == 1, failing=("lab", "server")
        )
        for party in ("lab", "server"):
            assert tried.said(party, "clinic did not come back within 1 s")
        for party in tried.parties:
            tried.start(party)
        tried.wait()
        tried.check()


SKIP = 'absent = "skip"\nabsent_after_s = 1.0'


@pytest.mark.parametrize(("name", "op"), [("vanilla-relayed", "take:after:1"), ("u-shape", "step:after:3")])
def test_a_client_that_dies_with_the_state_is_skipped(
    bench: Bench, name: str, op: str, tmp_path: Path
) -> None:
    study = bench.dealt(name, network=SKIP)
    with Trial(bench, study, tmp_path, {"client-1": [[op]]}) as tried:
        tried.away.add("client-1")
        tried.wait(lambda: "client-1" in tried.codes)
        tried.wait()
        assert tried.said("server", "client-1: does not come back")
        leaves = _leaves(tried)
        assert [leave.turn for leave in leaves] == [1]
        assert trial.differing(bench.with_leaves(study, leaves), tried.weights()) == [], tried.output()


@pytest.mark.parametrize(("name", "party"), [("u-shape", "client-1"), ("vanilla", "client-2")])
def test_a_host_that_dies_when_somebody_is_skipped_goes_on_the_same(
    bench: Bench, name: str, party: str, tmp_path: Path
) -> None:
    study = bench.dealt(name, network=SKIP, every=1)
    plan = {party: [["step:after:3"]], "server": [["leaves:written:1"]]}
    with Trial(bench, study, tmp_path, plan) as tried:
        tried.away.add(party)
        tried.wait(lambda: party in tried.codes)
        tried.wait()
        assert tried.kills["server"] == 1
        assert trial.differing(bench.with_leaves(study, _leaves(tried)), tried.weights()) == [], (
            tried.output()
        )


def test_a_client_that_was_skipped_comes_back(bench: Bench, tmp_path: Path) -> None:
    study = bench.dealt("u-shape", network=SKIP, epochs=12)
    plan = {"client-1": [["step:after:9"]], "server": [["gate:3:0"]]}  # its ninth step is one of epoch 1
    with Trial(bench, study, tmp_path, plan) as tried:
        tried.away.add("client-1")
        tried.wait_at_gate("server")
        assert tried.said("server", "client-1: does not come back"), tried.output()
        _start_at_a_gate(tried, "client-1")
        tried.wait()
        leaves = _leaves(tried)
        assert tried.said("server", "client-1 joined"), tried.output()
        assert leaves[0].until <= 12, leaves
        assert trial.differing(bench.with_leaves(study, leaves), tried.weights()) == [], tried.output()


def test_a_client_comes_late(bench: Bench, tmp_path: Path) -> None:
    study = bench.dealt("u-shape", network=f'{SKIP}\nlate = ["client-2"]', epochs=12)
    plan, only = {"server": [["gate:1:0"]]}, ("server", "client-0", "client-1")
    with Trial(bench, study, tmp_path, plan, only) as tried:
        tried.wait_at_gate("server")
        _start_at_a_gate(tried, "client-2")
        tried.wait()
        leaves = _leaves(tried)
        assert leaves[0].turn == 2, leaves
        assert 0 < leaves[0].until <= 12, leaves
        assert trial.differing(bench.with_leaves(study, leaves), tried.weights()) == [], tried.output()


def test_a_party_that_dies_before_it_goes_back_behind_somebody_skipped(bench: Bench, tmp_path: Path) -> None:
    study = bench.dealt("vanilla", network=SKIP, every=1)
    plan = {"client-2": [["step:after:3"]], "client-1": [["rewind:before:2"]]}
    with Trial(bench, study, tmp_path, plan) as tried:
        tried.away.add("client-2")
        tried.wait(lambda: "client-2" in tried.codes)
        tried.wait()
        assert tried.kills["client-1"] == 1
        assert trial.differing(bench.with_leaves(study, _leaves(tried)), tried.weights()) == [], (
            tried.output()
        )


def test_a_host_that_dies_when_a_client_has_come_late_goes_on_the_same(bench: Bench, tmp_path: Path) -> None:
    study = bench.dealt("vanilla", network=f'{SKIP}\nlate = ["client-0"]', epochs=4, every=1)
    plan, only = {"server": [["gate:1:0", "leaves:ended:1"]]}, ("server", "client-1", "client-2")
    with Trial(bench, study, tmp_path, plan, only) as tried:
        tried.wait_at_gate("server")
        tried.wait(
            lambda: tried.snapshots("client-1")[-1:] == [(1, 2)]
        )  # ahead of the host, without client-0
        _start_at_a_gate(tried, "client-0")
        tried.wait()
        assert tried.kills["server"] == 1
        leaves = _leaves(tried)
        assert 0 < leaves[0].until < 4, leaves
        assert trial.differing(bench.with_leaves(study, leaves), tried.weights()) == [], tried.output()


def _start_at_a_gate(tried: Trial, party: str) -> None:
    """Start a party while the host stands at a gate, and let the host go on once that party has been welcomed."""
    before = tried.log(party).read_text().count("welcome") if tried.log(party).exists() else 0
    tried.start(party)
    tried.wait(lambda: tried.log(party).exists() and tried.log(party).read_text().count("welcome") > before)
    tried.open_gate("server")


def _leaves(tried: Trial) -> list[Leave]:
    """Return what the host remembers of turns that did not take place."""
    kept = json.loads((tried.out("server") / "roster.json").read_text())
    assert kept["finished"]
    return [Leave(*leave) for leave in kept["leaves"]]
