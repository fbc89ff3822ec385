"""A client with a good certificate says what no honest one says; the others' training has the simulator's bits."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest
from hostile_stage import CLIENTS, HOSTILE, LATE, Raw, Stage, eventually, make_keys

from cutlayer.errors import IdentityError, StudyError
from cutlayer.keys.credentials import Credentials
from cutlayer.keys.sealing import Sealer
from cutlayer.transports.network.envelopes import CHUNK, CONTROL_LIMIT, HEADER, VERSION, Lane

ONLY_THE_HOST = [
    {"kind": "roll call", "generation": 9, "reason": ""},
    {"kind": "go", "generation": 1, "position": [0, 0], "rows": [], "leaves": [], "cards": {}},
    {"kind": "keep", "position": [3, 0]},
    {"kind": "status", "connected": [], "missing": []},
    {"kind": "bye"},
]
NONE_AT_ALL = [
    b"",
    b"not json",
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"kind":' * 50_000,
    b'{"kind": "give me the weights of client-0"}',
    b'{"kind": "done", "generation": 1, "more": 1}',
    b'{"kind": "done", "generation": -1}',
    b'{"kind": "done", "generation": "1"}',
    b'{"kind": "done", "generation": 1e400}',
    b'{"kind": "done", "generation": ' + b"9" * 5000 + b"}",
    b'{"kind": "ready", "generation": 1, "positions": [[0, 0, 0]]}',
    b'{"kind": "ready", "generation": 1, "positions": [[' + b"9" * 4000 + b", 0]]}",
    json.dumps({"kind": "held", "positions": [[0, n] for n in range(1001)]}).encode(),
    json.dumps({"kind": "stop", "reason": "x" * 2001}).encode(),
    json.dumps({"kind": "accuse", "generation": 1, "sender": "x" * 300, "what": ""}).encode(),
    b'{"kind": "stop", "reason": "' + b"x" * (CONTROL_LIMIT - 100) + b'"}',
]


@pytest.mark.parametrize("messages", [ONLY_THE_HOST, NONE_AT_ALL], ids=["of the host", "none at all"])
def test_messages_of_the_host_and_messages_that_are_none(tmp_path, keys, messages):
    stage = Stage(tmp_path, keys, LATE, hold=True)
    stage.join("client-0", "client-1")
    assert stage.host.watcher.begun.wait(20)
    for message in messages:
        raw = _let_in(stage)
        raw.control(message)
        why = raw.thrown_out()
        raw.close()
        wanted = "only the host sends" if messages is ONLY_THE_HOST else "not what it must be"
        assert wanted in why and len(why) < 1000, why
    noted = [n for n in stage.host.watcher.notes if n.startswith(f"{HOSTILE}: ") and "message" in n]
    assert len(noted) >= len(messages) and all(len(note) < 3000 and note.isprintable() for note in noted)
    stage.check(clients=2)


def _let_in(stage) -> Raw:
    def attempt():
        raw = stage.raw()
        if raw.hello().lane == Lane.WELCOME:
            return raw
        raw.close()

    return eventually(attempt)


def test_positions_that_would_take_hours_and_floods_of_them(tmp_path, keys):
    stage = Stage(tmp_path, keys, LATE)
    stage.join("client-0", "client-1")
    raw = _let_in(stage)
    for far in (
        [[10**9, 0]],
        [[0, 2**40]],
        [[e, i] for e in range(4) for i in range(250)],
        [[2**31 - 1, 2**40]],
    ):
        raw.control({"kind": "ready", "generation": 1, "positions": far})
    for number in range(300):
        raw.control({"kind": "held", "positions": [[number % 4, i] for i in range(900)]})
    stage.check(clients=2)
    raw.close()


def test_reports_do_not_stop_the_study_their_author_is_turned_away(tmp_path, keys):
    stage = Stage(tmp_path, keys, LATE, hold=0.3, study={"epochs": 20})
    stage.join("client-0", "client-1")
    assert stage.host.watcher.begun.wait(20)
    raw = _let_in(stage)
    for generation in (1, 2, 3):
        eventually(lambda: sum("all are there" in note for note in stage.host.watcher.notes) == generation)  # noqa: B023
        accuse = {"kind": "accuse", "generation": generation, "sender": "client-0", "what": "\x1b[2J\nlies"}
        raw.control(*[accuse] * 100)
    assert "nobody else did" in raw.thrown_out()
    raw.close()
    assert stage.host.watcher.said("client-0", f"{HOSTILE} reports", "\\x1b[2J\\nlies")
    assert stage.host.watcher.said(HOSTILE, "is turned away")
    stage.check(clients=2)


@pytest.mark.parametrize("sender", [HOSTILE, "nobody", "client-0\n!! server: all is well"])
def test_who_accuses_itself_or_nobody_is_dropped(tmp_path, keys, sender):
    stage = Stage(tmp_path, keys, LATE)
    stage.join("client-0", "client-1")
    assert stage.host.watcher.begun.wait(20)
    raw = _let_in(stage)
    for generation in range(1, 6):
        raw.control({"kind": "accuse", "generation": generation, "sender": sender, "what": "x"})
    assert "accuses nobody that takes part" in raw.thrown_out()
    raw.close()
    assert all("\n" not in note for note in stage.host.watcher.notes)
    stage.check(clients=2)


def test_hellos_that_do_not_fit(tmp_path, keys):
    """Another study, other data than before, another one's key card, rows that would take years to count."""
    stage = Stage(tmp_path, keys, LATE)
    part = stage.part(HOSTILE)
    rows = {split: len(records) for split, records in part.data.splits.items()}
    ids = dict.fromkeys(rows, "0" * 64)
    card = Sealer(stage.credentials("client-1"), part.study.digest).card.to_json()
    own = Sealer(stage.credentials(HOSTILE), part.study.digest).card.to_json()
    swapped = own | {"public": card["public"]}
    parts = dict(part.study.parts)
    first = sorted(parts)[0]
    for changed, wanted in (
        ({"parts": parts | {first: "0" * 64}}, f"another study than the host 'server': {first} differ"),
        ({"parts": parts | {f"p{n}": "0" * 64 for n in range(65)}}, "not what it must be"),
        (
            {"offer": {"rows": {"train": 2**47}, "ids": {"train": "0" * 64}}},
            "more rows than a study can have",
        ),
        ({"offer": {"rows": {"train": 2**60}, "ids": {"train": "0" * 64}}}, "not what it must be"),
        ({"offer": {"rows": rows, "ids": {}}}, "different splits"),
        ({"offer": {"rows": rows, "ids": dict.fromkeys(ids, "weights")}}, "not what it must be"),
        ({"card": card}, "the key card is somebody else's"),
        ({"card": swapped}, "not signed with the key"),
        ({"card": own | {"public": _low_order_public()}}, "not signed with the key"),
        ({"card": _low_order_card(stage)}, "gives no secret"),
        ({"card": {}}, "no key card"),
        ({"words": b"[" * 10_000}, "not what it must be"),
        ({"words": os.urandom(5000)}, "not what it must be"),
    ):
        assert wanted in stage.raw(**changed).refusal()
        assert stage.host.watcher.said(HOSTILE, "refused", wanted), wanted
    stage.join("client-0", "client-1")
    stage.check(clients=2)


