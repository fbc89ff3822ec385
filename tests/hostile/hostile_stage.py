"""A small study that really runs, over real TLS, and somebody hostile beside its honest parties."""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cutlayer import RoundRobin, Study, optim, vanilla
from cutlayer.data import arrays
from cutlayer.errors import CutlayerError
from cutlayer.keys.authority import Authority
from cutlayer.keys.credentials import Credentials
from cutlayer.keys.sealing import Sealer
from cutlayer.sessions.conductor import Absence
from cutlayer.sessions.hosting import serve
from cutlayer.sessions.joining import join
from cutlayer.sessions.messages import Hello, read_message, written
from cutlayer.sessions.participant import Part
from cutlayer.sessions.roster import offer_of
from cutlayer.transports.network import NetworkSettings
from cutlayer.transports.network.carriers import carrier_of
from cutlayer.transports.network.envelopes import FIRST, HEADER, VERSION, Envelope, Lane, greeting
from cutlayer.transports.network.lines import next_of

CLIENTS = ("client-0", "client-1", "client-2")
HOSTILE = "client-2"
NAMES = (*CLIENTS, "server")
QUICK = {
    "beat_s": 0.1, "silence_s": 2.0, "connect_s": 1.0, "pause_s": 0.05, "hello_s": 1.0, "recheck_s": 0.3,
    "max_frame_bytes": 1 << 20, "pardon_s": 1e-9, "pardons": 99,
}  # fmt: skip
WAIT = Absence()
SKIP = Absence(then="skip", after_s=0.3)
LATE = Absence(then="skip", after_s=0.3, late=(HOSTILE,))


def eventually(holds, within_s: float = 20.0):
    """Wait until something holds; return it."""
    until = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)
    return found


def make_keys(folder: Path, names=NAMES, **more) -> Authority:
    """Make an authority in ``folder / authority``, and a party's folder for each name."""
    authority = Authority.create(folder / "authority", "a study of which nobody hears", **more)
    for name in names:
        authority.issue(name, folder / name)
    return authority


@functools.cache  # building one traces a network, which must not happen while another thread runs one
def make_study(clients: int = 3, epochs: int = 4, handover: str = "peer", turn: int = 2):
    """Return a study in round robin and who holds what; the same ones each time."""
    draw = np.random.default_rng(3)
    x = draw.normal(size=(90, 6)).astype(np.float32)
    y = x[:, :3].argmax(1).astype(np.int64)
    people = arrays(x, y).split_rows(3)
    if clients < 3:
        kept = {p.name: dict(p.splits) for p in people.parties if p.name != HOSTILE}
        people = type(people).of(kept, dict.fromkeys(kept, "client"))
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():  # not from PyTorch's own generator, which parties in other threads seed meanwhile
        for parameter in net.parameters():
            parameter.copy_(torch.from_numpy(draw.normal(0.1, 0.3, parameter.shape)))
    graph = vanilla(net, cut="2", clients=people)
    schedule = RoundRobin(turn=turn, handover=handover)
    study = Study(
        graph=graph,
        optimizer=optim.SGD(lr=0.05, momentum=0.9),
        schedule=schedule,
        batch_size=6,
        epochs=epochs,
    )
    return study, people


class Watched:
    """Keeps what a person would have seen, and holds training up while it is told to."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.free = threading.Event()
        self.free.set()
        self.begun = threading.Event()
        self.patience_s = 60.0

    def progress(self, *now) -> None:
        self.begun.set()
        self.free.wait(self.patience_s)

    def status(self, *now) -> None:
        """Nothing to see."""

    event = status

    def note(self, what: str) -> None:
        self.notes.append(what)

    def said(self, *words: str) -> bool:
        """Whether one note has all the words."""
        return any(all(word in note for word in words) for note in list(self.notes))


class Taking:
    """One party's part, in a thread of this process."""

    def __init__(self, work) -> None:
        self.watcher, self.error, self.folder = Watched(), None, None
        self._work = work
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.thread.start()
        return self

    def _run(self) -> None:
        try:
            self.folder = self._work(self.watcher)
        except CutlayerError as error:
            self.error = error

    def wait(self, within_s: float = 25.0) -> Path:
        self.thread.join(within_s)
        assert not self.thread.is_alive(), self.watcher.notes[-10:]
        if self.error is not None:
            raise self.error
        return self.folder


