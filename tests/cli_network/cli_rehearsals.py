"""A small study between parties, its keys, and the command line as real processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cutlayer.keys import Authority
from cutlayer.study_file import load_study
from digits_study import digits_study, mlp

NAMED = mlp(16)
_TRAINED = 'name = "small"\nepochs = {epochs}\nevaluate = ["test"]\nmetrics = ["accuracy"]'
SMALL = digits_study(_TRAINED, "{model}") + "momentum = 0.9\n\n[network]\nsnapshot_every = 20\n"
PARTIES = ("server", "client-0", "client-1")
DEADLINE_S = 60.0


class Words:
    """A process of the command line; what it prints goes to a file, standard error too."""

    def __init__(self, folder: Path, *words: str | Path, name: str) -> None:
        self.path = folder / f"{name}.txt"
        self._file = self.path.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cutlayer.cli", *map(str, words)],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=self._file, stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"},
        )  # fmt: skip

    @property
    def text(self) -> str:
        return self.path.read_text()

    def says(self, pattern: str) -> re.Match[str]:
        """Wait until it has said that."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            found = re.search(pattern, self.text)
            if found is not None:
                return found
            if self.process.poll() is not None and re.search(pattern, self.text) is None:
                break
            time.sleep(0.02)
        raise AssertionError(f"it never said {pattern!r}:\n{self.text}")

    def ends(self, code: int = 0) -> str:
        """Wait for its end, and return what it said."""
        try:
            assert self.process.wait(DEADLINE_S) == code, self.text
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end:\n{self.text}") from None
        return self.text

    def interrupt(self) -> str:
        """Press Ctrl-C, and return what it said."""
        self.process.send_signal(signal.SIGINT)
        return self.ends(130)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._file.close()


class Rehearsal:
    """A folder with a dealt study, keys for all, and a port."""

    def __init__(self, folder: Path, epochs: int, model: str = NAMED) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        text = SMALL.format(epochs=epochs, model=model) + f'address = "{address}"\n'
        (folder / "study.toml").write_text(text)
        self.file = load_study(folder / "study.toml")
        self.file.deal(folder / "parties")
        self.study, self.holdings = self.file.build()
        authority = Authority.create(folder / "keys" / "authority", "small")
        for party in PARTIES:
            authority.issue(party, folder / "keys" / party)
        self.running: list[Words] = []

    def start(self, party: str, *words: str | Path, name: str = "") -> Words:
        """Start a party's command in the rehearsal's folder."""
        study = Path("parties") / party / "study.toml"
        command = ["serve", study] if party == "server" else ["join", study, "--as", party]
        return self.run(*command, *words, name=name or party)

    def run(self, *words: str | Path, name: str) -> Words:
        """Start any command there."""
        self.running.append(Words(self.folder, *words, name=name))
        return self.running[-1]

    def check_weights(self, folder: Path) -> None:
        """Compare what the parties have in the end with the simulation, bit for bit."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        expected = self.study.simulate(self.holdings).weights()
        torch.set_num_threads(threads)
        halves = {path.stem: load_file(path) for path in folder.glob("*/model/*.safetensors")}
        assert halves.keys() == expected.keys()
        for segment, weights in expected.items():
            assert all(torch.equal(halves[segment][name], tensor) for name, tensor in weights.items())

    def close(self) -> None:
        for words in self.running:
            words.close()


@pytest.fixture
def rehearse(tmp_path: Path) -> Iterator[Callable[..., Rehearsal]]:
    """Make a rehearsal of so many epochs; what it started is ended with the test."""
    made: list[Rehearsal] = []

    def rehearse(epochs: int, model: str = NAMED) -> Rehearsal:
        made.append(Rehearsal(tmp_path, epochs, model))
        return made[-1]

    yield rehearse
    for one in made:
        one.close()
