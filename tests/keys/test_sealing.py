"""Seals: opened by the right party, once, in turn, unchanged, and by nobody else."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutlayer.errors import FrameError, IdentityError
from cutlayer.keys import Credentials, KeyCard, Sealer
from cutlayer.keys import sealing as module
from cutlayer.keys.sealing import OVERHEAD

DIGEST = "9f2a" * 16


class Parties(NamedTuple):
    ann: Sealer
    ben: Sealer
    host: Sealer

    @property
    def cards(self) -> dict[str, KeyCard]:
        return {one.party: one.card for one in self}

    def meet(self, generation: int) -> None:
        for one in self:
            one.meet(self.cards, generation)


@pytest.fixture
def parties(study_keys: Path) -> Parties:
    made = Parties(*(Sealer(Credentials.load(study_keys / name), DIGEST) for name in ("ann", "ben", "host")))
    made.meet(0)
    return made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=5000))
def test_what_is_sealed_is_opened(parties: Parties, frame: bytes) -> None:
    sealed = parties.ann.seal(frame, "ben")
    assert len(sealed) == len(frame) + OVERHEAD
    assert parties.ben.open(sealed, "ann") == frame
    assert parties.ann.open(parties.ben.seal(frame, "ann"), "ben") == frame


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 255), st.integers(16, 2000))
def test_a_curious_relay_sees_nothing_of_the_frame(parties: Parties, byte: int, size: int) -> None:
    """Not for a frame of one byte repeated, and not twice the same for the same frame."""
    frame = bytes([byte]) * size
    one, two = (bytes(parties.ann.seal(frame, "ben")) for _ in range(2))
    for sealed in (one, two):
        assert frame[:16] not in sealed
    assert one[8:24] != two[8:24]


def test_no_run_of_a_real_frame_shows(parties: Parties) -> None:
    frame = np.random.default_rng(0).standard_normal(4096).astype(np.float32).tobytes()
    sealed = bytes(parties.ann.seal(frame, "ben"))
    runs = {frame[start : start + 16] for start in range(len(frame) - 15)}
    assert not any(sealed[start : start + 16] in runs for start in range(len(sealed) - 15))


def test_the_relay_cannot_open_what_it_carries(parties: Parties) -> None:
    sealed = parties.ann.seal(b"weights", "ben")
    with pytest.raises(
        FrameError, match="host: a sealed frame from ann was changed on its way, or is of another"
    ):
        parties.host.open(sealed, "ann")
    assert parties.ben.open(sealed, "ann") == b"weights"


def test_the_relay_cannot_say_that_it_came_from_somebody_else(parties: Parties) -> None:
    with pytest.raises(FrameError, match="from host was changed"):
        parties.ben.open(parties.ann.seal(b"weights", "ben"), "host")


def test_a_frame_sent_back_is_refused(parties: Parties) -> None:
    with pytest.raises(FrameError, match="another sender"):
        parties.ann.open(parties.ann.seal(b"weights", "ben"), "ben")


def test_each_byte_is_protected(parties: Parties) -> None:
    sealed = bytes(parties.ann.seal(b"weights!", "ben"))
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(FrameError, match=r"from ann (was changed|is not the next)") as error:
            parties.ben.open(changed, "ann")
        assert error.value.sender == "ann"
    for size in range(len(sealed)):
        with pytest.raises(FrameError, match=r"too short|was changed"):
            parties.ben.open(sealed[:size], "ann")
    with pytest.raises(FrameError, match="was changed"):
        parties.ben.open(sealed + b"x", "ann")
    assert parties.ben.open(sealed, "ann") == b"weights!"


def test_replay_reorder_and_loss(parties: Parties) -> None:
    first, second, third = (parties.ann.seal(text, "ben") for text in (b"first", b"second", b"third"))
    with pytest.raises(
        FrameError, match=r"not the next one: 1 before it are missing.*got frame 1; expected frame 0"
    ):
        parties.ben.open(second, "ann")
    assert parties.ben.open(first, "ann") == b"first"
    with pytest.raises(
        FrameError, match=r"was received before: it is a replay.*got frame 0; expected frame 1"
    ):
        parties.ben.open(first, "ann")
    with pytest.raises(FrameError, match="1 before it are missing"):
        parties.ben.open(third, "ann")
    assert parties.ben.open(second, "ann") == b"second"
    assert parties.ben.open(third, "ann") == b"third"


def test_a_new_generation_has_new_keys_and_counts_from_0(parties: Parties) -> None:
    old = parties.ann.seal(b"old", "ben")
    parties.meet(1)
    with pytest.raises(FrameError, match="generation"):
        parties.ben.open(old, "ann")
    new = parties.ann.seal(b"old", "ben")
    assert bytes(new[:8]) == bytes(8) and bytes(new[8:]) != bytes(old[8:])
    assert parties.ben.open(new, "ann") == b"old"


def test_parties_of_different_generations_do_not_understand_each_other(parties: Parties) -> None:
    parties.ann.meet(parties.cards, 2)
    with pytest.raises(FrameError, match="generation"):
        parties.ben.open(parties.ann.seal(b"x", "ben"), "ann")


@pytest.mark.parametrize("generation", [0, -1, 2**63])
def test_a_generation_is_met_once(parties: Parties, generation: int) -> None:
    with pytest.raises(IdentityError, match="once for each generation"):
        parties.ann.meet(parties.cards, generation)
    assert parties.ann.generation == 0


def test_a_party_that_restarted_has_other_keys(parties: Parties, study_keys: Path) -> None:
    ben = Sealer(Credentials.load(study_keys / "ben"), DIGEST)
    cards = parties.cards | {"ben": ben.card}
    sealed = parties.ann.seal(b"before", "ben")
    parties.ann.meet(cards, 1)
    ben.meet(cards, 1)
    with pytest.raises(FrameError):
        ben.open(sealed, "ann")
    assert ben.open(parties.ann.seal(b"after", "ben"), "ann") == b"after"


def test_one_bad_card_changes_nothing(parties: Parties, study_keys: Path) -> None:
    other = Sealer(Credentials.load(study_keys / "host"), "41c0" * 16).card
    for bad in (other, replace(parties.ben.card, party="host"), replace(parties.host.card, public=b"p" * 32)):
        with pytest.raises(IdentityError):
            parties.ann.meet(parties.cards | {"host": bad}, 1)
    assert parties.ann.generation == 0
    assert parties.ben.open(parties.ann.seal(b"x", "ben"), "ann") == b"x"


def test_a_twin_of_oneself_is_noticed(parties: Parties, study_keys: Path) -> None:
    twin = Sealer(Credentials.load(study_keys / "ann"), DIGEST).card
    with pytest.raises(IdentityError, match="another process shows a key card with this party's name"):
        parties.ann.meet(parties.cards | {"ann": twin}, 1)


def test_a_key_that_gives_no_secret(parties: Parties, ben: Credentials) -> None:
    empty = KeyCard.signed(ben, bytes(32), b"i" * 16, DIGEST)
    with pytest.raises(IdentityError, match="ben: the key card holds a key that gives no secret"):
        parties.ann.meet({"ben": empty}, 1)


def test_strangers(parties: Parties, study_keys: Path) -> None:
    alone = Sealer(Credentials.load(study_keys / "ann"), DIGEST)
    assert alone.party == "ann" and alone.generation == -1
    with pytest.raises(FrameError, match="no key to seal for or open from 'ben'; got keys with nobody"):
        alone.seal(b"x", "ben")
    with pytest.raises(FrameError, match="no key to seal for or open from 'carl'; got keys with ben, host"):
        parties.ann.open(b"x" * 64, "carl")
    with pytest.raises(FrameError, match="'ann'"):
        parties.ann.seal(b"x", "ann")


def test_memory(parties: Parties) -> None:
    """What is opened can be made into tensors where it lies; what is given is not written to."""
    frame = np.arange(10_000, dtype=np.float32)
    before = frame.copy()
    sealed = parties.ann.seal(frame.data, "ben")
    kept = bytes(sealed)
    opened = parties.ben.open(sealed.toreadonly(), "ann")
    assert np.array_equal(frame, before) and bytes(sealed) == kept
    for view in (sealed, opened):
        assert not view.readonly and view.contiguous and view.format == "B"
    assert np.frombuffer(opened, np.uint8).ctypes.data % 64 == 0
    assert np.array_equal(np.frombuffer(opened, np.float32), frame)


def test_a_frame_that_is_too_large_is_refused(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_FRAME", 100)
    with pytest.raises(FrameError, match="too large to be sealed; got 101 bytes; expected at most 100"):
        parties.ann.seal(bytes(101), "ben")
    assert parties.ben.open(parties.ann.seal(bytes(100), "ben"), "ann") == bytes(100)


def test_threads_seal_and_open_at_once(parties: Parties) -> None:
    frames = [os.urandom(2000) for _ in range(200)]
    there = [parties.ann.seal(frame, "ben") for frame in frames]
    sealed: list[memoryview] = []
    thread = threading.Thread(
        target=lambda: sealed.extend(parties.ben.seal(frame, "ann") for frame in frames)
    )
    thread.start()
    opened = [parties.ben.open(frame, "ann") for frame in there]
    thread.join()
    assert opened == frames
    assert [parties.ann.open(frame, "ben") for frame in sealed] == frames


def test_threads_never_share_a_number(parties: Parties) -> None:
    numbers: list[bytes] = []

    def work() -> None:
        for _ in range(300):
            numbers.append(bytes(parties.ann.seal(b"x", "ben")[:8]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(numbers)) == 1200