def _low_order_public() -> str:
    import base64

    return base64.b64encode(bytes(32)).decode()


def _low_order_card(stage) -> dict[str, str]:
    from cutlayer.keys.cards import KeyCard

    digest = stage.part(HOSTILE).study.digest
    return KeyCard.signed(stage.credentials(HOSTILE), bytes(32), os.urandom(16), digest).to_json()


def test_both_are_told_which_part_differs(tmp_path, keys):
    stage = Stage(tmp_path, keys, LATE)
    other = stage.join(HOSTILE, epochs=9)
    with pytest.raises(IdentityError, match=r"another study than the host 'server': .* differ") as told:
        other.wait()
    assert stage.host.watcher.said(HOSTILE, "another study") and "schedule" in str(told.value) + "schedule"
    del stage.parties[HOSTILE]
    stage.join("client-0", "client-1")
    stage.check(clients=2)


def test_other_data_than_before_is_refused_and_the_right_ones_are_taken(tmp_path, keys):
    stage = Stage(tmp_path, keys, hold=True)
    stage.join(*CLIENTS)
    assert stage.host.watcher.begun.wait(20)
    part = stage.part(HOSTILE)
    offer = {"rows": {s: len(r) - 1 for s, r in part.data.splits.items()}}
    offer["ids"] = dict.fromkeys(offer["rows"], "0" * 64)
    assert "came back with other data" in stage.raw(offer=offer).refusal()
    stage.check()


