"""The container file copies what is there and what the package needs, and no more than the build may see."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

from real_cli import DEPLOY, understood

ROOT = DEPLOY.parent
TEXT = (DEPLOY / "container" / "Containerfile").read_text()
LISTENING = DEPLOY / "container" / "listening.py"


def instructions(name: str, text: str = TEXT) -> list[str]:
    """Return what follows each ``NAME``, with its continued lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [" ".join(line.split()[1:]) for line in joined.splitlines() if line.split()[:1] == [name]]


def copied() -> list[str]:
    """Return what is copied from the context, as paths."""
    return [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]


def let_in(path: str) -> bool:
    """Return whether .dockerignore lets ``path`` into the context: the last line that fits decides."""
    wanted = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!").removeprefix("**/")
        if not pattern or pattern.startswith("#"):
            continue
        parents = [path, *map(str, Path(path).parents)]
        deep = [part for whole in parents for part in (whole, Path(whole).name)] if "**/" in line else parents
        if any(fnmatch.fnmatchcase(part, pattern) for part in deep):
            wanted = line.startswith("!")
    return wanted


def test_what_is_copied_is_there_and_let_in():
    assert {"src", "pyproject.toml", "constraints.txt"} <= set(copied())
    for path in copied():
        assert (ROOT / path).exists() and let_in(path), path
    assert let_in("src/cutlayer/cli/join.py")


def test_nothing_else_is_let_in():
    for path in (
        ".git/config",
        "deploy/compose/keys/server/key.pem",
        "keys/authority/key.pem",
        ".venv/bin/python",
    ):
        assert not let_in(path), path
    assert not let_in("src/cutlayer/__pycache__/errors.pyc") and not let_in("src/cutlayer.egg-info/PKG-INFO")
    assert not [path for path in ROOT.iterdir() if let_in(path.name) and path.name not in copied()]


def test_the_package_can_be_built_from_what_is_copied(tmp_path: Path):
    for path in copied():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(
                ROOT / path, tmp_path / path, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            shutil.copy(ROOT / path, tmp_path / path)
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    made = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    inside = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py")}
    assert inside <= set(names)
    assert any(name.endswith(".css") for name in names) and any(name.endswith(".j2") for name in names)


def test_the_last_stage_runs_as_nobody_special_and_installs_nothing():
    last = TEXT[TEXT.rindex("\nFROM ") :]
    assert instructions("USER", last) == ["10001:10001"]
    (run,) = instructions("RUN", last)
    assert "apt-get" not in run and "pip install" not in run and "pip uninstall" in run
    assert json.loads(instructions("ENTRYPOINT", last)[0]) == ["cutlayer"]
    assert "[network" in TEXT


def test_all_that_is_written_lies_below_state_or_tmp():
    last = TEXT[TEXT.rindex("\nFROM ") :]
    (told,) = instructions("ENV", last)
    places = {name: value for name, value in (word.split("=", 1) for word in told.split()) if value[0] == "/"}
    assert places.pop("PATH").startswith("/opt/cutlayer/bin:")
    assert places == {"HOME": "/tmp", "MPLCONFIGDIR": "/state/.cache/matplotlib"}
    assert instructions("WORKDIR", last) == ["/state"]


def test_the_health_check_is_the_copied_program():
    (check,) = instructions("HEALTHCHECK")
    words = json.loads(check[check.index("[") :])
    (target,) = [line.split()[-1] for line in instructions("COPY") if "listening.py" in line]
    assert words[:2] == ["python", target] and instructions("EXPOSE") == [words[2]]


def test_the_health_check_tells_who_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        assert subprocess.run([sys.executable, str(LISTENING), port]).returncode == 0
    gone = subprocess.run([sys.executable, str(LISTENING), port], capture_output=True, text=True)
    assert gone.returncode == 1 and f"nothing listens at port {port}" in gone.stderr


def test_the_way_to_prepare_without_cutlayer_is_a_way_to_run_the_image():
    text = (DEPLOY / "compose" / "prepare.sh").read_text()
    assert re.search(r'CUTLAYER="docker run .* cutlayer" \./prepare\.sh', text)
    for line in re.findall(r"^\s*(?:digest=\$\()?\$cutlayer (.*)$", text, re.MULTILINE):
        words = line.split(" > ")[0].replace('"', "").replace("$party", "server").replace("$host", "")
        assert understood(words.split()), words