class Stage:
    """A study with its host and its parties.

    Args:
        folder: Where the parties' folders are.
        keys: Where the keys are.
        absence: What the host does about missing parties.
        hold: Whether the host's training waits for ``stage.host.watcher.free``: for ever, or each time so long.
        settings: What differs from the quick ones.
        study: What differs in the study.
    """

    def __init__(
        self,
        folder: Path,
        keys: Path,
        absence: Absence = WAIT,
        *,
        hold: bool | float = False,
        settings=None,
        study=None,
    ):
        self.folder, self.keys, self.made = folder, keys, study or {}
        self.settings = NetworkSettings(**(QUICK | (settings or {})))
        part = self.part("server")
        self.host = Taking(
            lambda watcher: serve(
                part,
                self.credentials("server"),
                "127.0.0.1:0",
                watcher,
                absence=absence,
                settings=self.settings,
            )
        )
        if hold:
            self.host.watcher.free.clear()
            self.host.watcher.patience_s = 60.0 if hold is True else hold
        self.host.start()
        line = eventually(
            lambda: next((n for n in self.host.watcher.notes if "listens on" in n), "") or self.host.error
        )
        assert isinstance(line, str), line
        self.address = line.split()[-1]
        self.parties: dict[str, Taking] = {}

    def credentials(self, name: str) -> Credentials:
        return Credentials.load(self.keys / name)

    def part(self, name: str, **changed) -> Part:
        study, people = make_study(**(self.made | changed))
        data = next((p for p in people.parties if p.name == name), None)
        return Part(study=study, party=name, host="server", data=data, folder=self.folder / name, every=2)

    def join(self, *names: str, **changed) -> Taking:
        """Let parties join; return the last one's part."""
        for name in names:
            part = self.part(name, **changed)

            def work(watcher, part=part, name=name):
                return join(part, self.credentials(name), self.address, watcher, settings=self.settings)

            self.parties[name] = Taking(work).start()
        return self.parties[names[-1]]

    def raw(self, name: str = HOSTILE, **hello) -> Raw:
        return Raw(self, name, **hello)

    def check(self, clients: int = 3) -> None:
        """Wait until all are done, and compare the bits with the simulator's."""
        self.host.watcher.free.set()
        for one in (self.host, *self.parties.values()):
            one.wait()
        assert not differences(self.folder, clients, **self.made)


def differences(folder: Path, clients: int, **made) -> list[str]:
    """Return the tensors in which the parties' folders differ from the simulator's."""
    study, people = make_study(clients, **made)
    return unlike(folder, study.simulate(people).weights())


def unlike(folder: Path, expected) -> list[str]:
    """Return the tensors of ``expected``, the weights by segment, from which the parties' folders differ."""
    from safetensors.torch import load_file

    found: dict[str, dict[str, torch.Tensor]] = {}
    for path in folder.glob("*/model/*.safetensors"):
        found[path.stem] = load_file(path)
    assert found.keys() == expected.keys()
    return [
        f"{segment}.{name}"
        for segment, tensors in expected.items()
        for name, tensor in tensors.items()
        if not torch.equal(tensor, found[segment][name])
    ]


class Raw:
    """A client with a good certificate that says what it is told to say.

    Args:
        stage: Where it goes.
        name: Whose certificate it has.
        changed: What it says otherwise in its hello.
    """

    def __init__(self, stage: Stage, name: str = HOSTILE, *, words: bytes | None = None, **changed) -> None:
        self.name, self.place = name, NAMES.index(name)
        credentials = stage.credentials(name)
        part = stage.part(name)
        card = Sealer(credentials, part.study.digest).card.to_json()
        hello = Hello(parts=part.study.parts, offer=offer_of(part.data, part.study.digest), card=card)
        said = json.loads(written(hello)) | changed
        self.words = json.dumps(said).encode() if words is None else words
        self.line = carrier_of(stage.settings).dial(credentials, stage.address, "server", stage.settings)
        self.number = 0

    def send(self, message: bytes) -> None:
        self.line.put(lambda: (message, b""))
        self.line.flush()

    def take(self) -> Envelope | None:
        """Return what the host says next; None once it has hung up."""
        return next_of(self.line, lambda envelope, size: memoryview(bytearray(size)))

    def hello(self, incarnation: bytes = b"") -> Envelope:
        """Say hello; return the answer."""
        self.send(greeting(Lane.HELLO, 0, (incarnation or os.urandom(16)) + bytes(16) + self.words))
        answer = self.take()
        assert answer is not None, "the host hung up"
        return answer

    def refusal(self) -> str:
        """Say hello, and return why that was refused."""
        answer = self.hello()
        assert answer.lane == Lane.REFUSED, answer
        self.close()
        return bytes(answer.payload).decode()

    def envelope(
        self, lane, payload=b"", source=None, target=3, total=None, flags=FIRST, generation=1
    ) -> None:
        self.number += 1
        size = len(payload) if total is None else total
        source = self.place if source is None else source
        head = HEADER.pack(VERSION, lane, flags, source, target, generation, self.number, 0, 0, size)
        self.send(head + payload)

    def control(self, *messages: bytes | dict) -> None:
        for one in messages:
            self.envelope(Lane.CONTROL, one if isinstance(one, bytes) else json.dumps(one).encode())

    def told(self):
        """Yield the host's control messages, and in the end why the host refuses."""
        while (envelope := self.take()) is not None:
            if envelope.lane == Lane.CONTROL:
                yield read_message(bytes(envelope.payload), "server")
            elif envelope.lane == Lane.REFUSED:
                yield bytes(envelope.payload).decode()

    def thrown_out(self) -> str:
        """Return why the host throws it out."""
        return next(one for one in self.told() if isinstance(one, str))

    def close(self) -> None:
        self.line.cancel()
        self.line.finish()


def resident_bytes(process: int | str = "self") -> int:
    """Return how much memory a process holds now."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no such process")


def main() -> None:
    """Host the study as a process of its own: FOLDER KEYS; print what is noted."""
    torch.set_num_threads(1)
    patient = replace(LATE, after_s=60.0)
    stage = Stage(Path(sys.argv[1]), Path(sys.argv[2]), patient, study=json.loads(sys.argv[3]))
    told = 0
    while stage.host.thread.is_alive() or told < len(stage.host.watcher.notes):
        for note in stage.host.watcher.notes[told:]:
            told += 1
            sys.stdout.write(note + "\n")
        sys.stdout.flush()
        time.sleep(0.05)
    stage.host.wait()


if __name__ == "__main__":
    main()
