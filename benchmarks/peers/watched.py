"""Runs one command where nothing else runs or speaks, and notes its time, memory and bytes.

Started by `benchmarks/peers/run.py` inside `unshare --net --pid --fork --mount-proc`, so that all processes that it
sees are the command's, the loopback interface carries their words only, and none of them outlives it:

    unshare --net --pid --fork --mount-proc python watched.py --out told.json --seconds 120 -- COMMAND

It writes one JSON object: the command's exit status, when it began and ended (on the clock of `time.monotonic`), its
marks (see marks.py), the bytes that went over loopback, headers of TCP and IP included, and of each process the most
memory it ever had.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
LOOK_EVERY_S = 0.2


def raise_loopback() -> None:
    """Switch the loopback interface of this network on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING))


def loopback_bytes(table: str) -> int:
    """Return the bytes that left the loopback interface.

    Args:
        table: Content of ``/proc/net/dev``.
    """
    line = next(line for line in table.splitlines() if line.strip().startswith("lo:"))
    return int(line.partition(":")[2].split()[8])


class Memory:
    """The most memory that each process here ever had."""

    def __init__(self) -> None:
        self._peaks: dict[int, tuple[str, int]] = {}

    def look(self) -> None:
        """Read the peaks of the processes that run now."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                status = (folder / "status").read_text()
            except OSError:  # it has just ended
                continue
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            if "VmHWM" in fields and int(folder.name) != os.getpid():
                self._peaks[int(folder.name)] = (fields["Name"], int(fields["VmHWM"].split()[0]) * 1024)

    def peaks(self) -> list[tuple[str, int]]:
        """Return name and bytes of every process seen, the largest first."""
        return sorted(self._peaks.values(), key=lambda peak: -peak[1])


def followed(path: Path, known: int) -> list[dict[str, Any]]:
    """Return the whole lines of JSON in ``path`` after the first ``known``."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines[known:]]


def watch(command: list[str], log: Path | None, seconds: float) -> dict[str, Any]:
    """Run ``command``, look at it, and return what is to be told.

    Args:
        command: The command.
        log: A log of JSON lines that it writes; its lines count as marks, at the time at which they were seen.
        seconds: After how many it is ended.
    """
    memory, marks, lines = Memory(), Path(os.environ["PEERS_MARKS"]), 0
    seen: list[dict[str, Any]] = []
    began = looked = time.monotonic()
    with subprocess.Popen(command) as process:
        while process.poll() is None and time.monotonic() < began + seconds:
            time.sleep(0.005 if log else LOOK_EVERY_S)
            now = time.monotonic()
            if log:
                new = followed(log, lines) if log.exists() and log.stat().st_size else []
                lines += len(new)
                seen.extend({"at": now, **line} for line in new)
            if now >= looked + LOOK_EVERY_S:
                memory.look()
                looked = now
        status = process.poll()
        if status is None:
            process.kill()
    if log:
        seen.extend({"at": time.monotonic(), **line} for line in followed(log, lines))
    return {
        "status": status,
        "began": began,
        "ended": time.monotonic(),
        "marks": seen + followed(marks, 0),
        "loopback_bytes": loopback_bytes(Path("/proc/net/dev").read_text()),
        "peaks": memory.peaks(),
    }


def main() -> int:
    """Watch one command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, help="a log of JSON lines to follow")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args()
    raise_loopback()
    asked.out.write_text(json.dumps(watch(asked.command, asked.log, asked.seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
