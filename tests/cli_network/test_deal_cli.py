"""``cutlayer deal``: a folder for each party."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cutlayer.cli import app
from cutlayer.study_file import load_study

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "digits"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(EXAMPLE, tmp_path / "digits", ignore=shutil.ignore_patterns("__pycache__", "runs"))
    monkeypatch.chdir(tmp_path)
    return Path("digits") / "study.toml"


def test_each_party_gets_what_it_needs_and_no_more(study: Path) -> None:
    done = run("deal", study, "--out", "parties")
    assert done.exit_code == 0, done.output
    assert "client-0: parties/client-0 (model.py, records.safetensors, study.toml)" in done.output
    assert "server: parties/server (model.py, study.toml)" in done.output
    folders = sorted(path.name for path in Path("parties").iterdir())
    assert folders == ["client-0", "client-1", "client-2", "server"]
    texts = {(Path("parties") / name / "study.toml").read_text() for name in folders}
    assert len(texts) == 1
    text = texts.pop()
    assert text.startswith(study.read_text().rstrip())
    assert '[fields.client]\nx = "float32[64]"\ny = "int64[]"' in text
    digest = load_study(study).build()[0].digest
    assert all(
        load_study(Path("parties") / name / "study.toml").at(name).study.digest == digest for name in folders
    )


def test_the_commands_read_a_dealt_file(study: Path) -> None:
    run("deal", study, "--out", "parties")
    inner = Path("parties") / "client-0" / "study.toml"
    told = run("describe", inner, "--party", "client-0", "--disclosure")
    assert told.exit_code == 0, told.output
    assert told.output == run("describe", study, "--party", "client-0", "--disclosure").output
    tables = (run("cuts", path).output.splitlines()[1:] for path in (inner, study))  # after the title
    assert next(tables) == next(tables)
    assert run("simulate", inner, "--out", "run").exit_code == 0


def test_a_folder_in_use_is_left_alone(study: Path) -> None:
    Path("parties").mkdir()
    (Path("parties") / "mine.txt").write_text("mine")
    refused = run("deal", study, "--out", "parties")
    assert refused.exit_code == 1
    assert "parties is in use" in refused.output
    assert [path.name for path in Path("parties").iterdir()] == ["mine.txt"]
