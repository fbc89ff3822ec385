"""The processes of a trial: one that has imported everything and forks a process for each party that is to start.

Orders come as lines of JSON on standard input: ``{"party": …}`` starts one and is answered with its number,
``{"poll": true}`` is answered with the processes that have ended and how, ``{"warm": study}`` when what all need is
imported.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from cutlayer.keys.credentials import Credentials
from cutlayer.sessions.conductor import Absence
from cutlayer.sessions.hosting import serve
from cutlayer.sessions.joining import join
from cutlayer.sessions.participant import Part
from cutlayer.study_file import load_study
from cutlayer.transports.network import NetworkSettings

SETTINGS = {"pause_s": 0.1, "connect_s": 1.0}


class Watcher:
    """Writes to the process's output what a person would see."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._status = ""

    def progress(self, *now: Any) -> None:
        """Say nothing: a trial is about how it ends."""

    def event(self, event: Any) -> None:
        """Say nothing."""

    def status(self, now: Any) -> None:
        """Say who is missing, once."""
        text = ", ".join(now.missing)
        if text != self._status:
            self._status = text
            self.note(f"missing: {text or 'nobody'} | {now.text}")

    def note(self, what: str) -> None:
        """Say it, with the time since the process began."""
        sys.stdout.write(f"[{time.monotonic() - self._began:6.2f}] {what}\n")


def take_part(order: dict[str, Any]) -> None:
    """Be one party, to the end."""
    import faults

    faults.install(order["faults"])
    party, folder, out = order["party"], Path(order["folder"]), Path(order["out"])
    own = folder if (folder / "records.safetensors").exists() else None
    local = load_study(folder / "study.toml").at(party, own)
    table, credentials, watcher = local.network, Credentials.load(order["keys"]), Watcher()
    part = Part(
        study=local.study,
        party=party,
        host=table.host,
        data=local.own,
        folder=out,
        every=table.snapshot_every,
    )
    settings = NetworkSettings(**SETTINGS)
    address = order["address"]
    if party == table.host:
        absence = Absence(then=table.absent, after_s=table.absent_after_s, late=tuple(table.late))
        serve(part, credentials, address, watcher, absence=absence, settings=settings)
    else:
        join(part, credentials, address, watcher, settings=settings)
    watcher.note("all done")


def start(order: dict[str, Any]) -> int:
    """Fork a process for a party; return its number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        os.close(0)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        sys.stdout.write(f"--- {order['party']} starts, faults {order['faults']}\n")
        take_part(order)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def warm(study: str) -> int:
    """Do once what imports everything; return how many threads of Python there are: a fork keeps only one."""
    built, holdings = load_study(study).build()
    built.simulate(holdings)
    return threading.active_count()


def ended() -> list[list[int]]:
    """Return number and exit code of each process that has ended since the last time; a signal's code is negative."""
    found = []
    while True:
        try:
            number, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not number:
            return found
        found.append([number, os.waitstatus_to_exitcode(status)])


def main() -> None:
    """Follow orders until there are no more."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        answer = ended() if "poll" in order else warm(order["warm"]) if "warm" in order else start(order)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
