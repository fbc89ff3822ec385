"""The server of a round-robin study is curious: it keeps all that passes through it, and finds no client's weights."""

from __future__ import annotations

import pytest
from hostile_stage import CLIENTS, Stage, eventually, make_study

from cutlayer.errors import FrameError, IdentityError
from cutlayer.keys.cards import KeyCard
from cutlayer.keys.sealing import Sealer
from cutlayer.sessions import conductor as conducting
from cutlayer.transports.network.end import NetworkTransport
from cutlayer.transports.network.link import Link

RUN = 16


@pytest.fixture
def kept(monkeypatch):
    """Every envelope that the host relays and every frame that its own end receives, as they came."""
    relayed, received = [], []
    relay, take = Link.relay, NetworkTransport.receive

    def keep_relayed(self, envelope, last, origin):
        relayed.append((envelope.source, envelope.target, bytes(envelope.payload)))
        return relay(self, envelope, last, origin)

    def keep_received(self, party, *more):
        frame = take(self, party, *more)
        if self.party == "server":
            received.append((party, bytes(frame)))
        return frame

    monkeypatch.setattr(Link, "relay", keep_relayed)
    monkeypatch.setattr(NetworkTransport, "receive", keep_received)
    return relayed, received


def windows(stuff: bytes) -> set[bytes]:
    return {stuff[i : i + RUN] for i in range(0, max(1, len(stuff) - RUN), 4)}


def secrets_of(folder, study) -> set[bytes]:
    """Return all runs of 16 bytes of the client's weights, buffers and momentum in the parties' snapshots."""
    from cutlayer.runtime.snapshots import Snapshots

    found: set[bytes] = set()

    def walk(value):
        if hasattr(value, "numpy"):
            array = value.detach().contiguous().numpy()
            if array.nbytes >= RUN and array.dtype.kind == "f" and array.any():
                found.update(windows(array.tobytes()))
        elif isinstance(value, dict):
            for one in value.values():
                walk(one)
        elif isinstance(value, list | tuple):
            for one in value:
                walk(one)
        elif hasattr(value, "__dataclass_fields__"):
            walk({name: getattr(value, name) for name in value.__dataclass_fields__})

    for name in CLIENTS:
        snapshots = Snapshots(folder / name)
        for position in snapshots.held():
            walk(snapshots.load(position).states)
    return {run for run in found if run.count(0) < 8}


@pytest.mark.parametrize("handover", ["peer", "server"])
def test_the_server_finds_no_weights_of_a_client_in_what_it_handles(tmp_path, keys, kept, handover):
    relayed, received = kept
    made = {"handover": handover, "epochs": 2}
    stage = Stage(tmp_path, keys, study=made)
    stage.join(*CLIENTS)
    stage.check()
    secrets = secrets_of(tmp_path, make_study(**made)[0])
    assert len(secrets) > 100
    seen = [payload for _, _, payload in relayed] + [frame for _, frame in received]
    handed = (
        [payload for *_, payload in relayed]
        if handover == "peer"
        else [frame for _, frame in received if len(frame) > 500]
    )
    assert len(handed) >= 4
    for payload in seen:
        for start in range(len(payload) - RUN):
            assert payload[start : start + RUN] not in secrets
    if handover == "peer":  # sizes and addresses are what it sees
        assert {(s, t) for s, t, _ in relayed} <= {(a, b) for a in range(3) for b in range(3) if a != b}
        assert len({len(payload) for *_, payload in relayed}) <= 2


def test_the_search_finds_what_is_not_sealed(tmp_path, keys, kept, monkeypatch):
    """The same search on the same study without seals finds weights at once: it is no blind one."""
    monkeypatch.setattr(Sealer, "seal", lambda self, frame, to: memoryview(frame))
    monkeypatch.setattr(Sealer, "open", lambda self, sealed, sender: memoryview(sealed))
    stage = Stage(tmp_path, keys, study={"epochs": 2})
    stage.join(*CLIENTS)
    stage.check()
    secrets = secrets_of(tmp_path, make_study(epochs=2)[0])
    payloads = [payload for *_, payload in kept[0]]
    assert any(p[i : i + RUN] in secrets for p in payloads for i in range(0, len(p) - RUN, 4))


def test_a_replayed_frame_is_refused_by_its_addressee(tmp_path, keys, monkeypatch):
    """The host delivers the first sealed frame between two clients once more in the place of their next one."""
    first, relay, open_ = {}, Link.relay, Sealer.open
    refused = []

    def replay(self, envelope, last, origin):
        way = envelope.source, envelope.target
        known = first.setdefault(way, bytes(envelope.payload))
        if len(known) == len(envelope.payload):
            envelope = envelope._replace(payload=memoryview(known))
        return relay(self, envelope, last, origin)

    def noted(self, sealed, sender):
        try:
            return open_(self, sealed, sender)
        except FrameError as error:
            refused.append(str(error))
            raise

    monkeypatch.setattr(Link, "relay", replay)
    monkeypatch.setattr(Sealer, "open", noted)
    stage = Stage(tmp_path, keys)
    stage.join(*CLIENTS)
    eventually(lambda: refused or stage.host.error)
    assert "was received before: it is a replay" in refused[0]
    eventually(lambda: any("is turned away" in note for note in stage.host.watcher.notes))
    assert stage.host.error is None


def test_a_host_that_swaps_key_cards_is_noticed(tmp_path, keys, monkeypatch):
    """It puts a card of its own making, signed with its own certificate, in a client's place."""
    go = conducting.Go
    study = make_study()[0]
    stage_keys = keys

    def swapped(**said):
        from cutlayer.keys.credentials import Credentials

        own = Sealer(Credentials.load(stage_keys / "server"), study.digest).card
        forged = KeyCard(
            party="client-0", certificate=own.certificate, public=own.public, incarnation=own.incarnation,
            digest=own.digest, signature=own.signature,
        )  # fmt: skip
        return go(**(said | {"cards": said["cards"] | {"client-0": forged.to_json()}}))

    monkeypatch.setattr(conducting, "Go", swapped)
    stage = Stage(tmp_path, keys)
    stage.join(*CLIENTS)
    with pytest.raises(IdentityError, match="somebody else's"):
        stage.parties["client-1"].wait()
    with pytest.raises(IdentityError):
        stage.parties["client-0"].wait()
    assert not (tmp_path / "client-1" / "model").exists()
