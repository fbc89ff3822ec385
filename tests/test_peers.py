"""The comparison with other projects explains itself, counts rightly, and its programs are what the docs say."""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import cutlayer as cl

FOLDER = Path(__file__).parent.parent / "benchmarks" / "peers"


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    yield lambda name: __import__(name)
    named = ("circumstances", "environments", "figures", "rows", "run", "sides", "tables", "watched", "marks")
    for name in (*named, "resnet18_network", "cifar10_network", "model"):
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


def test_every_workload_has_a_title_and_can_be_chosen(peers):
    sides, run = peers("sides").SIDES, peers("run")
    assert list(peers("tables").TITLES) == list(dict.fromkeys(side.work for side in sides))
    found = run.chosen(["TCP"], ["resnet18"])
    assert [(side.work, side.name) for side in found] == [
        ("resnet18", "cutlayer"),
        ("resnet18", "TorchSlicer, TCP"),
    ]
    assert run.chosen([], []) == list(sides)


def test_resnet18_is_cut_where_torchslicer_cuts_it(peers, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER / "torchslicer")
    with torch.random.fork_rng(devices=[]):
        network = peers("resnet18_network").network()
    children = [name for name, _ in network.named_children()]
    study = tomllib.loads((FOLDER / "cutlayer" / "resnet18" / "study.toml").read_text(encoding="utf-8"))
    assert study["graph"]["cut"] == children[math.ceil(len(children) / 2) - 1]
    assert sum(p.numel() for p in network.parameters()) == 11_173_962
    pieces = cl.cut_module(network, study["graph"]["cut"], torch.zeros(2, 3, 32, 32), verify=False).pieces
    assert [piece.outputs for piece in pieces] == [("layer2",), ("fc",)]
    crossing = pieces[0].module(torch.zeros(2, 3, 32, 32))
    assert crossing.shape == (2, 128, 16, 16)
    assert pieces[1].module(crossing).shape == (2, 10)


def test_cifar10_is_the_same_network_for_everybody_and_has_two_halves(peers, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER / "nvflare")
    monkeypatch.syspath_prepend(FOLDER / "cutlayer" / "cifar10")
    with torch.random.fork_rng(devices=[]):
        halves, whole = peers("cifar10_network"), peers("model").network()
        shared = torch.nn.Sequential(halves.bottom(), halves.top())
    assert repr(shared) == repr(whole)
    assert shared[0](torch.zeros(2, 3, 32, 32)).shape == (2, 4096)
    sides = [side for side in peers("sides").SIDES if side.work == "cifar10"]
    assert [side.name for side in sides] == ["cutlayer", "NVFLARE Collab", "TorchSlicer, TCP", "FATE"]
    assert all("nvflare/cifar10_network.py" in side.files for side in sides[1:])


def test_what_is_started_in_a_sides_own_folder_is_copied_there(peers):
    for side in peers("sides").SIDES:
        names = {Path(file).name for file in side.files} if side.copied else set()
        started = [word for word in side.command if word.endswith((".py", ".sh", ".toml"))]
        assert {Path(word).name for word in started if word.startswith("{work}")} <= names


def test_steps_of_resnet18_fill_its_epochs(peers, tmp_path):
    run = peers("run")
    assert run.of_epochs("6") == 6
    for word in ("0", "5"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"{word} is not a multiple of 2"):
            run.of_epochs(word)
    pixels, labels = np.zeros((200, 32, 32, 3), dtype=np.uint8), np.arange(200) % 10
    np.savez(tmp_path / "in.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    data = {"w": None, "cifar10": tmp_path / "in.npz"}
    made = run.archives_in(tmp_path, {"resnet18"}, {"cifar10": 600, "resnet18": 6}, data)
    assert list(made) == ["resnet18"]
    with np.load(made["resnet18"]) as kept:
        assert (len(kept["y_train"]), len(kept["y_test"])) == (192, 128)
    with pytest.raises(ValueError, match="has 200 images for training, 256 are wanted"):
        run.archives_in(tmp_path, {"resnet18"}, {"resnet18": 8}, data)
    assert run.archives_in(tmp_path, {"resnet18"}, {}, {"w": None, "cifar10": None}) == {}


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
    rows.cifar10(tmp_path / "in.npz", tmp_path / "c.npz", 128, 100)
    with np.load(tmp_path / "c.npz") as kept:
        assert kept["x_train"].shape == (128, 3, 32, 32)
        assert np.abs(kept["x_train"]).max() < 0.01
        assert kept["y_test"].shape == (100,)


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
