"""Floods against a host in a process of its own: it stays up, in bounded memory, and the others end as they should."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hostile_stage import (
    HOSTILE,
    QUICK,
    Raw,
    Stage,
    Taking,
    differences,
    eventually,
    make_keys,
    resident_bytes,
)

from cutlayer.errors import TransportError
from cutlayer.sessions.joining import join
from cutlayer.transports.network import NetworkSettings
from cutlayer.transports.network.envelopes import Lane

MOST_MORE = 100 << 20


class Distant(Stage):
    """A stage whose host is another process."""

    def __init__(self, folder: Path, keys: Path, **made) -> None:
        self.folder, self.keys, self.made = folder, keys, made
        self.settings, self.parties, self.notes = NetworkSettings(**QUICK), {}, []
        command = [sys.executable, str(Path(__file__).with_name("hostile_stage.py")), str(folder), str(keys)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GRPC_VERBOSITY": "NONE"}
        self.process = subprocess.Popen(
            [*command, json.dumps(made)], stdout=subprocess.PIPE, text=True, env=environment
        )
        threading.Thread(target=self._read, daemon=True).start()
        line = eventually(lambda: next((n for n in list(self.notes) if "listens on" in n), ""), 60)
        self.address = line.split()[-1]

    def _read(self) -> None:
        for line in self.process.stdout:
            self.notes.append(line.rstrip("\n"))

    def end(self) -> None:
        """Let the honest ones come and finish; compare the bits."""
        for name in ("client-0", "client-1"):
            part = self.part(name)
            self.parties[name] = Taking(
                lambda w, p=part, n=name: join(
                    p, self.credentials(n), self.address, w, settings=self.settings
                )
            ).start()
        for one in self.parties.values():
            one.wait(60)
        assert self.process.wait(30) == 0
        assert not differences(self.folder, 2, **self.made)


@pytest.fixture
def distant(tmp_path):
    make_keys(tmp_path / "keys")
    stage = Distant(tmp_path / "run", tmp_path / "keys", epochs=2)
    yield stage
    stage.process.kill()
    stage.process.wait()
    stage.process.stdout.close()


def flood(stage, seconds_of: list) -> None:
    """Send each of the floods from one party; it may be thrown out at any time."""
    for say in seconds_of:
        raw = stage.raw()
        with suppress(TransportError, AssertionError, StopIteration):
            if raw.hello().lane == Lane.WELCOME:
                say(raw)
                raw.thrown_out()
        raw.close()


@pytest.mark.long
def test_floods_of_frames_and_messages(distant):
    before = resident_bytes(distant.process.pid)
    flood(
        distant,
        [
            lambda raw: [raw.envelope(Lane.DATA, b"x") for _ in range(9_000)],
            lambda raw: [raw.envelope(Lane.DATA, b"x", generation=2**31) for _ in range(9_000)],
            lambda raw: [raw.envelope(Lane.DATA, b"x", target=0) for _ in range(9_000)],
            lambda raw: [raw.envelope(Lane.CLOSED, generation=n) for n in range(1_200)],
            lambda raw: raw.control(*[{"kind": "held", "positions": [[0, n]]} for n in range(1_200)]),
            lambda raw: raw.control(*[{"kind": "stop", "reason": "x" * 2000}] * 1_200),
        ],
    )
    assert resident_bytes(distant.process.pid) - before < MOST_MORE
    assert any(note.startswith(f"!! {HOSTILE}: it floods") for note in distant.notes)
    assert sum(len(note) for note in distant.notes) < 1_000_000
    distant.end()


@pytest.mark.long
def test_a_thousand_connections_of_outsiders_and_a_thousand_of_one_party(distant):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    before = resident_bytes(distant.process.pid)
    port = int(distant.address.rpartition(":")[2])
    with ExitStack() as open_ones:
        for _ in range(1000):
            open_ones.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        raws = []
        for _ in range(1000):
            raws.append(Raw.__new__(Raw))
            raws[-1].__init__(distant)
            raws[-1].send(b"nothing that is a hello")
        assert resident_bytes(distant.process.pid) - before < 2 * MOST_MORE
        for raw in raws:
            raw.close()
        distant.end()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
