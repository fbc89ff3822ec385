"""A virtual environment for each peer, with pinned versions; what cannot be installed is told, not hidden."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / ".environments"
TORCH = "torch==2.13.0"
MOST_SECONDS = 480


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a peer needs.

    Attributes:
        name: Its folder's name.
        pins: What pip installs, the peer first.
    """

    name: str
    pins: tuple[str, ...]


NVFLARE = Environment(name="nvflare", pins=("nvflare==2.9.0", TORCH))
TORCHSLICER = Environment(name="torchslicer", pins=("torchslicer[grpc]==0.2.0", TORCH))
FATE = Environment(name="fate", pins=("pyfate==2.2.0", "fate_client==2.2.0", TORCH))
ENVIRONMENTS = (NVFLARE, TORCHSLICER, FATE)
OTHERS = (
    Environment(name="flower", pins=("flwr[simulation]==1.42.0", TORCH)),
    Environment(name="secretflow", pins=("secretflow==1.14.0b0", TORCH)),
    Environment(name="fedml", pins=("fedml==0.9.6", TORCH)),
    Environment(name="syft", pins=("syft==0.10.0", TORCH)),
    Environment(name="splitbud", pins=("splitbud",)),
    Environment(name="splitfed", pins=("splitfed",)),
    Environment(name="splitlearn", pins=("splitlearn",)),
)
"""Packages that are looked for and not measured; `run.py --others` tells what pip says of each today."""


class NotInstalled(Exception):
    """A peer cannot be installed; the words are pip's own."""


def prepared(environment: Environment) -> Path:
    """Return the Python of ``environment``, which is made if it is not there.

    Raises:
        NotInstalled: If pip fails, or takes longer than `MOST_SECONDS`.
    """
    folder = FOLDER / environment.name
    python, done = folder / "bin" / "python", folder / "pins.json"
    if done.exists() and json.loads(done.read_text()) == list(environment.pins):
        return python
    print(f"  installing {', '.join(environment.pins)} in {folder}", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    _pip(python, ["install", *environment.pins])
    done.write_text(json.dumps(environment.pins))
    return python


def tried(environment: Environment) -> str:
    """Return what pip says of an installation that is worked out and not made."""
    folder = FOLDER / "others"
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    try:
        _pip(folder / "bin" / "python", ["install", "--dry-run", *environment.pins])
    except NotInstalled as failure:
        return str(failure)
    return "pip finds versions that fit together"


def versions(python: Path, environment: Environment) -> dict[str, str]:
    """Return the versions of what was pinned."""
    done = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    pinned = {_plain(pin) for pin in environment.pins}
    return {one["name"]: one["version"] for one in json.loads(done.stdout) if _plain(one["name"]) in pinned}


def _plain(name: str) -> str:
    return name.partition("=")[0].partition("[")[0].lower().replace("-", "_")


def _pip(python: Path, words: Sequence[str]) -> None:
    command = [str(python), "-m", "pip", *words, "--disable-pip-version-check", "--quiet"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"not done after {MOST_SECONDS} s") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        told = (errors or done.stderr.splitlines() or ["no word"])[-1]
        raise NotInstalled(f"Python {sys.version.split()[0]}: {told[:300]}")
