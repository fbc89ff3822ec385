"""The page for operators names commands, units, files and lines that there are."""

from __future__ import annotations

import re
import shlex

import pytest
from real_cli import DEPLOY, understood

ROOT = DEPLOY.parent
PAGE = (ROOT / "docs" / "deployment.md").read_text()
WHOLE = re.sub(r"\\\n\s*", "", PAGE)
COMMANDS = re.findall(r"^\s*(?:\$ )?cutlayer (\w.*)$", WHOLE, re.MULTILINE)
COMMANDS += re.findall(r"--memory 4g .* cutlayer (join .*)$", WHOLE, re.MULTILINE)
COMMANDS += re.findall(r"`cutlayer ((?:keys|join|serve) [^`]+)`", PAGE)


def test_the_commands_are_found():
    assert {"fields", "describe", "keys", "join"} <= {line.split()[0] for line in COMMANDS}
    assert sum("/study/study.toml" in line for line in COMMANDS) == 1


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_one_of_the_command_line(line: str):
    assert understood(shlex.split(line))


def test_files_and_units_are_there():
    for path in re.findall(r"\bdeploy/[\w./*-]*\w", PAGE):
        assert list(ROOT.glob(path)), path
    for unit in re.findall(r"\b(cutlayer-\w+@)\w+", PAGE):
        assert (DEPLOY / "systemd" / f"{unit}.service").is_file(), unit


def test_it_names_the_states_files_as_the_package_does():
    from cutlayer.metering.disclosures import LOG_NAME
    from cutlayer.sessions.approval import FILE

    assert f"`{LOG_NAME}`" in PAGE and f"`{FILE}`" in PAGE


def test_it_names_the_times_of_the_network():
    from cutlayer.transports.network import NetworkSettings

    settings = NetworkSettings()
    assert settings.beat_s == 1 and "every second" in PAGE
    assert f"for {settings.silence_s:g} s is made anew" in PAGE
