"""``cutlayer plan``: of a network, a study file and a paper; tables, JSON, plots, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from study_in_folder import study_text
from typer.testing import CliRunner

from cutlayer.cli import app

STUDY = study_text(
    study="epochs = 2\nbatch_size = 32", parties=3, optimizer='name = "Adam"\nlr = 0.01', data=""
)
SPEEDS = ["--client-flops", "1e9", "--server-flops", "1e10"]


def run(*words: str):
    return CliRunner().invoke(app, ["plan", *words], env={"COLUMNS": "200"})


def test_a_network_by_its_name_gets_tables_and_a_paragraph():
    shown = run("lenet", *SPEEDS, "--rows", "100", "--clients", "2", "--max-client-bytes", "2e6")
    assert shown.exit_code == 0, shown.output
    assert "conv1" in shown.output and "fedavg" in shown.output and "We advise" in shown.output
    assert "2.00 MB (traffic of a client)" in " ".join(shown.output.split())


def test_a_study_file_gives_rows_settings_and_leakage(tmp_path: Path):
    file = tmp_path / "study.toml"
    file.write_text(STUDY)
    shown = run(str(file), *SPEEDS, "--json", "--plot", str(tmp_path / "plots"), "--schedule", "round_robin")
    assert shown.exit_code == 0, shown.output
    told = json.loads(shown.output)
    setting = told["setting"]
    assert (setting["clients"], setting["rows"], setting["test_rows"]) == (3, 1438, 359)
    assert (setting["epochs"], setting["batch_size"], setting["optimizer"]) == (2, 32, "Adam(lr=0.01)")
    assert all(0 < offer["leakage"] <= 1 for offer in told["offers"] if offer["method"] == "vanilla")
    assert (tmp_path / "plots" / "trade-off.svg").is_file()


def test_a_papers_formulas_are_printed_and_drawn(tmp_path: Path):
    shown = run("--paper", "singh", "--plot", str(tmp_path))
    assert shown.exit_code == 0, shown.output
    assert "2pq + eta N K" in shown.output and "2.02e+10" in shown.output
    assert (tmp_path / "break-even.png").is_file()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--paper", "helth-tables"], "health-tables"),
        (["--json"], "nothing to plan"),
        (["lenet", "--goal", "tme", *SPEEDS], "time"),
        (["lenet", "--schedule", "splitfed4", *SPEEDS], "splitfed"),
        (["vgg61"], "vgg16"),
        (["study.toml", "--input", "3,2"], "leave --input"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], named: str):
    shown = run(*words)
    assert shown.exit_code == 1 and named in shown.output


def test_help_teaches():
    shown = run("--help")
    assert shown.exit_code == 0 and "cutlayer plan --paper health-tables" in shown.output


def test_a_u_shaped_study_is_planned_as_such_and_fits_a_narrow_terminal(tmp_path: Path):
    path = tmp_path / "study.toml"
    shape = STUDY.replace("[64, 24, 10]", "[64, 24, 16, 10]").replace('"vanilla"', '"u_shaped"')
    path.write_text(shape.replace('cut = "activation1"', 'cuts = ["activation1", "activation2"]'))
    result = CliRunner().invoke(app, ["plan", str(path), *SPEEDS], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    first = next(line for line in lines if "activation1" in line)
    assert first.split()[0] == "u-shaped"
    assert "In a wider terminal, and with --json: client FLOP forward, " in result.output
    units = [word for line in lines if line.split()[:1] == ["u-shaped"] for word in line.split()]
    assert "MFLOP" in units and "KB" in units  # numbers are in one piece
    assert "as the study is: labels stay" in " ".join(result.output.split())
    assert not any(line.split()[:1] in (["vanilla"], ["*", "vanilla"]) for line in lines)


def test_a_topology_that_is_named_is_the_only_one_that_is_advised():
    shown = run("lenet", *SPEEDS, "--rows", "100", "--clients", "2", "--topology", "u_shaped", "--json")
    assert shown.exit_code == 0, shown.output
    told = json.loads(shown.output)
    assert {one["method"] for one in told["offers"]} == {"u_shaped"} == {told["advised"]["method"]}


def test_a_study_is_rehearsed(tmp_path: Path):
    file = tmp_path / "study.toml"
    file.write_text(STUDY)
    words = (str(file), *SPEEDS, "--rehearse", "--schedule", "round_robin")
    told = json.loads(run(*words, "--json").output)
    assert 0 < told["rehearsed_seconds"] < 60
    shown = run(*words)
    assert "cutlayer simulate trains for about" in " ".join(shown.output.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("lenet", "--max-leakage", "0.5"), "leakage is limited, and was not measured"),
        (("lenet", "--client-flops", "0"), "a speed is a number above 0"),
        (("lenet", "--server-flops", "inf"), "a speed is a number above 0"),
        (("lenet", "--up", "0"), "carries nothing"),
        (("--paper", "health-tables", "--plot", "plots"), "there is no plot of health-tables"),
    ],
)
def test_what_cannot_be_planned_is_told_before_it_is_worked_out(words: tuple[str, ...], told: str):
    shown = run(*words)
    assert shown.exit_code != 0
    assert told in " ".join((shown.output + str(shown.exception)).replace("│", " ").split())
