"""``cutlayer compare``: what it prints and writes, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from study_in_folder import run, study_text

STUDY = study_text(study="epochs = 1", parties=4, optimizer='name = "SGD"\nlr = 0.2')


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


def test_trains_tells_and_goes_on(study: Path, tmp_path: Path) -> None:
    words = ("compare", "study.toml", "--with", "fedavg, large-batch", "--rounds", "3", "--sample", "0.5",
             "--rate", "large-batch=2", "--steps", "2", "--no-reports")  # fmt: skip
    code, said = run(*words)
    assert code == 0, said
    assert "federated averaging: epoch 1 of 3" in said and "split's" in said
    assert "Comparison: compared/digits/compare.html" in said
    page = (tmp_path / "compared/digits/compare.html").read_text()
    assert "2 steps a round, learning rates times 2" in page and "0.5 of the clients a round" in page
    code, said = run(*words)
    assert code == 0 and "of 3" not in said and "Comparison:" in said
    code, said = run(*words, "--local-epochs", "2")
    assert code == 1 and "other settings" in said


def test_equal_compute_needs_no_rounds(study: Path) -> None:
    code, said = run(
        "compare", "study.toml", "--with", "fedprox", "--equal", "compute", "--mu", "0.1", "--sample", "1"
    )
    assert code == 0, said
    assert "FedProx" in said and " of 1000000" not in said
    assert Path("compared/digits/fedprox/report.html").is_file()


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("--with", "fedsgd"), 1, "no baseline is named 'fedsgd'"),
        (("--with", " , "), 2, "name at least one baseline"),
        (("--sample", "half"), 2, "neither a number nor a share"),
        (("--rate", "fedavg"), 2, "not like large-batch=4"),
        (("--rate", "fedprox=2"), 2, "fedprox is not compared with"),
        (("--metric", "acuracy"), 1, "there is no metric 'acuracy'; did you mean 'accuracy'?"),
        (("--equal", "computing"), 1, "what is to be equal is not 'computing'"),
    ],
)
def test_what_cannot_be_is_said(study: Path, words: tuple[str, ...], code: int, why: str) -> None:
    ended, said = run("compare", "study.toml", *words)
    assert ended == code
    assert why in " ".join(said.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--sample", "7"), "fedavg would draw 7 clients a round; got 4 clients"),
        (("--times", "3"), "no cost is named"),
        (("--mu", "0.1"), "it is for fedprox"),
        (("--with", "large-batch", "--local-epochs", "2"), "it is for fedavg and fedprox"),
        (("--with", "fedavg", "--steps", "2"), "it is for large-batch"),
    ],
)
def test_options_without_effect_are_refused_before_anything_is_trained(
    words: tuple[str, ...], told: str, study: Path
) -> None:
    code, said = run("compare", "study.toml", *words)
    assert code != 0 and told in " ".join(said.replace("│", " ").split())
    assert not Path("compared/digits/split").exists()


def test_it_says_how_to_go_on_when_a_supervisor_ends_it(study: Path) -> None:
    words = [sys.executable, "-m", "cutlayer", "compare", "study.toml", "--rounds", "500", "--no-reports"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "federated averaging: epoch 2" in line:
                process.terminate()
                break
        rest = process.stdout.read()
    assert process.returncode == 143
    assert "the same command goes on" in rest
