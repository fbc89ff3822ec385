"""What a curious host keeps of all that it handles, and how it searches that for what is none of its business."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from cutlayer.runtime.snapshots import Snapshots
from cutlayer.sessions.guarded import GuardedTransport
from cutlayer.transports.network.end import NetworkTransport
from cutlayer.transports.network.link import Link
from cutlayer.wire import Kind, decode

RUN = 16
"""Bytes that do not come twice by chance: four numbers of float32."""


@dataclass
class Kept:
    """All that passed through a process in which the host and all other parties run.

    Attributes:
        relayed: Each chunk that the host passed on: from whom, to whom (by place), and its bytes.
        received: Each frame that the host's own end received: from whom, and its bytes.
        spoken: Each frame between two others before it was sealed: from whom, to whom, and its bytes.
    """

    relayed: list[tuple[int, int, bytes]] = field(default_factory=list)
    received: list[tuple[str, bytes]] = field(default_factory=list)
    spoken: list[tuple[str, str, bytes]] = field(default_factory=list)

    @property
    def handled(self) -> list[bytes]:
        """All bytes that the host could look at."""
        return [payload for *_, payload in self.relayed] + [frame for _, frame in self.received]

    @classmethod
    def watching(cls, monkeypatch: pytest.MonkeyPatch, host: str = "server") -> Kept:
        """Return what is kept from now on."""
        kept = cls()
        relay, take, send = Link.relay, NetworkTransport.receive, GuardedTransport.send

        def keep_relayed(self: Link, envelope: Any, last: bool, origin: Link) -> None:
            kept.relayed.append((envelope.source, envelope.target, bytes(envelope.payload)))
            relay(self, envelope, last, origin)

        def keep_received(self: NetworkTransport, party: str, *more: float) -> memoryview:
            frame = take(self, party, *more)
            if self.party == host:
                kept.received.append((party, bytes(frame)))
            return frame

        def keep_spoken(self: GuardedTransport, party: str, frame: Any) -> None:
            if host not in (party, self.party):
                kept.spoken.append((self.party, party, bytes(frame)))
            send(self, party, frame)

        monkeypatch.setattr(Link, "relay", keep_relayed)
        monkeypatch.setattr(NetworkTransport, "receive", keep_received)
        monkeypatch.setattr(GuardedTransport, "send", keep_spoken)
        return kept


def found(secrets: set[bytes], payloads: Iterable[bytes]) -> list[bytes]:
    """Return the payloads in which one of the secrets stands, wherever it begins."""
    return [
        payload for payload in payloads if any(payload[i : i + RUN] in secrets for i in range(len(payload)))
    ]


def runs_of(value: object) -> set[bytes]:
    """Return all runs of 16 bytes in the numbers of whatever tensors are in ``value``, but those of zeros."""
    runs: set[bytes] = set()
    for tensor in _tensors(value):
        array = tensor.detach().contiguous().numpy()
        if array.nbytes >= RUN and array.dtype.kind == "f":
            text = array.tobytes()
            runs.update(text[i : i + RUN] for i in range(0, len(text) - RUN + 1, 4))
    return {run for run in runs if run.count(0) < RUN // 2}


def runs_of_snapshots(folder: Path, parties: Iterable[str]) -> set[bytes]:
    """Return the runs of all weights, buffers and optimizer slots in the snapshots of some parties."""
    runs: set[bytes] = set()
    for name in parties:
        snapshots = Snapshots(folder / name)
        for position in snapshots.held():
            runs |= runs_of(snapshots.load(position).states)
    return runs


def contents(frame: bytes) -> tuple[Kind, list[Tensor]]:
    """Return of what kind a frame is, and its tensors; those of the frame in it where there is one."""
    message = decode(frame)
    tensors = [tensor for _, tensor in message.tensors if tensor is not None]
    if message.kind is not Kind.SEALED:
        return message.kind, tensors
    return contents(tensors[0].numpy().tobytes())


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
