"""``cutlayer keys``: the whole flow of a lead and its parties, and what goes wrong in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cutlayer.cli import app
from cutlayer.errors import IdentityError
from cutlayer.keys import Authority, Credentials

COMMANDS = ["init", "issue", "request", "sign", "install", "renew", "revoke", "show"]


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["keys", *map(str, words)])


def done(*words: str | Path) -> str:
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: str | Path) -> str:
    result = run(*words)
    assert result.exit_code == 1, result.output
    assert result.output.startswith("Error: ")
    return result.output


def prints(text: str) -> list[str]:
    """Return the fingerprints in a text."""
    return re.findall(r"(?:[0-9a-f]{4} ){15}[0-9a-f]{4}", text)


@pytest.fixture
def lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study's authority; the current one."""
    monkeypatch.chdir(tmp_path)
    done("init", "--study", "heart study")
    return tmp_path


def test_the_lead_makes_everything(lead: Path) -> None:
    text = done("issue", "server", "--host", "study.example.org", "--host", "192.0.2.7", "--days", "7")
    found = Credentials.load("keys/server")
    assert found.party == "server" and "heart" not in found.study and 6.9 < found.days_left <= 7
    assert prints(text) == [found.fingerprint]
    (line,) = Authority.open("keys/authority").issued()
    assert line.hosts == ("study.example.org", "192.0.2.7")


def test_a_party_makes_its_own_key(lead: Path) -> None:
    asked = done("request", "hospital-a", "--out", "home")
    shown = done("show", "home/request.pem")
    signed = done("sign", "home/request.pem", "--party", "hospital-a")
    assert len(prints(asked)) == 1 and prints(asked) == prints(signed) == prints(shown)
    taken = done("install", "keys/signed/hospital-a", "--out", "home")
    assert prints(taken) == [Authority.open("keys/authority").fingerprint]
    assert Credentials.load("home").party == "hospital-a"
    assert not (lead / "keys" / "signed" / "hospital-a" / "key.pem").exists()


def test_a_party_renews_its_own_key(lead: Path) -> None:
    done("request", "hospital-a")
    done("sign", "keys/hospital-a/request.pem", "--party", "hospital-a")
    done("install", "keys/signed/hospital-a")
    before = Credentials.load("keys/hospital-a")
    assert "--renew" in refused("request", "hospital-a")
    done("request", "hospital-a", "--renew")
    assert "--renew" in refused("sign", "keys/hospital-a/request.pem", "--party", "hospital-a")
    done("sign", "keys/hospital-a/request.pem", "--party", "hospital-a", "--renew")
    done("install", "keys/signed/hospital-a")
    assert Credentials.load("keys/hospital-a").key != before.key


def test_renew_and_revoke(lead: Path) -> None:
    done("issue", "ann")
    done("issue", "ben")
    old = Credentials.load("keys/ben")
    done("renew", "ben")
    assert Credentials.load("keys/ben").certificate != old.certificate
    text = done("revoke", "ben", "--reason", "laptop stolen")
    assert text.count("Revoked: ben") == 2 and "keys/authority/revoked.pem" in text
    taken = done("install", "keys/authority/revoked.pem", "--out", "keys/ann")
    assert "keys/ann knows of 2 revoked certificates now" in taken
    with pytest.raises(IdentityError, match="was revoked"):
        Credentials.load("keys/ann").verify(old.certificate)
    assert "say --out" in refused("install", "keys/authority/revoked.pem")


def test_show(lead: Path) -> None:
    done("issue", "ann")
    done("issue", "ben", "--days", "3")
    done("revoke", "ben", "--reason", "left the study")
    found = Credentials.load("keys/ann")
    text = done("show", "keys/ann")
    assert prints(text) == [found.fingerprint, found.authority_fingerprint]
    assert "ann" in text and "30 days left" in text and "study " in text and "heart" not in text
    assert prints(done("show", "keys/ann/certificate.pem")) == [found.fingerprint]
    table = done("show")
    assert "365 days left" in table and "30 days left" in table and "left the study" in table
    assert prints(table)[0] == found.authority_fingerprint


def test_show_says_what_does_not_hold(lead: Path) -> None:
    done("issue", "ann")
    done("revoke", "ann")
    done("install", "keys/authority/revoked.pem", "--out", "keys/ann")
    result = run("show", "keys/ann")
    assert result.exit_code == 1
    assert "Party:       ann" in result.output and "was revoked" in result.output


def test_what_goes_wrong_is_one_line(lead: Path) -> None:
    assert "nothing is overwritten" in refused("init", "--study", "heart study")
    assert "cannot be the name of a party" in refused("issue", "../ann")
    assert "keys init" in refused("issue", "ann", "--authority", "elsewhere")
    assert "no certificate was issued" in refused("revoke", "ann")
    assert "there is no request" in refused("sign", "request", "--party", "ann")
    assert "there is no keys/nobody" in refused("show", "keys/nobody")
    (lead / "letter.txt").write_text("dear")
    assert "no certificate in PEM" in refused("show", "letter.txt")
    done("request", "mallory")
    assert "asks for another name" in refused("sign", "keys/mallory/request.pem", "--party", "ann")


def test_help_teaches_the_whole_flow() -> None:
    text = done("--help")
    for command in COMMANDS:
        assert command in text
    for command in COMMANDS[:-1]:
        assert re.search(rf"cutlayer keys {command} \S", text)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_shows_examples(command: str) -> None:
    assert re.search(rf"^\s*cutlayer keys {command}\b", done(command, "--help"), re.MULTILINE)


def test_help_loads_neither_cryptography_nor_torch() -> None:
    code = (
        "import sys, cutlayer.cli.keys; "
        "sys.exit(bool({'torch', 'numpy', 'cryptography', 'grpc'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_keys_need_no_torch(lead: Path) -> None:
    code = "import sys, cutlayer.keys; sys.exit(bool({'torch', 'grpc'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
