"""A party that plays along, then sends what its program does not say; who receives it refuses and says of whom."""

from __future__ import annotations

import pytest
import torch
from hostile_stage import CLIENTS, HOSTILE, Stage, Taking, eventually, make_study
from torch import nn

from cutlayer import multi_hop
from cutlayer.errors import CutlayerError, IdentityError
from cutlayer.keys.sealing import Sealer
from cutlayer.sessions import hosting
from cutlayer.sessions.participant import Participant
from cutlayer.transports.network import Dial
from cutlayer.wire import Kind, Message, decode, encode


class Twisted:
    """A party's way to the others, on which every frame of one kind is exchanged for another.

    Args:
        inner: The true one.
        kind: Which frames.
        twist: What becomes of one: a message or bytes.
        to: Whom they must be for; anybody unless given.
    """

    def __init__(self, inner, kind, twist, to=None) -> None:
        self._inner, self._kind, self._twist, self._to = inner, kind, twist, to

    def __getattr__(self, name):
        return getattr(self._inner, name)

    @property
    def transport(self):
        return Twisted(self._inner.transport, self._kind, self._twist, self._to)

    def send(self, party, frame) -> None:
        try:
            message = decode(bytes(frame))
        except CutlayerError:
            message = None  # sealed
        kind = message.kind if message is not None else "sealed"
        if kind == self._kind and self._to in (None, party):
            twisted = self._twist(message if message is not None else bytes(frame))
            frame = encode(twisted) if isinstance(twisted, Message) else twisted
        self._inner.send(party, frame)


def tensors(message: Message, change) -> Message:
    return message._replace(tensors=tuple((name, change(t)) for name, t in message.tensors))


def joins_twisted(stage: Stage, kind, twist, to=None) -> Taking:
    """Let the hostile party join, and twist what it sends."""
    part, credentials = stage.part(HOSTILE), stage.credentials(HOSTILE)

    def work(watcher):
        participant = Participant(part, Sealer(credentials, part.study.digest), watcher)

        def on_state(connected, why):
            if "refuses" in why:
                participant.fail(IdentityError(why))

        dial = Dial(
            credentials, stage.address, "server", [p.name for p in part.study.graph.parties],
            hello=lambda: participant.hello, on_control=participant.on_control,
            on_welcome=lambda answer, new: None, on_state=on_state, settings=stage.settings,
        )  # fmt: skip
        participant.connection = Twisted(dial, kind, twist, to)
        dial.start()
        try:
            return participant.run()
        finally:
            dial.close()

    return Taking(work).start()


def floats(message: Message, change) -> Message:
    return tensors(message, lambda t: change(t) if t.is_floating_point() else t)


ACTIVATIONS = {
    "a NaN in it": lambda m: floats(m, lambda t: torch.where(t == t.max(), float("nan"), t)),
    "infinity": lambda m: tensors(m, lambda t: t * float("inf") if t.is_floating_point() else t),
    "no rows": lambda m: tensors(m, lambda t: t[:0]),
    "a million rows": lambda m: tensors(m, lambda t: torch.zeros(20_000, *t.shape[1:], dtype=t.dtype)),
    "a row too many": lambda m: tensors(m, lambda t: torch.cat((t, t[:1])) if t.is_floating_point() else t),
    "another shape": lambda m: tensors(m, lambda t: t.reshape(-1)),
    "other columns": lambda m: tensors(m, lambda t: t[:, :-1] if t.ndim > 1 else t[:-1]),
    "another type": lambda m: tensors(m, lambda t: t.double() if t.is_floating_point() else t.int()),
    "another's cut": lambda m: m._replace(name="weights of client-0"),
    "another step": lambda m: m._replace(step=m.step + 1),
    "another kind": lambda m: m._replace(kind=Kind.GRADIENT),
    "no tensors": lambda m: m._replace(tensors=()),
    "damage": lambda m: bytes(encode(m))[:-20] + bytes(20),
    "a piece": lambda m: bytes(encode(m))[:50],
    "noise": lambda m: b"\x00" * 1000,
}  # fmt: skip


def test_activations_that_are_none_are_refused_and_the_study_goes_on_with_the_same_bits(tmp_path, keys):
    """One hostile process after another, each with another deceit; then an honest one in the same folder."""
    stage = Stage(tmp_path, keys)
    stage.join("client-0", "client-1")
    for what, twist in ACTIVATIONS.items():
        hostile = joins_twisted(stage, Kind.ACTIVATION, twist)
        with pytest.raises(CutlayerError, match="the host refuses this party"):
            hostile.wait()
        reported = [n for n in stage.host.watcher.notes if n.startswith(f"{HOSTILE}: server reports: ")]
        assert len(reported) == 1 + list(ACTIVATIONS).index(what), (what, stage.host.watcher.notes[-5:])
    stage.join(HOSTILE)
    stage.check()


def test_a_hostile_hand_over_is_reported_by_whom_it_is_for(tmp_path, keys):
    """The next client cannot use it and says so; after three times nothing else is believed of the reporter."""
    stage = Stage(tmp_path, keys)
    stage.join("client-0", "client-1")
    hostile = joins_twisted(stage, "sealed", lambda frame: bytes(len(frame)))
    eventually(lambda: stage.host.watcher.said(f"{HOSTILE}: client-0 reports", "FrameError"))
    eventually(lambda: stage.host.watcher.said("client-0 is turned away", "nobody else did"))
    assert hostile.error is None
    with pytest.raises(IdentityError, match=f"of {HOSTILE}: FrameError"):
        stage.parties.pop("client-0").wait()


@pytest.mark.parametrize(
    "what", ["a NaN in it", "infinity", "no rows", "another shape", "another type", "another step", "noise"]
)
def test_gradients_of_a_hostile_server_are_not_trained_on(tmp_path, keys, monkeypatch, what):
    home = hosting._Home
    twist = ACTIVATIONS[what]
    monkeypatch.setattr(
        hosting, "_Home", lambda *inner: Twisted(home(*inner), Kind.GRADIENT, twist, to="client-1")
    )
    stage = Stage(tmp_path, keys)
    stage.join(*CLIENTS)
    with pytest.raises(IdentityError, match="3 times what nobody else did, of server"):
        stage.parties.pop("client-1").wait()
    assert stage.host.watcher.said("server: client-1 reports")
    assert not (tmp_path / "client-1" / "model").exists()


def test_a_frame_to_a_party_with_which_it_has_no_edge():
    """Clients of a role hand over to each other; others meet over a cut, or to match the rows that they share."""
    study, _ = make_study()
    ways = hosting.routes(study.graph)
    for name in CLIENTS:
        assert (name, "server") in ways and ("server", name) in ways and (name, name) not in ways
    net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    graph = multi_hop(net, ("0", "1", "2"), clients=make_study()[1], hops=("near", "far"))
    ways = hosting.routes(graph)
    assert {("client-0", "near"), ("near", "far"), ("far", "server")} <= ways
    assert not {("client-0", "far"), ("far", "client-0"), ("near", "server"), ("server", "near")} & ways
