"""The units are valid, confine what they run, use options that exist, and a study can be trained under them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest
from confined import LIBRARY, calls_allowed, settings
from real_cli import CUTLAYER, DEPLOY, free_port, run_all, understood

from cutlayer.keys import Authority
from cutlayer.study_file import load_study

HERE = DEPLOY / "systemd"
UNITS = sorted(HERE.glob("*.service"))
WORST = 1.5
"""What systemd-analyze may rate a unit at most: 0 is closed, 10 wide open."""

with_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is not installed (Debian, Ubuntu: apt install systemd); systemd need not run",
)
with_seccomp = pytest.mark.skipif(
    find_library("seccomp") is None,
    reason=f"{LIBRARY} is not installed (Debian, Ubuntu: apt install libseccomp2)",
)


def filled_in(unit: Path, values: dict[str, str], study: str = "heart") -> list[str]:
    """Return the words that systemd would run: ``%i`` and ``${NAME}`` put in, ``$NAME`` split into words."""
    (line,) = settings(unit, "ExecStart")
    words: list[str] = []
    for word in line.replace("%i", study).split():
        whole = re.fullmatch(r"\$(\w+)", word)
        words += values[whole[1]].split() if whole else [re.sub(r"\$\{(\w+)\}", lambda m: values[m[1]], word)]
    return words


def environment(unit: Path, study: str) -> dict[str, str]:
    """Return what the unit sets."""
    words = " ".join(settings(unit, "Environment")).replace("%i", study).split()
    return dict(word.split("=", 1) for word in words)


def example() -> dict[str, str]:
    """Return what settings.example sets."""
    lines = (HERE / "settings.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_command_is_one_of_the_command_line(unit: Path):
    program, *words = filled_in(unit, example() | {"APPROVE": "0123456789abcdef"})
    found = understood(words)
    assert Path(program).name == "cutlayer"
    assert words[0] == unit.name.removeprefix("cutlayer-").removesuffix("@.service")
    assert found["keys"] == Path("/etc/cutlayer/heart/keys") and found["out"] == Path(
        "/var/lib/cutlayer/heart"
    )
    more = understood([*words, "--threads", "4", "--no-report"])
    assert more["threads"] == 4


def test_the_options_that_the_example_names_exist():
    named = set(re.findall(r"--\w+", (HERE / "settings.example").read_text()))
    assert named == {"--threads", "--address", "--approve"}
    words = ["join", "s.toml", "--as", "a", "--threads", "4", "--address", "study.example.org:7443"]
    found = understood([*words, "--approve", "0" * 64, "--approve", "1" * 64])
    assert found["address"] == "study.example.org:7443" and found["approve"] == ["0" * 64, "1" * 64]


def test_each_setting_is_used_and_each_used_one_is_explained():
    used = {name for unit in UNITS for name in re.findall(r"\$\{?([A-Z]+)", settings(unit, "ExecStart")[0])}
    assert used == example().keys()


def test_both_units_are_confined_alike():
    first, second = (unit.read_text() for unit in UNITS)
    mark = "# What this service cannot do"
    assert first.partition(mark)[2] == second.partition(mark)[2] != ""


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_killed_or_rebooted_party_comes_back(unit: Path):
    assert settings(unit, "Restart") == ["on-failure"] and settings(unit, "RestartSec") == ["30"]
    assert settings(unit, "StartLimitIntervalSec") == ["0"] and settings(unit, "WantedBy") == [
        "multi-user.target"
    ]
    assert settings(unit, "SuccessExitStatus") == ["143"], "what SIGTERM ends it with"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_what_it_writes_lies_in_folders_of_its_own(unit: Path):
    assert settings(unit, "StateDirectory") == settings(unit, "CacheDirectory") == ["cutlayer/%i"]
    assert settings(unit, "StateDirectoryMode") == settings(unit, "CacheDirectoryMode") == ["0700"]
    assert environment(unit, "heart") == {
        "HOME": "/var/lib/cutlayer/heart", "MPLCONFIGDIR": "/var/cache/cutlayer/heart", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


@with_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_no_fault(unit: Path, tmp_path: Path):
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/cutlayer/bin/cutlayer", sys.executable))
    found = _systemd("verify", "--man=no", "--recursive-errors=no", str(copy))
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


@with_systemd
def test_systemd_does_find_faults(tmp_path: Path):
    copy = tmp_path / UNITS[0].name
    text = UNITS[0].read_text().replace("/opt/cutlayer/bin/cutlayer", sys.executable)
    copy.write_text(text.replace("ProtectSystem=", "ProtectSytem="))
    found = _systemd("verify", "--man=no", "--recursive-errors=no", str(copy))
    assert "ProtectSytem" in found.stderr


@with_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_rates_it_as_well_confined(unit: Path):
    found = _systemd("security", "--offline=true", f"--threshold={WORST * 10:.0f}", str(unit))
    if "offline" in found.stderr:
        pytest.skip(
            "this systemd-analyze rates running units only; one of systemd 250 or later rates files, too"
        )
    rated = re.search(r"exposure level for .*: ([\d.]+)", found.stdout)
    assert rated is not None and float(rated[1]) <= WORST, found.stdout


@with_systemd
@with_seccomp
def test_a_study_is_trained_under_the_units_limits(tmp_path: Path):
    """Host and party as the units start them, with the system calls and sockets that the units leave them."""
    confined = [sys.executable, str(Path(__file__).with_name("confined.py"))]
    commands = {}
    for party, values in _installed(tmp_path).items():
        unit = HERE / f"cutlayer-{'serve' if party == 'server' else 'join'}@.service"
        assert "mount" not in calls_allowed(unit) and "setuid" not in calls_allowed(unit)
        words = [_below(tmp_path, word) for word in filled_in(unit, values, party)[1:]]
        told = [f"{name}={_below(tmp_path, value)}" for name, value in environment(unit, party).items()]
        commands[party] = ["env", *told, *confined, str(unit), *CUTLAYER, *words]
    said = run_all(commands, tmp_path, {}, 240)
    assert "connected" in said["hospital-a"]
    for party in commands:
        assert (tmp_path / "var/lib/cutlayer" / party / "report.html").is_file(), (
            "what ConditionPathExists looks for"
        )
        assert list((tmp_path / "var/cache/cutlayer" / party).glob("fontlist*")), "what matplotlib keeps"


@with_systemd
@with_seccomp
def test_the_limits_do_hold():
    tries = (
        "import os, socket\nfor call in (lambda: os.chroot('/'), lambda: socket.socket(socket.AF_PACKET)):\n"
    )
    tries += " try: call()\n except OSError as error: print(error.errno)\nsocket.socket(); print('done')"
    confined = [sys.executable, str(Path(__file__).with_name("confined.py")), str(UNITS[0])]
    found = subprocess.run([*confined, sys.executable, "-c", tries], capture_output=True, text=True)
    assert found.stdout.split() == ["1", "1", "done"], found.stderr


def _below(root: Path, word: str) -> str:
    """Return ``word`` with the folders of the machine that are this service's below ``root``."""
    return re.sub(r"^/(etc|var/lib|var/cache)/cutlayer/", rf"{root}/\1/cutlayer/", word)


