"""Key cards: only the party itself can have made one, for this study alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutlayer.errors import IdentityError
from cutlayer.keys import Authority, Credentials, KeyCard, Sealer
from cutlayer.keys.cards import framed

DIGEST = "9f2a" * 16


@pytest.fixture
def card(ben: Credentials) -> KeyCard:
    return Sealer(ben, DIGEST).card


def test_a_card_goes_through_json(card: KeyCard, ann: Credentials) -> None:
    text = json.dumps(card.to_json())
    again = KeyCard.from_json(json.loads(text))
    assert again == card
    again.check(ann, "ben", DIGEST)


def test_a_card_holds_nothing_secret(card: KeyCard) -> None:
    assert "PRIVATE" not in json.dumps(card.to_json())


def test_each_process_has_another_card(ben: Credentials) -> None:
    one, two = (Sealer(ben, DIGEST).card for _ in range(2))
    assert one.public != two.public and one.incarnation != two.incarnation


@pytest.mark.parametrize(
    "change",
    [
        {"public": b"p" * 32},
        {"incarnation": b"i" * 16},
        {"signature": b"s" * 70},
        {"digest": "41c0" * 16},
    ],
    ids=str,
)
def test_a_changed_card(card: KeyCard, ann: Credentials, change: dict[str, object]) -> None:
    changed = replace(card, **change)  # type: ignore[arg-type]
    with pytest.raises(IdentityError, match="ben: the key card is not signed with the key of"):
        changed.check(ann, "ben", changed.digest)


def test_a_card_for_another_study(ben: Credentials, ann: Credentials) -> None:
    with pytest.raises(IdentityError, match="for another study; got 41c041c041c0; expected 9f2a9f2a9f2a"):
        Sealer(ben, "41c0" * 16).card.check(ann, "ben", DIGEST)


def test_a_stolen_card(card: KeyCard, ann: Credentials, study_keys: Path) -> None:
    with pytest.raises(IdentityError, match="host: the key card is somebody else's; got 'ben'"):
        card.check(ann, "host", DIGEST)
    with pytest.raises(IdentityError, match="somebody else's"):
        replace(card, party="host").check(ann, "host", DIGEST)
    host = Credentials.load(study_keys / "host")
    with pytest.raises(IdentityError, match="not signed with the key"):
        replace(card, party="host", certificate=host.certificate).check(ann, "host", DIGEST)


def test_a_card_of_a_foreign_authority(ann: Credentials, tmp_path: Path) -> None:
    Authority.create(tmp_path / "authority", "small study").issue("ben", tmp_path / "ben")
    foreign = Sealer(Credentials.load(tmp_path / "ben"), DIGEST).card
    with pytest.raises(IdentityError, match="not signed by this study's authority"):
        foreign.check(ann, "ben", DIGEST)


def test_a_card_of_a_revoked_party(own: Authority, tmp_path: Path) -> None:
    for party in ("ann", "ben"):
        own.issue(party, tmp_path / party)
    card = Sealer(Credentials.load(tmp_path / "ben"), DIGEST).card
    own.revoke("ben", "lost")
    (tmp_path / "ann" / "revoked.pem").write_bytes(own.revoked)
    with pytest.raises(IdentityError, match="was revoked"):
        card.check(Credentials.load(tmp_path / "ann"), "ben", DIGEST)


@pytest.mark.parametrize("name", ["party", "certificate", "public", "incarnation", "digest", "signature"])
def test_fields_are_all_there_and_texts(card: KeyCard, name: str) -> None:
    whole: dict[str, object] = dict(card.to_json())
    missing = {key: value for key, value in whole.items() if key != name}
    with pytest.raises(IdentityError, match="this is no key card"):
        KeyCard.from_json(missing)
    for value in (None, 7, ["x"], "", "é", "x" * 20_000):
        with pytest.raises(IdentityError, match=f"the key card's {name} is damaged"):
            KeyCard.from_json(whole | {name: value})


def test_unknown_fields_are_refused(card: KeyCard) -> None:
    with pytest.raises(IdentityError, match="this is no key card"):
        KeyCard.from_json(card.to_json() | {"admin": "yes"})


@pytest.mark.parametrize("name", ["public", "incarnation", "signature"])
@pytest.mark.parametrize("value", ["AA", "!!!!", "AAAA" * 60])
def test_lengths_are_checked(card: KeyCard, name: str, value: str) -> None:
    with pytest.raises(IdentityError, match=rf"the key card's {name} (has a wrong length|is not in base64)"):
        KeyCard.from_json(card.to_json() | {name: value})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["party", "certificate", "public", "digest", "x"]), inner)
        ),
        max_leaves=6,
    )
)
def test_any_other_json_is_refused(value: object) -> None:
    with pytest.raises(IdentityError):
        KeyCard.from_json(value)  # type: ignore[arg-type]


@given(st.lists(st.binary(max_size=9), max_size=4), st.lists(st.binary(max_size=9), max_size=4))
def test_what_is_signed_can_be_read_in_one_way(one: list[bytes], two: list[bytes]) -> None:
    assert (framed(*one) == framed(*two)) == (one == two)
