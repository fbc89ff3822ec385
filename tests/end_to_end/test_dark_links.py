"""Links that go dark, lose packets, are slow or half-open: training goes on soon, no step lost, none done twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import far_parties
import pytest
import trial
from far_parties import FarBench, FarTrial, two_hosts
from middlebox import Detoured
from party_studies import write_study
from trial import Bench

from cutlayer.study_file import load_study

WIDE = """
from torch import nn

def network():
    return nn.Sequential(nn.Linear(12, {width}), nn.ReLU(), nn.Linear({width}, 16), nn.ReLU(), nn.Linear(16, 3))
"""
"""With the cut "1" an activation has ``width`` numbers a row, with "3" the client's half 29 times ``width``."""

far = pytest.mark.skipif(
    bool(two_hosts.why_not()),
    reason=f"{two_hosts.why_not()}: run as root (sudo) on Linux, after `apt install iproute2` and `modprobe tun`",
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with trial.bench(tmp_path_factory.mktemp("near")) as made:
        yield made


def wide_study(folder: Path, width: int, cut: str, **changes: object) -> Path:
    """Write a study with a wide network and deal it; return its folder."""
    file = write_study(folder, "vanilla", cuts=f'cut = "{cut}"', **changes)
    (folder / "model.py").write_text(WIDE.format(width=width))
    load_study(file).deal(folder / "dealt")
    return folder


@pytest.fixture
def lit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FarBench]:
    """A bench on two hosts; its parameter is the wire between them."""
    with two_hosts.TwoHosts(getattr(request, "param", None)) as hosts:
        made = FarBench(tmp_path / "far", hosts)
        yield made
        made.close()


# On one machine


@pytest.mark.long
def test_half_open_connections_are_noticed_and_replaced(bench: Bench, tmp_path: Path) -> None:
    with Detoured(bench, bench.dealt("u-shape"), tmp_path, {"server": [["gate:0:4"]]}) as tried:
        tried.wait_at_gate("server")
        before = tried.middlebox.connections
        tried.middlebox.freeze()
        tried.open_gate("server")
        tried.wait(lambda: tried.middlebox.connections >= before + 3, limit_s=12)
        tried.wait()
        tried.check()
        far_parties.check_same_frames(tried, bench)


def test_half_open_connections_are_reset_and_replaced(bench: Bench, tmp_path: Path) -> None:
    with Detoured(bench, bench.dealt("vanilla"), tmp_path, {"server": [["gate:0:4"]]}) as tried:
        tried.wait_at_gate("server")
        tried.middlebox.freeze()
        tried.open_gate("server")
        until = time.monotonic() + 4
        tried.wait(lambda: time.monotonic() > until)
        tried.middlebox.reset()
        tried.wait()
        tried.check()
        far_parties.check_same_frames(tried, bench)


def test_connections_are_reset_again_and_again(bench: Bench, tmp_path: Path) -> None:
    gates = ["gate:0:4", "gate:0:12", "gate:1:4", "gate:2:0"]
    with Detoured(bench, bench.dealt("u-shape"), tmp_path, {"server": [gates]}) as tried:
        for resets in range(len(gates)):
            tried.wait_at_gate("server")
            tried.wait(lambda needed=3 * (resets + 1): tried.middlebox.connections >= needed)
            tried.open_gate("server")
            tried.middlebox.reset()
        tried.wait()
        tried.check()
        far_parties.check_same_frames(tried, bench)


# Between two hosts


@far
@pytest.mark.long
@pytest.mark.parametrize("outages", [(12, 5, 12), (9, 12, 30), (75,)], ids=str)
@pytest.mark.parametrize("name", ["vanilla", "u-shape"])
def test_training_goes_on_within_3_s_of_the_links_return(
    lit: FarBench, bench: Bench, name: str, outages: tuple[float, ...], tmp_path: Path
) -> None:
    with FarTrial(lit, lit.dealt(name, epochs=12 + 9 * len(outages), every=10), tmp_path) as tried:
        tried.until_step(20)
        returns = {}
        for outage in outages:
            tried.wait_s(1.5)
            returns[tried.goes_dark(outage)] = outage
            tried.wait_s(3)
        tried.wait(limit_s=120)
        took = [(outage, round(tried.first_after(back), 2)) for back, outage in returns.items()]
        assert max(after for _, after in took) < 3, took
        tried.check()
        tried.check_once(bench)