def _installed(folder: Path) -> dict[str, dict[str, str]]:
    """Make etc/cutlayer/PARTY with study and keys, as an administrator would; return each party's settings."""
    port = free_port()
    text = (DEPLOY / "compose" / "study.toml").read_text()
    text = text.replace("server:7443", f"localhost:{port}").replace("epochs = 3", "epochs = 1")
    study = folder / "study.toml"
    study.write_text(text.replace('hospital-b = "client"\n', "").replace("parties = 2", "parties = 1"))
    shutil.copy(DEPLOY / "compose" / "model.py", folder)
    etc = folder / "etc" / "cutlayer"
    folders = load_study(study).deal(etc)
    authority = Authority.create(folder / "authority", "heart")
    digest = load_study(folders["server"] / "study.toml").at("server", None).study.digest
    found = {}
    for party in folders:
        authority.issue(party, etc / party / "keys")
        told = {"PARTY": party, "DATA": str(etc / party), "LISTEN": f"127.0.0.1:{port}", "APPROVE": digest}
        found[party] = example() | told
    return found


def _systemd(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", "--no-pager", *words], capture_output=True, text=True)


def test_the_page_of_the_units_is_where_they_say():
    for unit in UNITS:
        (page,) = settings(unit, "Documentation")
        assert (DEPLOY.parent / "docs" / Path(page).name).is_file()
