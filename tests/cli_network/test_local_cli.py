"""``cutlayer local``: a rehearsal with real processes, interrupted, gone on with, and one of them killed."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from cli_rehearsals import PARTIES
from typer.testing import CliRunner

from cutlayer.cli import app
from cutlayer.metering.disclosures import read_disclosures


def children(pid: int) -> dict[int, str]:
    """Return the command lines of a process's children."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child): Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ") for child in listed}


@pytest.mark.long
def test_a_rehearsal_survives_ctrl_c_and_kills_and_gives_the_simulations_bits(rehearse):
    one = rehearse(40)
    words = ("local", "study.toml", "--out", "here", "--compare")
    first = one.run(*words, name="first")
    first.says("epoch [2-9] of 40")
    parties = children(first.process.pid)
    assert len(parties) == 3
    text = first.interrupt()
    assert "Go on with:\n  cutlayer local study.toml --out here" in text
    assert not any(Path(f"/proc/{pid}").exists() for pid in parties)
    assert not (one.folder / "here" / "keys").exists()

    second = one.run(*words, name="second")
    second.says(r"server: all are there: going on from \d+/\d+")
    second.says("epoch .* of 40, step")
    pid = next(p for p, line in children(second.process.pid).items() if "--as client-1" in line)
    os.kill(pid, signal.SIGKILL)
    second.says("client-1 was ended by SIGKILL: it is started again")
    text = second.ends()
    assert re.search(r"│ client-1 +│ client +│ +[\d,]+ │ +[\d,]+ │ +[\d,]+ │ +2 │", text), text
    assert re.search(r"All [\d,]+ weights of head, top equal the simulation's, bit for bit\.", text)
    one.check_weights(one.folder / "here")


def test_a_rehearsal_in_the_background_of_a_shell_ends_its_parties_in_order(rehearse):
    one = rehearse(200)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what it starts with &
    try:
        going = one.run("local", "study.toml", "--out", "here", name="background")
    finally:
        signal.signal(signal.SIGINT, before)
    going.says("epoch [2-9] of 200")
    going.process.terminate()
    assert "Go on with:\n  cutlayer local study.toml --out here" in going.ends(143)
    for party in PARTIES:
        assert read_disclosures(one.folder / "here" / party).closed, party


def test_a_rehearsal_of_another_study_is_left_alone(rehearse, monkeypatch):
    one = rehearse(1)
    monkeypatch.chdir(one.folder)
    (one.folder / "here").mkdir()
    (one.folder / "here" / "rehearsal.json").write_text('{"seed": "other"}')
    refused = CliRunner().invoke(app, ["local", "study.toml", "--out", "here"])
    assert refused.exit_code == 1
    assert "the rehearsal in here is of another study" in refused.stderr


def test_a_party_that_fails_ends_the_rehearsal_with_its_words(rehearse):
    one = rehearse(1)
    damaged = one.folder / "here" / "client-0" / "approved.json"
    one.run("local", "study.toml", "--out", "here", name="first").ends(0)
    damaged.write_text("damaged")
    text = one.run("local", "study.toml", "--out", "here", "--keep-keys", name="failing").ends(1)
    assert "client-0 ended with an error" in text and "approved.json cannot be read" in text
    assert "Expecting value" in (one.folder / "here" / "output" / "client-0.txt").read_text()
    assert (one.folder / "here" / "keys" / "client-0" / "key.pem").exists()
