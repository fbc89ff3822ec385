"""The comparison with other projects explains itself, counts rightly, and its programs are what the docs say."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks" / "peers"


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    yield lambda name: __import__(name)
    for name in ("environments", "figures", "rows", "sides", "tables", "watched", "marks"):
        sys.modules.pop(name, None)


def test_help_teaches():
    done = subprocess.run(
        [sys.executable, FOLDER / "run.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "Ends with 1 if " in done.stdout
    assert "--install" in done.stdout


def test_what_users_write_is_there_and_versions_are_pinned(peers):
    for side in peers("sides").SIDES:
        assert side.files
        assert all((FOLDER / file).exists() for file in side.files)
        if side.environment:
            assert all("==" in pin for pin in side.environment.pins)


def test_cutlayer_stands_beside_every_workload(peers):
    sides = peers("sides").SIDES
    assert {s.work for s in sides} == {s.work for s in sides if s.name == "cutlayer"}


def test_speed_is_that_of_all_epochs_but_the_first(peers):
    told = {
        "began": 10.0,
        "ended": 20.0,
        "marks": [
            {"at": 12.0, "step": 0},
            {"at": 14.0, "step": 100},
            {"at": 15.0, "step": 100},
            {"at": 16.0, "step": 200},
            {"at": 17.0, "accuracy": 0.5},
        ],
        "loopback_bytes": 2000,
        "peaks": [["python", 30], ["sh", 1], ["python", 20]],
    }
    figures = peers("figures").figures_of(told)
    assert figures["steps_per_second"] == 100
    assert figures["start_up_seconds"] == 2
    assert figures["loopback_bytes_per_step"] == 10
    assert figures["memory_bytes"] == 51
    assert (figures["processes"], figures["accuracy"]) == (2, 0.5)


def test_speed_off_a_log_leaves_evaluation_out(peers):
    events = [
        {"at": 14.0, "event": "epoch_ended", "seconds": 2.0, "steps": 100},
        {"at": 16.0, "event": "measured", "metrics": {"accuracy": 0.4}},
        {"at": 17.0, "event": "epoch_ended", "seconds": 0.5, "steps": 100},
        {"at": 19.0, "event": "measured", "metrics": {"accuracy": 0.6}},
    ]
    told = {"began": 10.0, "ended": 20.0, "marks": events, "loopback_bytes": 0, "peaks": [["python", 30]]}
    figures = peers("figures").figures_of(told)
    assert figures["steps_per_second"] == 200
    assert figures["start_up_seconds"] == 2
    assert figures["accuracy"] == 0.6
    assert "loopback_bytes_per_step" not in figures


def test_lines_are_those_that_do_something(peers, tmp_path):
    program = tmp_path / "a.py"
    program.write_text('"""Says\n\nmuch."""\n\n# why\nx = """a\nb"""\nmark(step=1)\ny = x\n')
    assert peers("figures").lines_of(program) == 3
    study = tmp_path / "a.toml"
    study.write_text("# what\n[study]\nepochs = 1\n")
    assert peers("figures").lines_of(study) == 2


def test_bytes_are_read_off_the_loopback_interface(peers):
    table = "Inter-| Receive\n face |bytes\n  eth0: 7 0 0 0 0 0 0 0 8 0\n    lo: 41 2 0 0 0 0 0 0 42 2 0 0\n"
    assert peers("watched").loopback_bytes(table) == 42


def test_rows_of_both_workloads(peers, tmp_path):
    rows = peers("rows")
    rows.workload_w(None, tmp_path / "w.npz")
    with np.load(tmp_path / "w.npz") as kept:
        assert kept["x_train"].shape == (12_800, 784)
        assert kept["x_train"].dtype == np.float32
        assert 0 <= kept["x_train"].min() < kept["x_train"].max() <= 1
    pixels = np.full((130, 32, 32, 3), [125, 123, 114], dtype=np.uint8)
    labels = np.arange(130) % 10
    np.savez(tmp_path / "in.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    rows.cifar10(tmp_path / "in.npz", tmp_path / "c.npz", 128)
    with np.load(tmp_path / "c.npz") as kept:
        assert kept["x_train"].shape == (128, 3, 32, 32)
        assert np.abs(kept["x_train"]).max() < 0.01
        assert kept["y_test"].shape == (130,)


def test_a_watched_command_is_alone(tmp_path):
    allowed = [] if os.geteuid() == 0 else ["--map-root-user"]
    own = ["unshare", "--net", "--pid", "--fork", "--mount-proc", *allowed]
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not here: run on Linux (Debian, Ubuntu: apt install util-linux)")
    tried = subprocess.run([*own, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no network of its own ({tried.stderr.strip()}): run as root, or allow user namespaces")
    program = tmp_path / "speak.py"
    program.write_text(
        "import socket\nfrom marks import mark\n"
        "a = socket.create_server(('127.0.0.1', 0))\nb = socket.create_connection(a.getsockname())\n"
        "c, _ = a.accept()\nmark(step=0)\nb.sendall(bytes(10_000))\n"
        "assert len(c.recv(10_000, socket.MSG_WAITALL)) == 10_000\n"
        "mark(step=1)\nimport time; time.sleep(0.5)\n"
    )
    command = [sys.executable, FOLDER / "watched.py", "--out", tmp_path / "told.json", "--seconds", "20"]
    variables = {
        **os.environ,
        "PEERS_MARKS": str(tmp_path / "marks.jsonl"),
        "PYTHONPATH": str(FOLDER / "marking"),
    }
    subprocess.run([*own, *command, "--", sys.executable, program], env=variables, check=True)
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["status"] == 0
    assert [mark["step"] for mark in told["marks"]] == [0, 1]
    assert 10_000 < told["loopback_bytes"] < 12_000
    assert told["peaks"][0][1] > 1e6
    assert told["began"] < told["marks"][0]["at"] < told["ended"]


def test_tables_stand_in_the_docs(peers):
    kept = json.loads((FOLDER.parent / "results" / "peers.json").read_text(encoding="utf-8"))
    page = (FOLDER.parent.parent / "docs" / "peers.md").read_text(encoding="utf-8")
    assert peers("tables").page_part(kept) in page
