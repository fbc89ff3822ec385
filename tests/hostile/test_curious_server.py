"""The server of a round-robin study is curious: it keeps all that passes through it, and finds no client's weights."""

from __future__ import annotations

import pytest
from curious import Kept, found, runs_of_snapshots
from hostile_stage import CLIENTS, Stage, eventually, make_study

from cutlayer.errors import FrameError, IdentityError
from cutlayer.keys.cards import KeyCard
from cutlayer.keys.sealing import Sealer
from cutlayer.sessions import conductor as conducting
from cutlayer.transports.network.link import Link


@pytest.fixture
def kept(monkeypatch):
    return Kept.watching(monkeypatch)


@pytest.mark.parametrize("handover", ["peer", "server"])
def test_the_server_finds_no_weights_of_a_client_in_what_it_handles(tmp_path, keys, kept, handover):
    made = {"handover": handover, "epochs": 2}
    stage = Stage(tmp_path, keys, study=made)
    stage.join(*CLIENTS)
    stage.check()
    secrets = runs_of_snapshots(tmp_path, CLIENTS)
    assert len(secrets) > 100
    handed = (
        [payload for *_, payload in kept.relayed]
        if handover == "peer"
        else [frame for _, frame in kept.received if len(frame) > 500]
    )
    assert len(handed) >= 4
    assert not found(secrets, kept.handled)
    if handover == "peer":  # sizes and addresses are what it sees
        assert {(s, t) for s, t, _ in kept.relayed} <= {(a, b) for a in range(3) for b in range(3) if a != b}
        assert len({len(payload) for *_, payload in kept.relayed}) <= 2


def test_the_search_finds_what_is_not_sealed(tmp_path, keys, kept, monkeypatch):
    """The same search on the same study without seals finds weights at once: it is no blind one."""
    monkeypatch.setattr(Sealer, "seal", lambda self, frame, to: memoryview(frame))
    monkeypatch.setattr(Sealer, "open", lambda self, sealed, sender: memoryview(sealed))
    stage = Stage(tmp_path, keys, study={"epochs": 2})
    stage.join(*CLIENTS)
    stage.check()
    assert found(runs_of_snapshots(tmp_path, CLIENTS), [payload for *_, payload in kept.relayed])


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
