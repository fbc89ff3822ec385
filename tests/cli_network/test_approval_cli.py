"""Approval before anything moves: refused, asked for, kept, and asked for anew when the study changed."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import cli_rehearsals
import pytest
from cli_rehearsals import Rehearsal
from typer.testing import CliRunner, Result

from cutlayer.cli import app
from cutlayer.sessions.approval import Approvals

MODEL = """
from pathlib import Path
from torch import nn

Path(__file__).with_name("executed").touch()

def network(input_shape):
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
"""


@pytest.fixture(scope="module")
def dealt(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """A study without model code."""
    return Rehearsal(tmp_path_factory.mktemp("plain"), epochs=1)


@pytest.fixture
def plain(dealt: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rehearsal:
    """That study, in a folder of its own."""
    for name in ("parties", "keys"):
        shutil.copytree(dealt.folder / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return dealt


@pytest.fixture
def coded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rehearsal:
    """A study with model code that leaves a trace when it is executed."""
    (tmp_path / "model.py").write_text(MODEL)
    monkeypatch.setattr(cli_rehearsals, "SMALL", cli_rehearsals.SMALL.replace("activation1", "1"))
    one = Rehearsal(tmp_path, epochs=1, model='"model.py:network"')
    monkeypatch.chdir(tmp_path)
    return one


def join(*words: str | Path) -> Result:
    study = Path("parties") / "client-0" / "study.toml"
    return CliRunner().invoke(app, ["join", str(study), "--as", "client-0", *map(str, words)])


def test_without_approval_nothing_moves_and_the_statement_is_shown(plain: Rehearsal):
    refused = join()
    assert refused.exit_code == 1
    assert "nobody has approved this study yet" in refused.stderr
    assert plain.study.disclosure("client-0", "server").strip() in refused.stderr
    assert f"Digest {plain.study.digest}" in refused.stderr
    for name, part in plain.study.parts.items():
        assert re.search(rf"^  {name} +{part[:16]}$", refused.stderr, re.MULTILINE)
    assert refused.stderr.rstrip().endswith(f"--approve {plain.study.digest}")
    assert not Path("runs").exists()


def test_another_digest_is_refused(plain: Rehearsal):
    refused = join("--approve", 2 * "0123456789abcdef")
    assert refused.exit_code == 1
    assert "not the one that you approve" in refused.stderr
    assert plain.study.digest in refused.stderr
    assert not Path("runs").exists()


@pytest.mark.parametrize("word", ["", "0123456789abcde", "all", "0" * 65, "0123456789ABCDEF"])
def test_what_is_no_digest_is_refused(plain: Rehearsal, word: str):
    refused = join("--approve", word)
    assert refused.exit_code == 1
    assert "that is no digest to approve" in refused.stderr


def test_a_changed_study_is_asked_for_anew_and_says_what_changed(plain: Rehearsal):
    folder = Path("runs") / "small" / "client-0"
    Approvals(folder).allow(plain.study, plain.study.disclosure("client-0", "server"), "--approve")
    study = Path("parties") / "client-0" / "study.toml"
    study.write_text(study.read_text().replace("lr = 0.1", "lr = 0.2"))
    refused = join()
    assert refused.exit_code == 1
    assert "optimizers differs from what was approved on 20" in refused.stderr
    refused = join("--approve", plain.study.digest)
    assert refused.exit_code == 1
    assert "optimizers differs" in refused.stderr


def test_model_code_is_not_executed_before_it_is_approved(coded: Rehearsal):
    study = Path("parties") / "client-0"
    refused = join()
    assert refused.exit_code == 1
    assert "nobody has approved the model code yet" in refused.stderr
    assert f"model.py  SHA-256 {coded.study.code['model.py']}" in refused.stderr
    assert not (study / "executed").exists()

    code = coded.study.parts["model code"]
    assert f"--approve {code}" in refused.stderr
    shown = join("--approve", code)
    assert shown.exit_code == 1
    assert (study / "executed").exists()
    assert f"--approve {coded.study.digest}" in shown.stderr
    assert coded.study.digest in join().stderr  # the code's approval was kept

    (study / "executed").unlink()
    (study / "model.py").write_text(MODEL.replace("(64, 16)", "(64,16)"))
    assert "nobody has approved the model code yet" in join().stderr
    assert not (study / "executed").exists()


def test_damaged_approvals_are_not_taken_for_none(plain: Rehearsal):
    path = Path("runs") / "small" / "client-0" / "approved.json"
    path.parent.mkdir(parents=True)
    path.write_text("[{]")
    refused = join("--approve", plain.study.digest)
    assert refused.exit_code == 1
    assert "approved.json cannot be read" in refused.stderr


class Terminal:
    """The command on a terminal of its own, while the ``with`` block lasts."""

    def __init__(self, *words: str) -> None:
        self._words = words
        self.said = ""

    def __enter__(self) -> Self:
        self._end, end = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cutlayer.cli", *self._words], stdin=end, stdout=end, stderr=end,
            env={**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip
        os.close(end)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)

    def says(self, words: str) -> None:
        until = time.monotonic() + 60
        while words not in self.said:
            readable, _, _ = select.select([self._end], [], [], max(0.0, until - time.monotonic()))
            assert readable, f"it does not say {words!r}:\n{self.said}"
            try:
                self.said += os.read(self._end, 4096).decode(errors="replace")
            except OSError:
                raise AssertionError(f"it ended without {words!r}:\n{self.said}") from None

    def type(self, words: str) -> None:
        os.write(self._end, words.encode())

    def ends(self) -> int:
        return self.process.wait(60)


@pytest.mark.long
def test_on_a_terminal_it_asks(plain: Rehearsal):
    words = ("join", "parties/client-0/study.toml", "--as", "client-0")
    with Terminal(*words) as no:
        no.says("Approve? [y/N]")
        assert "WHAT NEVER LEAVES client-0" in no.said
        no.type("\n")
        no.says("nothing has left this machine")
        assert no.ends() == 1
    with Terminal(*words) as yes:
        yes.says("Approve? [y/N]")
        yes.type("y\n")
        yes.says("not begun")
        yes.says("nobody listens")
        os.kill(yes.process.pid, signal.SIGINT)
        yes.says("Go on with:")
        assert yes.ends() == 130
    assert '"how": "terminal"' in (Path("runs") / "small" / "client-0" / "approved.json").read_text()
