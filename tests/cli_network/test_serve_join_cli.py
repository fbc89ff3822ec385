"""``cutlayer serve`` and ``cutlayer join`` as real processes over TLS on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_rehearsals import PARTIES, Rehearsal
from typer.testing import CliRunner

from cutlayer.cli import app
from cutlayer.metering.disclosures import read_disclosures

NOTE = re.compile(r"^\d\d:\d\d:\d\d \S", re.MULTILINE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str], Rehearsal]]:
    """A study that was trained by three processes: the folder, and what each said."""
    one = Rehearsal(tmp_path_factory.mktemp("trained"), epochs=4)
    words = {"server": [], "client-0": ["--json"], "client-1": ["--no-report"]}
    try:
        for party in PARTIES:
            one.start(party, "--approve", one.study.digest, *words[party])
        yield one.folder / "runs" / "small", {words.path.stem: words.ends() for words in one.running}, one
    finally:
        one.close()


def test_the_weights_are_the_simulations(trained):
    folder, _, rehearsal = trained
    rehearsal.check_weights(folder)


def test_everything_lies_where_it_is_said_to(trained):
    folder, said, _ = trained
    assert "this party is kept in runs/small/server" in said["server"]
    assert "half of the network: runs/small/server/model  (top)" in said["server"]
    assert (folder / "server" / "report.html").read_text().startswith("<!")
    assert not (folder / "client-1" / "report.html").exists()
    for party in PARTIES:
        approved = json.loads((folder / party / "approved.json").read_text())
        assert [one["how"] for one in approved] == ["--approve"]
        told = read_disclosures(folder / party)
        assert told.closed and told.party == party
        assert f"its head is {told.head}" in said[party]


def test_in_a_pipe_there_are_lines_and_not_many(trained):
    _, said, _ = trained
    lines = said["client-1"].splitlines()
    assert len(lines) < 60
    assert len(NOTE.findall(said["client-1"])) > 10
    assert "takes part with data of parties/client-1: rows train" in said["client-1"]
    assert re.search(r"epoch \d of 4, step \d+ of \d+", said["client-1"])
    assert "\x1b" not in said["client-1"]


def test_who_computes_the_loss_is_told_metrics_and_nobody_else(trained):
    _, said, _ = trained
    assert len(re.findall(r"loss on test .*accuracy 0\.\d+", said["server"])) == 4
    assert "accuracy" not in said["client-1"] and "metrics" not in said["client-0"]
    assert "loss 0." not in said["client-1"]


def test_json_is_one_object_a_line(trained):
    _, said, _ = trained
    kinds = [json.loads(line)["kind"] for line in said["client-0"].splitlines()]
    assert {"note", "standing", "epoch"} <= set(kinds)


def test_another_study_is_refused_and_both_are_told_which_part_differs(rehearse):
    one = rehearse(4)
    server = one.start("server", "--approve", one.study.digest)
    path = one.folder / "parties" / "client-0" / "study.toml"
    path.write_text(path.read_text().replace('name = "small"', 'name = "small"\nseed = 7'))
    other = CliRunner().invoke(app, ["describe", str(path)]).output
    digest = re.search(r"digest (\w{32})", other)[1]
    server.says("listens on")
    said = one.start("client-0", "--approve", digest).ends(1)
    assert "the host refuses this party" in said
    assert "seed, weights differ" in said and "all parties must use the same study file" in said
    server.says(r"client-0: refused: .*seed, weights differ")
    text = server.interrupt()
    assert "Go on with:\n  cutlayer serve parties/server/study.toml" in text
    assert "--approve" not in text.split("Go on with:")[1]


def test_whoever_is_interrupted_goes_on_later_with_the_same_bits(rehearse):
    one = rehearse(25)
    server, first, second = (
        one.start(party, "--no-report", "--approve", one.study.digest) for party in PARTIES
    )
    first.says("epoch 2 done")
    text = first.interrupt()
    assert "Go on with:\n  cutlayer join parties/client-0/study.toml --as client-0" in text
    second.says("waiting for client-0|client-0 has ended")
    again = one.start("client-0", "--no-report", name="client-0-again")
    again.says("epoch .* done")
    server.interrupt()
    second.says("not connected: ")
    back = one.start("server", "--no-report", name="server-again")
    for words in (back, again, second):
        words.ends()
    assert "going on in runs/small/client-0" in again.text
    assert re.search(r"approved on .* UTC: digest", again.text)
    assert second.text.count("nobody listens") <= 2  # at the beginning, and when the host was away
    one.check_weights(one.folder / "runs" / "small")


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one = Rehearsal(tmp_path, epochs=1)
    monkeypatch.chdir(tmp_path)
    study = str(Path("parties") / "client-0" / "study.toml")
    for words, expected in (
        (["join", study, "--as", "client-7"], "study.toml has no party 'client-7'"),
        (
            ["join", study, "--as", "server"],
            "'server' is the host of this study; start it with: cutlayer serve",
        ),
        (["join", study, "--as", "client-0", "--keys", "keys/client-1"], "are somebody else's; got client-1"),
        (
            ["join", study, "--as", "client-0", "--data", "nowhere", "--approve", one.study.digest],
            "no folder nowhere",
        ),
        (
            ["join", study, "--as", "client-0", "--device", "gpu", "--approve", one.study.digest],
            "PyTorch knows no device 'gpu'",
        ),
    ):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 1, result.output
        assert expected in result.stderr
