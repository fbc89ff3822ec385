"""``cutlayer verify-log``: what it prints, and its exit code."""

import json
import os
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from cutlayer.cli import app
from cutlayer.metering.disclosure_log import LOG_NAME, DisclosureLog
from cutlayer.wire import Kind, Message, encode


@pytest.fixture
def head(tmp_path):
    with DisclosureLog(tmp_path, "hospital-[a]", study="9f2a" * 16) as log:
        for step in range(1200):
            tensors = (("z", torch.zeros(4, 3)),)
            log.note(encode(Message(Kind.ACTIVATION, "head->server", step, tensors)), "server")
        log.note(encode(Message(Kind.HANDOVER, "head", 9, ())), "hospital-b", via="server", sealed=True)
    return log.close()


def run(*words):
    return CliRunner().invoke(app, ["verify-log", *map(str, words)], env={"COLUMNS": "160"})


def test_a_sound_log_is_summed_up(tmp_path, head):
    result = run(tmp_path)
    assert result.exit_code == 0
    words = result.output.split()
    assert "hospital-[a]:" in words and "1,203" in words and "9f2a" * 16 in words
    assert "1,200" in words and "head->server" in words and "1,199" in words and "sealed" in words
    assert words[-2:] == ["Head:", head]
    assert "does not end" not in result.output


def test_the_sum_as_json(tmp_path, head):
    found = json.loads(run(tmp_path / LOG_NAME, "--json").output)
    assert found["head"] == head and found["closed"] and found["party"] == "hospital-[a]"
    assert [(flow["to"], flow["frames"]) for flow in found["flows"]] == [("server", 1200), ("hospital-b", 1)]


def test_a_broken_chain_is_exit_code_1(tmp_path, head):
    path = tmp_path / LOG_NAME
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"step":700', b'"step":701'))
    for more in ([], ["--json"], ["--head", head]):
        result = run(tmp_path, *more)
        assert result.exit_code == 1
        assert "Error:" in result.stderr and "line 702 was changed after it was written" in result.stderr
        assert result.stdout == ""


def test_lines_removed_at_the_end_are_seen_with_the_head(tmp_path, head):
    assert "The head is the one given" in run(tmp_path, "--head", head).output
    path = tmp_path / LOG_NAME
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]) + lines[-2][:50])
    shortened = run(tmp_path)
    assert shortened.exit_code == 0
    assert "does not end with an entry that closes it" in shortened.output and "50 bytes" in shortened.output
    told = run(tmp_path, "--head", head)
    assert told.exit_code == 1 and "lines were removed at the end" in told.stderr
    earlier = run(tmp_path, "--head", json.loads(lines[2])["hash"])
    assert earlier.exit_code == 0 and "that of line 3; lines were added after it" in earlier.output


def test_a_log_plays_no_tricks_on_the_terminal(tmp_path):
    with DisclosureLog(tmp_path, "a\x1b[2J", study="s") as log:
        log.note(encode(Message(Kind.LABEL, "c", 0, ())), "b\x1b[1A\x07")
    output = run(tmp_path).output
    assert not {"\x1b", "\x07"} & set(output) and "a\ufffd[2J" in output


def test_no_log_is_an_error_that_says_what_to_give(tmp_path):
    result = run(tmp_path / "nowhere")
    assert result.exit_code == 1 and "give a party's disclosure.log or its folder" in result.stderr


def test_logs_are_verified_without_pytorch(tmp_path, head):
    script = (
        "import sys; from cutlayer.cli import app\n"
        f"try: app(['verify-log', {str(tmp_path)!r}])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "160"},
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr
