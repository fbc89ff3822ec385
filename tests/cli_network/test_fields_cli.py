"""``cutlayer fields``: what a party tells about its data."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cutlayer.cli import app

STUDY = """
[graph]
topology = "vanilla"
model = { function = "mlp", arguments = { sizes = [2, 8, 2] } }
cut = "activation1"

[data]
source = "csv"
path = "own.csv"
id = "patient"
label = "sick"

[data.hold_out]
test = 0.25

[optimizer]
name = "SGD"
lr = 0.1
"""
PARTIES = '\n[parties]\nnorth = "client"\nhub = "server"\n'


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study file in the current folder, and a folder with the data of one party."""
    monkeypatch.chdir(tmp_path)
    Path("study.toml").write_text(STUDY + PARTIES)
    folder = tmp_path / "records"
    folder.mkdir()
    lines = [f"p{i},{20 + i},{25 + i % 7},{'yes' if i % 2 else 'no'}" for i in range(40)]
    (folder / "own.csv").write_text("\n".join(["patient,age,bmi,sick", *lines]) + "\n")
    return folder


def test_lines_for_the_study_file_and_numbers_of_rows(records: Path) -> None:
    told = run("fields", "study.toml", "--data", records, "--as", "north")
    assert told.exit_code == 0, told.output
    assert tomllib.loads(told.output) == {"fields": {"client": {"x": "float32[2]", "y": "int64[]"}}}
    assert told.output.endswith("# rows of north: train 30, test 10\n")
    assert len(told.output.splitlines()) == 4  # neither names of columns nor values nor ids


def test_before_parties_are_named_whoever_has_data_is_a_client(records: Path) -> None:
    Path("study.toml").write_text(STUDY)
    told = run("fields", "study.toml", "--data", records, "--as", "anybody")
    assert told.exit_code == 0, told.output
    assert told.output.startswith("[fields.client]\n")


@pytest.mark.parametrize(
    ("party", "message"),
    [("nroth", "no party 'nroth'; did you mean 'north'?"), ("hub", "the role 'server' holds no data")],
)
def test_who_has_no_data_is_told(party: str, message: str, records: Path) -> None:
    refused = run("fields", "study.toml", "--data", records, "--as", party)
    assert refused.exit_code == 1
    assert message in " ".join(refused.output.split())


def test_the_printed_lines_are_what_joining_takes(records: Path) -> None:
    from cutlayer.study_file import load_study

    told = run("fields", "study.toml", "--data", records, "--as", "north").output
    Path("study.toml").write_text(STUDY + PARTIES + told)
    local = load_study("study.toml").at("north", records)
    assert local.own is not None
    assert local.study.digest == load_study("study.toml").at("hub").study.digest