@far
@pytest.mark.long
@pytest.mark.parametrize("sender", ["a", "b"])
def test_one_direction_goes_dark(lit: FarBench, bench: Bench, sender: str, tmp_path: Path) -> None:
    with FarTrial(lit, lit.dealt("u-shape", epochs=12, every=10), tmp_path) as tried:
        tried.until_step(20)
        back = tried.goes_dark(12, sender)
        tried.wait(limit_s=90)
        assert tried.first_after(back) < 3
        tried.check()
        tried.check_once(bench)


@far
@pytest.mark.long
def test_dark_before_anybody_is_there(lit: FarBench, bench: Bench, tmp_path: Path) -> None:
    lit.hosts.dark()
    with FarTrial(lit, lit.dealt("vanilla", every=10), tmp_path) as tried:
        tried.wait(lambda: tried.notes("server", "server listens") == 1)
        tried.wait(lambda: all(tried.notes(f"client-{n}", "not connected") for n in range(3)))
        back = tried.goes_dark(5)
        tried.wait(limit_s=90)
        assert tried.first_after(back) < 5
        tried.check()
        tried.check_once(bench)


@far
@pytest.mark.long
@pytest.mark.parametrize("lit", [two_hosts.Wire(mbit=20)], ids=["20 Mbit/s"], indirect=True)
def test_dark_while_megabytes_are_handed_over(lit: FarBench, bench: Bench, tmp_path: Path) -> None:
    study = wide_study(lit.folder / "wide", 50_000, "3", rows=48, epochs=2, every=100)
    with FarTrial(lit, study, tmp_path) as tried:
        tried.wait(lambda: any(frame.kind == "sealed" for frame in tried.frames), limit_s=90)
        tried.wait_s(1)
        back = tried.goes_dark(12)
        handed_over = [frame for frame in tried.frames if frame.kind == "sealed"]
        assert handed_over[-1] == tried.frames[-1], "it was over before it went dark"
        tried.wait(limit_s=120)
        assert tried.first_after(back) < 120
        tried.check()
        tried.check_once(bench)


@far
@pytest.mark.long
def test_dark_while_the_host_dies_and_starts_again(lit: FarBench, tmp_path: Path) -> None:
    with FarTrial(lit, lit.dealt("vanilla", epochs=12, every=10), tmp_path) as tried:
        tried.until_step(20)
        lit.hosts.dark()
        tried.wait_s(1)
        tried.kill("server")
        tried.wait_s(1)
        tried.goes_dark(11)
        tried.wait(limit_s=90)
        tried.check()
        assert tried.kills["server"] == 1


@far
@pytest.mark.long
@pytest.mark.parametrize("lit", [two_hosts.Wire(loss=0.05)], ids=["5 % lost"], indirect=True)
def test_packets_are_lost(lit: FarBench, bench: Bench, tmp_path: Path) -> None:
    with FarTrial(lit, lit.dealt("u-shape", every=10), tmp_path) as tried:
        tried.wait(limit_s=180)
        tried.check()
        tried.check_once(bench)


@far
@pytest.mark.long
@pytest.mark.parametrize("lit", [two_hosts.Wire(mbit=1, queue_ms=500)], ids=["1 Mbit/s"], indirect=True)
def test_a_chunk_that_takes_longer_than_the_silence(lit: FarBench, bench: Bench, tmp_path: Path) -> None:
    study = wide_study(lit.folder / "wide", 32_768, "1", rows=20, epochs=1, clients=1, every=100)
    with FarTrial(lit, study, tmp_path) as tried:
        tried.wait(limit_s=180)
        assert tried.notes("server", "connection lost") <= 2, "what a slow link is was not learnt"
        tried.check()
        tried.check_once(bench)
