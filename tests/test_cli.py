"""The command line: what it prints, what it writes, what it says when something is wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import cutlayer
from ctrl_c import ctrl_c  # noqa: F401  # a fixture
from cutlayer.cli import app
from cutlayer.graph import networks
from cutlayer.metering.events import Began, Ended, EpochEnded
from cutlayer.metering.run_log import read_log
from digits_study import digits_study, mlp

COMMANDS = [
    "demo", "simulate", "describe", "cuts", "check", "report",
    "local", "serve", "join", "keys", "fields", "deal", "verify-log",
]  # fmt: skip

STUDY = digits_study('name = "small"\nepochs = 2', mlp(8))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small study file in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def process(*words: str | Path, **more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cutlayer.cli", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


# Help


def test_help_answers_at_once() -> None:
    seconds = []
    for _ in range(3):
        before = os.times()
        finished = process("--help")
        text, _ = finished.communicate(timeout=60)
        after = os.times()  # processor time, which a machine's other work does not lengthen
        seconds.append(sum(after[2:4]) - sum(before[2:4]))
        assert finished.returncode == 0
    assert all(command in text for command in COMMANDS)
    assert 0 < min(seconds) < 0.5


def test_the_command_line_imports_no_torch() -> None:
    heavy = {"torch", "numpy", "pandas", "grpc", "cryptography"}
    code = f"import sys, cutlayer.cli; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_shows_examples(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert re.search(rf"^\s*cutlayer {command} \S", result.output, re.MULTILINE)


@pytest.mark.parametrize(
    ("command", "tables"),
    [
        ("serve", {"[network]"}),
        ("join", {"[network]"}),
        ("fields", {"[parties]"}),
        ("deal", {"[parties]", "[fields]"}),
    ],
)
def test_help_names_tables_of_the_study_file(command: str, tables: set[str]) -> None:
    assert tables <= set(re.findall(r"\[[a-z]+\]", run(command, "--help").output))


def test_help_fills_a_narrow_terminal() -> None:
    finished = process("serve", "--help", env={**os.environ, "COLUMNS": "80"})
    text, _ = finished.communicate(timeout=30)
    paragraph = re.search(r"Shows first.*?it goes on\.", text, re.DOTALL)
    assert paragraph is not None
    lines = [line.strip() for line in paragraph.group().splitlines()]
    assert len(lines) > 2 and all(len(line) > 60 for line in lines[:-1])


def test_without_words_help_is_shown() -> None:
    assert "Usage" in run().output
    for command in COMMANDS[1:]:
        assert "Usage" in run(command).output


def test_version() -> None:
    assert run("--version").output == f"cutlayer {cutlayer.__version__}\n"


# Simulate


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run without --out, and what the command printed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "study.toml").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = run("simulate", "study.toml", "--threads", "1")
    assert result.exit_code == 0, result.output
    (out,) = (folder / "runs").iterdir()
    return out, result


def test_simulate_writes_log_and_report(finished: tuple[Path, Result]) -> None:
    out, result = finished
    assert "accuracy" in result.output
    assert "epoch 1 of 2, step 1 of " in result.output
    assert str(Path("runs", out.name, "report.html")) in result.output
    assert (out / "report.html").read_text().startswith("<!")
    events = read_log(out / "log.jsonl")
    assert [event.epoch for event in events if isinstance(event, EpochEnded)] == [0, 1]
    assert isinstance(events[-1], Ended)


def test_simulate_names_its_folder_after_study_and_time(finished: tuple[Path, Result]) -> None:
    assert re.fullmatch(r"small-\d{8}-\d{6}", finished[0].name)


def test_a_folder_with_a_run_is_not_written_over(finished: tuple[Path, Result]) -> None:
    out, _ = finished
    before = (out / "log.jsonl").read_bytes()
    again = run("simulate", out.parent.parent / "study.toml", "--out", out)
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    assert (out / "log.jsonl").read_bytes() == before


def test_a_refused_run_leaves_the_note_of_the_other_alone(finished: tuple[Path, Result], study: Path) -> None:
    run_folder, _ = finished
    before = (run_folder / "study.json").read_text()
    study.write_text(STUDY.replace("epochs = 2", "epochs = 3"))
    assert run("simulate", study, "--out", run_folder, "--resume").exit_code == 1
    assert run("simulate", study, "--out", run_folder).exit_code == 1
    assert (run_folder / "study.json").read_text() == before


@pytest.mark.parametrize(
    "words",
    [
        ["simulate", "study.toml", "--out", "taken"],
        ["plan", "mlp", "--plot", "taken"],
        ["local", "study.toml", "--out", "taken"],
        ["demo", "--out", "taken"],
    ],
)
def test_a_file_where_a_folder_goes_is_told_in_a_line(words: list[str], study: Path) -> None:
    Path("taken").write_text("")
    refused = run(*words)
    assert refused.exit_code == 1
    assert "Error: taken" in refused.stderr and "choose another" in refused.stderr


def test_a_run_keeps_away_from_a_folder_with_other_files(study: Path) -> None:
    taken = Path("taken")
    taken.mkdir()
    (taken / "report.html").write_text("mine")
    refused = run("simulate", study, "--out", taken)
    assert refused.exit_code == 1 and "taken holds something else than a run" in refused.stderr
    assert [path.name for path in taken.iterdir()] == ["report.html"]


def test_there_must_be_a_run_to_resume(study: Path) -> None:
    assert "no run of 'small'" in run("simulate", study, "--resume").stderr
    assert "no run in nowhere" in run("simulate", study, "--resume", "--out", "nowhere").stderr
    assert not Path("nowhere").exists()


def test_a_run_stopped_by_ctrl_c_can_be_resumed(study: Path) -> None:
    study.write_text(STUDY.replace("epochs = 2", "epochs = 15"))
    going = process(
        "simulate", study.name, "--out", "here", "--threads", "1", env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    log = Path("here/log.jsonl")
    deadline = time.monotonic() + 60
    while not (log.is_file() and log.read_text().count('"epoch_ended"') >= 2):
        assert going.poll() is None, going.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    going.send_signal(signal.SIGINT)
    text, errors = going.communicate(timeout=60)
    assert going.returncode == 130, errors
    assert "Traceback" not in errors
    assert "\x1b" not in text  # a pipe gets plain text
    command = re.search(r"^  cutlayer (simulate .*--resume.*)$", text, re.MULTILINE)
    assert command is not None, text
    assert not any(isinstance(event, Ended) for event in read_log(log))

    resumed = run(*command.group(1).split())
    assert resumed.exit_code == 0, resumed.output
    events = read_log(log)
    assert [event.epoch for event in events if isinstance(event, EpochEnded)][-1] == 14
    assert {event.epoch for event in events if isinstance(event, EpochEnded)} == set(range(15))
    assert sum(isinstance(event, Began) for event in events) == 1


# Describe and check


def test_describe_tells_graph_holdings_program_and_disclosure(study: Path) -> None:
    text = run("describe", study).output
    for part in (
        "vanilla: 2 segments",
        "Who holds what",
        "client-1",
        "@0 client-0 load",
        "DISCLOSURE STATEMENT OF server",
    ):
        assert part in text
    assert "@1 " not in text


def test_describe_prints_only_what_is_asked_for(study: Path) -> None:
    assert run("describe", study, "--mermaid").output.startswith(("flowchart", "graph", "%%"))
    disclosure = run("describe", study, "--disclosure", "--party", "client-1").output
    assert disclosure.startswith("DISCLOSURE STATEMENT OF client-1")
    assert "STATEMENT OF server" not in disclosure
    program = run("describe", study, "--program", "--party", "server").output
    assert all(line.startswith("@0 server ") for line in program.splitlines())


def test_describe_draws(study: Path) -> None:
    assert run("describe", study, "--svg", "drawn/graph.svg").exit_code == 0
    assert Path("drawn/graph.svg").read_text().startswith("<svg")
    Path("file").touch()
    assert "cannot write" in run("describe", study, "--svg", "file/graph.svg").stderr


def test_describe_refuses_an_unknown_party(study: Path) -> None:
    result = run("describe", study, "--party", "client0")
    assert result.exit_code == 1
    assert "did you mean 'client-0'?" in result.stderr


def test_check_accepts_the_program_and_finds_a_missing_send(study: Path) -> None:
    text = run("describe", study, "--program", "--steps", "0").output
    Path("program.txt").write_text(text)
    good = run("check", "program.txt", study)
    assert good.exit_code == 0, good.stderr
    assert f"{len(text.splitlines()):,} actions of 3 parties" in good.output

    lines = text.splitlines()
    sent = next(i for i, line in enumerate(lines) if " send " in line)
    Path("program.txt").write_text("\n".join([*lines[:sent], *lines[sent + 1 :]]))
    bad = run("check", "program.txt", study)
    assert bad.exit_code == 1
    assert lines[sent].split()[3] in bad.stderr  # the cut whose send is missing
    assert "cannot read" in run("check", "other.txt", study).stderr


# Cuts


@pytest.mark.parametrize("network", ["lenet", "mlp", "transformer"])
def test_cuts_of_known_networks(network: str) -> None:
    result = run("cuts", network)
    assert result.exit_code == 0, result.output
    assert "bytes per sample" in result.output
    assert " yes " in result.output


def test_every_network_has_an_example_input() -> None:
    from cutlayer.cli.cuts import SHAPES, TOKENS

    assert set(SHAPES) | set(TOKENS) == set(networks.__all__)


def test_cuts_of_a_function_and_of_a_study(study: Path) -> None:
    Path("model.py").write_text(
        "from torch import nn\ndef network(width=4):\n"
        "    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 2))\n"
    )
    table = run("cuts", "model.py:network", "--input", "6", "--set", "width=5").output
    assert re.search(r"│ 0 +│ \S+ \[5\] +│ +20 │ +35 │", table)
    assert re.search(r"│ linear1 +│ \S+ \[8\] +│ +32 │ +520 │", run("cuts", study).output)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vgg_16"], "did you mean 'vgg16'?"),
        (["model.py:network"], "there is no file model.py"),
        (["mlp", "--input", "3x3"], "--input is no shape; got 3x3"),
        (["mlp", "--input", "784", "--tokens", "3"], "not both"),
        (["mlp", "--set", "sizes"], "--set is no argument"),
        (["mlp", "--set", "sises=[784, 10]"], "did you mean 'sizes'?"),
        (["model.py"], "name it: model.py:FUNCTION"),
        (["study.toml", "--input", "64"], "leave --input and --tokens out"),
    ],
)
def test_cuts_says_what_is_wrong(words: list[str], message: str, study: Path) -> None:
    result = run("cuts", *words)
    assert result.exit_code == 1
    assert message in result.stderr


# Report


def test_report_is_written_anew_from_the_log(
    finished: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("copied").mkdir()
    Path("copied/log.jsonl").write_bytes((finished[0] / "log.jsonl").read_bytes())
    result = run("report", "copied")
    assert result.exit_code == 0, result.output
    assert str(Path("copied/report.html")) in result.output
    assert Path("copied/report.html").is_file()
    missing = run("report", "nowhere")
    assert missing.exit_code == 1
    assert "no log.jsonl in nowhere" in missing.stderr


# Errors


def test_errors_are_short_and_debug_shows_the_traceback(study: Path) -> None:
    study.write_text(STUDY.replace("epochs = 2", "epoch = 2"))
    message = "Error: study.toml, [study]: unknown key 'epoch'; did you mean 'epochs'?\n"
    finished = process("describe", study.name)
    text, errors = finished.communicate(timeout=60)
    assert (finished.returncode, text, errors) == (1, "", message)
    for words in (["--debug", "describe", study.name], ["describe", study.name, "--debug"]):
        finished = process(*words)
        _, errors = finished.communicate(timeout=60)
        assert finished.returncode == 1
        assert "Traceback" in errors


def test_wrong_usage_is_exit_code_2(study: Path) -> None:
    assert run("simulat", study).exit_code == 2
    assert run("simulate", study, "--ot", "x").exit_code == 2
    assert run("simulate", study, "--threads", "0").exit_code == 2
