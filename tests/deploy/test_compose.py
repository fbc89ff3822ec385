"""The Compose example says what it means, and what it says works, but for the containers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from connect_proxy import connect_proxy
from real_cli import CUTLAYER, DEPLOY, free_port, run_all, understood

HERE = DEPLOY / "compose"
COMPOSE = yaml.safe_load((HERE / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
HOSPITALS = ["hospital-a", "hospital-b"]
SETTINGS = {"CUTLAYER_APPROVE": "0123456789abcdef", "CUTLAYER_USER": "1000:1000"}


def filled_in(text: str, values: Mapping[str, str]) -> str:
    """Put variables in, as Compose does: ``${NAME:-default}`` and ``${NAME:?message}``."""

    def value(match: re.Match[str]) -> str:
        if match["name"] in values:
            return values[match["name"]]
        assert match["how"] == ":-", f"{match['name']} is not set"
        return match["word"]

    return re.sub(r"\$\{(?P<name>\w+)(?P<how>:[-?])(?P<word>[^}]*)\}", value, text)


def mounts(service: str) -> dict[str, tuple[str, str]]:
    """Return path in the container: path on the machine, and how it may be used."""
    split = [volume.split(":") for volume in SERVICES[service]["volumes"]]
    return {words[1]: (words[0], words[2] if len(words) > 2 else "rw") for words in split}


def command(service: str, values: Mapping[str, str]) -> list[str]:
    return filled_in(SERVICES[service]["command"], values).split()


def _has_compose() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0


@pytest.mark.skipif(
    not _has_compose(),
    reason="docker compose is not here: https://docs.docker.com/compose/install (no engine has to run)",
)
def test_compose_takes_the_file():
    words = ["docker", "compose", "--file", str(HERE / "compose.yaml"), "config", "--quiet"]
    found = subprocess.run(words, env={**os.environ, **SETTINGS}, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_its_network_is_that_of_the_digits_example():
    """Both folders are whole in themselves, to be copied; what they train is the same."""
    example = DEPLOY.parent / "examples" / "digits" / "model.py"
    assert (HERE / "model.py").read_text() == example.read_text()


def test_the_services_are_the_parties_of_the_study():
    study = tomllib.loads((HERE / "study.toml").read_text())
    assert list(SERVICES) == ["server", *HOSPITALS]
    assert set(study["parties"]) == set(SERVICES)
    name, port = study["network"]["address"].split(":")
    assert study["parties"][name] == "server" and SERVICES[name]["ports"][0].endswith(f":{port}")
    assert f"0.0.0.0:{port}" in SERVICES[name]["command"].split()
    assert SERVICES[name]["healthcheck"]["test"][-1] == port


@pytest.mark.parametrize("service", SERVICES)
def test_commands_are_those_of_the_command_line(service: str):
    words = command(service, SETTINGS)
    found = understood(words)
    assert words[0] == ("serve" if service == "server" else "join")
    assert found.get("party", service) == service
    for name, path in (("study", "/study/study.toml"), ("keys", "/keys"), ("out", "/state")):
        assert found[name] == Path(path)


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_has_no_rights_that_it_does_not_need(service: str):
    about = SERVICES[service]
    assert about["read_only"] and about["cap_drop"] == ["ALL"]
    assert about["security_opt"] == ["no-new-privileges:true"]
    assert (
        about["mem_limit"] == about["memswap_limit"]
        and about["pids_limit"]
        and about["ulimits"] == {"core": 0}
    )
    assert not about.keys() & {"privileged", "cap_add", "network_mode", "pid", "devices"}
    assert about["restart"] == "on-failure"
    assert filled_in(about["user"], SETTINGS) == "1000:1000"
    assert {path: how for path, (_, how) in mounts(service).items()} == {
        "/study": "ro",
        "/keys": "ro",
        "/state": "rw",
    }


def test_no_party_sees_what_is_anothers():
    everywhere = [source for service in SERVICES for source, _ in mounts(service).values()]
    assert len(everywhere) == len(set(everywhere)) == 3 * len(SERVICES)
    for service in SERVICES:
        assert {Path(source).name for source, _ in mounts(service).values()} == {service}


def test_a_hospital_reaches_the_server_and_nobody_else():
    for hospital in HOSPITALS:
        (network,) = SERVICES[hospital]["networks"]
        assert COMPOSE["networks"][network] == {"internal": True}
        assert [name for name in SERVICES if network in SERVICES[name]["networks"]] == ["server", hospital]
        assert "ports" not in SERVICES[hospital]
    (inside,) = {name for name in SERVICES["server"]["networks"] if name not in HOSPITALS}
    assert not COMPOSE["networks"][inside].get("internal")


def test_the_image_is_built_from_files_that_are_there():
    build = SERVICES["server"]["build"]
    root = (HERE / build["context"]).resolve()
    assert root == DEPLOY.parent and (root / build["dockerfile"]).is_file()
    assert {service["image"] for service in SERVICES.values()} == {"cutlayer"}


def test_what_prepare_makes_is_kept_out_of_git_and_images():
    ignored = (HERE / ".gitignore").read_text().split()
    made = {source.split("/")[1] + "/" for name in SERVICES for source, _ in mounts(name).values()}
    assert made | {".env"} <= set(ignored)


@pytest.mark.skipif(sys.platform == "win32", reason="prepare.sh is a shell script")
def test_the_study_is_trained_as_the_file_says(tmp_path: Path):
    """Prepare, then every service's own command as a process, with its volumes as plain folders.

    The hospitals reach the server by the name of its service, through a proxy, which sees TLS and nothing else.
    """
    here = tmp_path / "compose"
    shutil.copytree(HERE, here, ignore=shutil.ignore_patterns("parties", "keys", "state", ".env"))
    port, study = free_port(), here / "study.toml"
    study.write_text(study.read_text().replace("server:7443", f"server:{port}"))
    values = _prepare(here)
    commands = {name: _outside(name, here, port, values) for name in SERVICES}
    before = sorted((here / "parties").rglob("*"))
    environment = SERVICES["server"]["environment"] | {"HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)}
    with connect_proxy(server="127.0.0.1") as proxy:
        run_all(commands, tmp_path, environment | {"https_proxy": f"http://{proxy.address}"}, 240)

    assert set(proxy.asked) == {f"server:{port}"} and len(proxy.first) >= len(HOSPITALS)
    assert all(first.startswith(b"\x16\x03") for first in proxy.first), "a TLS handshake begins so"

    for service in SERVICES:
        state = here / "state" / service
        assert {"log.jsonl", "disclosure.log", "report.html"} <= {path.name for path in state.iterdir()}
        assert json.loads((state / "approved.json").read_text())[-1]["digest"].startswith(
            values["CUTLAYER_APPROVE"]
        )
    assert (here / "state/server/model").is_dir()
    assert sorted((here / "parties").rglob("*")) == before, "/study is read-only"


def _prepare(here: Path) -> dict[str, str]:
    """Run prepare.sh, check that all that is mounted is there then, and return its settings."""
    environment = {"CUTLAYER": " ".join(CUTLAYER), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    first, again = (
        subprocess.run(["./prepare.sh"], cwd=here, env=environment, capture_output=True, text=True)
        for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    assert again.returncode == 1 and "nothing is overwritten" in again.stderr
    values = dict(line.split("=") for line in (here / ".env").read_text().split())
    assert not values["CUTLAYER_USER"].startswith("0:"), "never as root"
    owner = int(values["CUTLAYER_USER"].split(":")[0])
    assert f"digest {values['CUTLAYER_APPROVE']}" in (here / "statement.txt").read_text()
    for service in SERVICES:
        for source, _ in mounts(service).values():
            assert (here / source).is_dir() and (here / source).stat().st_uid == owner, source
    return values


def _outside(service: str, here: Path, port: int, values: Mapping[str, str]) -> list[str]:
    """Return a service's command as it is outside of its container."""
    words = [word.replace("0.0.0.0:7443", f"127.0.0.1:{port}") for word in command(service, values)]
    for inside, (source, _) in mounts(service).items():
        words = [re.sub(rf"^{inside}(?=/|$)", str(here / source), word) for word in words]
    return [*CUTLAYER, *words]
