"""``cutlayer audit``: of a study file and of a run, with defences to try; what it writes, how it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from study_in_folder import run, study_text

_U_SHAPED = """topology = "u_shaped"
model = { function = "mlp", arguments = { sizes = [64, 24, 24, 10] } }
cuts = ["activation1", "activation2"]"""
STUDY = study_text(
    study="epochs = 1\nbatch_size = 32", parties=2, optimizer='name = "Adam"\nlr = 0.01', graph=_U_SHAPED
)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


def test_of_a_study_and_again_at_once(study: Path, tmp_path: Path) -> None:
    words = ("audit", "study.toml", "--attack", "cosine", "--try", "laplace:1,1", "--rows", "32")
    code, said = run(*words)
    assert code == 0, said
    assert "without defences" in said and "laplace:1,1" in said
    page = tmp_path / "audits" / "digits" / "audit.html"
    assert f"Audit: {page.relative_to(tmp_path)}" in said
    before = (page.parent / "findings.jsonl").read_text()
    code, said = run(*words)
    assert code == 0
    assert "training" not in said
    assert (page.parent / "findings.jsonl").read_text() == before
    code, said = run(*words[:-1], "16")
    assert code == 1
    assert "is of another rows" in said and "--out" in said


def test_of_a_run_unless_its_file_was_changed(study: Path, tmp_path: Path) -> None:
    code, said = run("simulate", "study.toml", "--out", "runs/first")
    assert code == 0, said
    assert json.loads((tmp_path / "runs/first/study.json").read_text())["file"] == str(study)
    code, said = run("audit", "runs/first", "--attack", "gradient-clusters", "--rows", "32")
    assert code == 0, said
    study.write_text(STUDY.replace("lr = 0.01", "lr = 0.02"))
    code, said = run("audit", "runs/first", "--attack", "gradient-clusters", "--rows", "32")
    assert code == 1
    assert "was changed since the run" in said


def test_frontier_of_a_network_with_two_cuts_tries_defences_where_they_are(
    study: Path, tmp_path: Path
) -> None:
    code, said = run("audit", "study.toml", "--frontier", "--attack", "cosine", "--rows", "32")
    assert code == 0, said
    assert "nopeek:0.5, seed 0: cosine by server" in said
    assert "cut at" not in said


def test_what_was_not_tried_is_named(study: Path) -> None:
    code, said = run("audit", "study.toml", "--attack", "norm", "--rows", "32")
    assert code == 0, said
    assert "Without a score, here or there: norm." in said and "blind guess" not in said


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--attack", "nrom"), "no attack is named 'nrom'"),
        (("--try", "nopeak:1"), "no defence is named 'nopeak'"),
        (("--cut", "activation1"), "only a network with one cut can be cut elsewhere"),
    ],
)
def test_what_cannot_be_is_said(study: Path, words: tuple[str, str], why: str) -> None:
    code, said = run("audit", "study.toml", *words)
    assert code == 1
    assert why in said.replace("\n", " ")


def test_a_folder_that_is_no_run(study: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, said = run("audit", "empty")
    assert code == 1
    assert "does not say which study file" in said


def test_of_a_table_with_an_attribute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        STUDY.replace('"u_shaped"', '"vanilla"')
        .replace('cuts = ["activation1", "activation2"]', 'cut = "activation1"')
        .replace("[64, 24, 24, 10]", "[30, 16, 2]")
        .replace('"digits"', '"breast_cancer"')
    )
    (tmp_path / "study.toml").write_text(text)
    code, said = run("audit", "study.toml", "--attack", "attribute", "--attribute", "mean radius")
    assert code == 0, said
    page = (tmp_path / "audits" / "breast_cancer" / "audit.html").read_text()
    assert "“attribute mean radius”" in page
    assert "whether mean radius is above 13.37, its median" in page
    code, said = run("audit", "study.toml", "--attribute", "mean radios")
    assert code == 1
    assert "did you mean 'mean radius'?" in said.replace("\n", " ")
