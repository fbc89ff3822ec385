"""Every example runs, equals its uncut twin and learns something, in its quick mode."""

import importlib.util
import runpy
import tempfile
from pathlib import Path

import pytest
import torch

from cutlayer import Run

FOLDER = Path(__file__).parents[1] / "examples"

# What must be reached after the few epochs of the quick mode, on rows held out, by loss. All are far above
# chance (AUC 0.5; accuracy 0.1 for ten digits) and below what the example reaches now.
LEARNT = {
    "defences_and_audit": {"loss": ("auc", 0.98)},
    "extended_vanilla": {"loss": ("auc", 0.97)},
    "hybrid_multi_hop_u": {"loss": ("accuracy", 0.75)},
    "hybrid_u_vertical": {"loss": ("auc", 0.77)},
    "hybrid_vertical_multi_task": {"diabetes": ("auc", 0.77), "pressure": ("auc", 0.72)},
    "multi_hop": {"loss": ("accuracy", 0.8)},
    "multi_task": {"loss-digit": ("accuracy", 0.8), "loss-parity": ("accuracy", 0.8)},
    "own_data": {"loss": ("auc", 0.64)},
    "own_model": {"loss": ("accuracy", 0.8)},
    "save_predict_export": {"loss": ("accuracy", 0.85)},
    "u_shaped": {"loss": ("accuracy", 0.8)},
    "vanilla": {"loss": ("auc", 0.75)},
    "vertical": {"loss": ("auc", 0.99)},
}

SHOWN = {
    "defences_and_audit": [
        "leak AUC by cosine at head<-server: 0.9",
        "It does not protect",
        "Of these the defences do not protect from: decoder by server, attribute mean area by server.",
    ],
    "own_model": ["cut='pool': 1 tensor(s) cross", "cut='conv1': 2 tensor(s) cross"],
    "save_predict_export": [
        "Another run that loads them predicts the same: True",
        "no consent of client-1",
        "The exported network predicts the same: True",
    ],
}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # an audit's page stays where it was written
    before, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    torch.set_rng_state(state)


def run_quick(name: str) -> Run:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(quick=True)


@pytest.mark.parametrize("name", LEARNT)
def test_it_equals_the_uncut_network_and_learns(name, capsys):
    run = run_quick(name)
    shown = capsys.readouterr().out
    assert "bit for bit: True" in shown
    assert [text for text in SHOWN.get(name, []) if text not in shown] == []
    assert set(LEARNT[name]) == set(run.graph.losses)
    for loss, (metric, least) in LEARNT[name].items():
        assert run.metrics("test", loss)[metric] >= least


def test_every_example_is_tried_here_and_listed_in_the_readme():
    files = {path.stem for path in FOLDER.glob("*.py")}
    assert files == set(LEARNT)
    listed = (FOLDER / "README.md").read_text("utf-8")
    assert [name for name in files if f"[{name}.py]({name}.py)" not in listed] == []


def test_every_example_fits_on_a_page_and_says_what_it_shows():
    for path in FOLDER.glob("*.py"):
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= 80, path.name
        assert "\nShown: " in text.split('"""')[1], path.name


def test_an_example_runs_as_a_script_on_one_thread(capsys):
    torch.set_num_threads(2)
    runpy.run_path(str(FOLDER / "vertical.py"), run_name="__main__")
    assert "bit for bit: True" in capsys.readouterr().out
    assert torch.get_num_threads() == 1