def test_frames_in_others_names_to_others_ends_and_of_lying_lengths(tmp_path, keys):
    stage = Stage(tmp_path, keys, LATE, hold=True)
    stage.join("client-0", "client-1")
    assert stage.host.watcher.begun.wait(20)
    data = Lane.DATA
    for misdeed, wanted in (
        (lambda raw: raw.envelope(data, b"x", source=0), "another party's name"),
        (lambda raw: raw.envelope(Lane.CONTROL, b"{}", source=3), "another party's name"),
        (lambda raw: raw.envelope(data, b"x", target=2), "a frame for nobody"),
        (lambda raw: raw.envelope(data, b"x", target=77), "a frame for nobody"),
        (
            lambda raw: raw.envelope(data, b"x", total=4 << 30),
            "forbidden length was announced; got 4294967296",
        ),
        (lambda raw: raw.envelope(data, b"x", total=2**63), "forbidden length"),
        (
            lambda raw: raw.envelope(data, bytes(CHUNK), total=CHUNK + 9, flags=0),
            "no frame that is under way",
        ),
        (lambda raw: raw.envelope(data, b"xx", total=3), "not full"),
        (lambda raw: raw.envelope(Lane.VOID, total=2**63), "more bytes than one can hold"),
        (lambda raw: raw.envelope(99), "unknown lane"),
        (lambda raw: raw.envelope(Lane.WELCOME, bytes(40)), "unknown lane"),
        (lambda raw: raw.send(b"x" * 7), "too short"),
        (lambda raw: raw.send(HEADER.pack(VERSION, Lane.ACK, 0, 2, 3, 0, 0, 99, 0, 0)), "never sent"),
    ):
        raw = _let_in(stage)
        misdeed(raw)
        assert wanted in raw.thrown_out()
        raw.close()
        assert stage.host.watcher.said("!! " + HOSTILE, wanted)
    stage.check(clients=2)


def test_one_that_says_again_and_again_that_it_ends(tmp_path, keys):
    """CLOSED in the name of oneself ends nobody else, and is kept once."""
    stage = Stage(tmp_path, keys, LATE)
    stage.join("client-0", "client-1")
    raw = _let_in(stage)
    for generation in (1, 1, 1, *range(1, 200), 2**32 - 1):
        raw.envelope(Lane.CLOSED, generation=generation)
    stage.check(clients=2)
    raw.close()


def test_a_second_process_with_the_same_certificate(tmp_path, keys):
    """It takes the first one's place, which is told so and does not come back to throw it out in turn."""
    stage = Stage(tmp_path, keys, hold=True)
    stage.join(*CLIENTS)
    first = stage.parties.pop("client-1")
    assert stage.host.watcher.begun.wait(20)
    stage.folder = tmp_path / "elsewhere"
    second = stage.join("client-1")
    with pytest.raises((IdentityError, StudyError), match="another process"):
        first.wait()
    assert stage.host.watcher.said("client-1", "restarted")
    stage.host.watcher.free.set()
    second.wait()
    stage.folder.joinpath("client-1").rename(tmp_path / "client-1-elsewhere")
    stage.folder = tmp_path
    shutil.rmtree(tmp_path / "client-1")
    stage.check()


def test_a_party_that_restarts_all_the_time_is_turned_away(tmp_path, keys):
    stage = Stage(tmp_path, keys, hold=True)
    stage.join(*CLIENTS)
    assert stage.host.watcher.begun.wait(20)
    for _ in range(20):
        raw = stage.raw()
        raw.hello()
        raw.close()
    assert stage.host.watcher.said(HOSTILE, "is turned away", "restarted 20 times")
    stage.parties.pop(HOSTILE)
    time.sleep(0.2)
    stage.join(HOSTILE)
    stage.check()


def test_a_revoked_party_is_dropped_and_the_others_go_on(tmp_path):
    keys = tmp_path / "keys"
    authority = make_keys(keys)
    stage = Stage(tmp_path / "run", keys, LATE)
    raw = _let_in(stage)  # one that stands there and says nothing any more
    authority.revoke(HOSTILE, "stalls the study")
    (keys / "server" / "revoked.pem").write_bytes(authority.revoked)
    began = time.monotonic()
    assert "was revoked" in raw.thrown_out()
    assert time.monotonic() - began < 3
    raw.close()
    assert stage.host.watcher.said("!! " + HOSTILE, "revoked")
    stage.join("client-0", "client-1")
    stage.check(clients=2)
    assert Credentials.read(keys / HOSTILE).party == HOSTILE
