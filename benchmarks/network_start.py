"""From ``cutlayer join`` to the first step, when all others wait.

The digits of three clinics, dealt into a folder for each party, trained by the commands themselves: ``cutlayer
serve`` and two clinics are there already when ``cutlayer join`` of the first clinic is started, with its approval
given. The clock runs from the start of that process to the first frame in its disclosure log: study built, connected,
let in, and a forward done. Held against ``python -c "import torch"``, a process too; both in turn.

Ends with 1 if it takes more than 1 s longer than the import of PyTorch.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import measuring

MAX_SECONDS = 1.0
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "digits" / "study.toml"
FIRST, OTHERS, HOST = "client-0", ("client-1", "client-2"), "server"
CUTLAYER = (sys.executable, "-m", "cutlayer.cli")
PATIENCE_S = 60.0


def prepare(folder: Path) -> str:
    """Deal the data, make keys; return the study's digest."""

    def do(*words: str | Path) -> str:
        done = subprocess.run([*CUTLAYER, *map(str, words)], cwd=folder, capture_output=True, text=True)
        return done.stdout + done.stderr

    do("deal", EXAMPLE, "--out", "dealt")
    do("keys", "init", "--study", "digits")
    for party in (HOST, FIRST, *OTHERS):
        do("keys", "issue", party)
    study = folder / "dealt" / FIRST / "study.toml"
    refused = do(
        "join", study, "--as", FIRST, "--keys", f"keys/{FIRST}", "--out", "asked", "--approve", "0" * 64
    )
    shutil.rmtree(folder / "asked", ignore_errors=True)
    found = re.search(r"digest\s+([0-9a-f]{64})", refused.replace("\n", " "))
    if found is None:
        sys.exit(f"the study's digest is not known: {refused}")
    return found.group(1)


@contextlib.contextmanager
def party(folder: Path, name: str, port: int, digest: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a party; it is ended at the end."""
    study = folder / "dealt" / name / "study.toml"
    common = [
        "--keys",
        folder / "keys" / name,
        "--out",
        folder / "runs" / name,
        "--approve",
        digest,
        "--no-report",
    ]
    words = ["serve", study, "--listen", f"localhost:{port}"]
    if name != HOST:
        words = ["join", study, "--as", name, "--address", f"localhost:{port}"]
    with (folder / f"{name}.txt").open("wb") as output:
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        command = [*CUTLAYER, *map(str, [*words, *common])]
        with subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment) as process:
            try:
                yield process
            finally:
                process.kill()


def wait_for(what: str, path: Path, process: subprocess.Popen[bytes]) -> str:
    """Return the first line of a file that has ``what``, once it is there."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            if what in line:
                return line
        time.sleep(0.02)
    return sys.exit(f"no {what!r} in {path}: {path.read_text() if path.exists() else ''}")


def joining(folder: Path, digest: str) -> float:
    """Return the seconds from the start of the first clinic's process to its first frame."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    with socket.create_server(("localhost", 0)) as listener:
        port = listener.getsockname()[1]
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(party(folder, HOST, port, digest))
        wait_for("listens", folder / f"{HOST}.txt", host)
        for name in OTHERS:
            other = stack.enter_context(party(folder, name, port, digest))
            wait_for("connected", folder / f"{name}.txt", other)
        began = time.time()
        process = stack.enter_context(party(folder, FIRST, port, digest))
        line = wait_for('"entry":"frame"', folder / "runs" / FIRST / "disclosure.log", process)
        return datetime.fromisoformat(json.loads(line)["time"]).timestamp() - began


def importing() -> float:
    """Return the seconds of a process that imports PyTorch and ends."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - began


def measure(rounds: int) -> measuring.Figures:
    """Return the seconds of both and what joining takes beyond."""
    with tempfile.TemporaryDirectory(prefix="cutlayer-") as name:
        folder = Path(name)
        digest = prepare(folder)
        found = measuring.in_turn(
            {"join": lambda: joining(folder, digest), "import_torch": importing}, rounds, warm_up=False
        )
    beyond = [a - b for a, b in zip(found.values["join"], found.values["import_torch"], strict=True)]
    return {
        "seconds": found.medians(),
        "seconds_beyond_import_torch": statistics.median(beyond),
        "rounds": rounds,
        "max_seconds_beyond": MAX_SECONDS,
    }


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    beyond = figures["seconds_beyond_import_torch"]
    missed = beyond > MAX_SECONDS and not figures["quick"]
    return [f"{beyond:.2f} s, at most {MAX_SECONDS:g} is wanted"] if missed else []


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print("Seconds from `cutlayer join` to the first frame:")
    figures = measure(1 if arguments.quick else arguments.rounds) | {"quick": arguments.quick}
    beyond = figures["seconds_beyond_import_torch"]
    print(f"{beyond:.2f} s beyond the import of PyTorch")
    return measuring.finish("network_start", figures, failures(figures))


if __name__ == "__main__":
    sys.exit(main())
