"""A party's folder, and whom it believes: expired, revoked, foreign, self-made, somebody else's."""

from __future__ import annotations

import base64
import datetime
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cutlayer.errors import IdentityError
from cutlayer.keys import Authority, Credentials, make_request
from cutlayer.keys.certificates import (
    authority_certificate,
    key_pem,
    load_certificate,
    new_key,
    party_certificate,
)
from cutlayer.keys.requests import requested_key
from cutlayer.keys.revocations import Revocations

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def pem(folder: Path) -> bytes:
    return (folder / "certificate.pem").read_bytes()


def armoured(der: bytes, what: str) -> bytes:
    """Return DER as PEM."""
    return f"-----BEGIN {what}-----\n{base64.encodebytes(der).decode()}-----END {what}-----\n".encode()


def self_made(name: str) -> bytes:
    """A certificate that its owner signed itself."""
    key = new_key()
    names = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(names).issuer_name(names).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_what_a_folder_holds(study_keys: Path, ann: Credentials) -> None:
    assert ann.party == "ann" and re.fullmatch("study [0-9a-f]{12}", ann.study)
    assert 29.9 < ann.days_left <= 30
    authority = Authority.open(study_keys / "authority")
    assert ann.authority_fingerprint == authority.fingerprint
    assert ann.fingerprint == authority.issued()[0].fingerprint


def test_the_key_is_not_shown(ann: Credentials) -> None:
    assert "PRIVATE" not in repr(ann) and "PRIVATE" not in str(ann)
    assert "-----" not in repr(ann)


def test_parties_believe_each_other(ann: Credentials, ben: Credentials) -> None:
    assert ann.verify(ben.certificate) == "ben"
    assert ben.verify(ann.certificate, party="ann") == "ann"


def test_a_certificate_is_for_one_name(ann: Credentials, ben: Credentials) -> None:
    for _ in range(2):  # checked anew, and remembered
        with pytest.raises(IdentityError, match="somebody else's; got 'ben'; expected 'host'"):
            ann.verify(ben.certificate, party="host")


@pytest.mark.parametrize("name", ["key.pem", "certificate.pem", "authority.pem"])
def test_a_missing_file_is_named(own: Authority, tmp_path: Path, name: str) -> None:
    own.issue("ann", tmp_path / "ann")
    (tmp_path / "ann" / name).unlink()
    with pytest.raises(IdentityError, match=rf"is missing: there is no .*{name}.*study lead"):
        Credentials.load(tmp_path / "ann")


@pytest.mark.parametrize("name", ["key.pem", "certificate.pem", "authority.pem", "revoked.pem"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00", "torn", "other"])
def test_a_damaged_file_is_refused(own: Authority, tmp_path: Path, name: str, content: bytes | str) -> None:
    own.issue("ann", tmp_path / "ann")
    path = tmp_path / "ann" / name
    whole = path.read_bytes()
    if content == "torn":
        content = whole[: len(whole) // 2]
    elif content == "other":
        content = (tmp_path / "ann" / ("certificate.pem" if name == "key.pem" else "key.pem")).read_bytes()
    assert isinstance(content, bytes)
    path.write_bytes(content)
    with pytest.raises(IdentityError):
        Credentials.load(tmp_path / "ann")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620])
def test_a_key_that_others_can_read_is_refused(own: Authority, tmp_path: Path, mode: int) -> None:
    own.issue("ann", tmp_path / "ann")
    (tmp_path / "ann" / "key.pem").chmod(mode)
    with pytest.raises(IdentityError, match=rf"got mode {mode:o}; expected mode 600; chmod 600 .*key\.pem"):
        Credentials.load(tmp_path / "ann")


def test_key_and_certificate_must_belong_together(own: Authority, tmp_path: Path) -> None:
    own.issue("ann", tmp_path / "ann")
    own.issue("ben", tmp_path / "ben")
    (tmp_path / "ann" / "key.pem").write_bytes((tmp_path / "ben" / "key.pem").read_bytes())
    with pytest.raises(IdentityError, match="do not belong together"):
        Credentials.load(tmp_path / "ann")


def test_expired(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "authority", "study", now=NOW - 60 * DAY)
    authority.issue("ann", tmp_path / "ann", now=NOW - 33 * DAY)
    authority.issue("ben", tmp_path / "ben", now=NOW)
    with pytest.raises(IdentityError, match=r"the certificate of ann ended 3 days ago, on .*keys renew"):
        Credentials.load(tmp_path / "ann")
    ben = Credentials.load(tmp_path / "ben")
    with pytest.raises(IdentityError, match="ended 3 days ago"):
        ben.verify(pem(tmp_path / "ann"))
    assert Credentials.load(tmp_path / "ann", now=NOW - 10 * DAY).days_left < 0


def test_what_was_believed_once_is_asked_for_its_date_again(ann: Credentials, ben: Credentials) -> None:
    ann.verify(ben.certificate)
    with pytest.raises(IdentityError, match="ended 5 days ago"):
        ann.verify(ben.certificate, now=datetime.datetime.now(datetime.UTC) + 35.5 * DAY)


def test_not_yet_valid(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "authority", "study")
    authority.issue("ann", tmp_path / "ann", now=NOW + 2 * DAY)
    with pytest.raises(
        IdentityError, match=r"does not hold before .*, in 1 day; look at this machine's clock"
    ):
        Credentials.load(tmp_path / "ann")


def test_clocks_may_differ_by_minutes(own: Authority, tmp_path: Path) -> None:
    own.issue("ann", tmp_path / "ann")
    Credentials.load(
        tmp_path / "ann", now=datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=4)
    )


def test_self_made(ann: Credentials) -> None:
    with pytest.raises(IdentityError, match="made by its owner alone"):
        ann.verify(self_made("ben"))


@pytest.mark.parametrize("study", ["small study", "another study"])
def test_right_name_but_wrong_authority(ann: Credentials, tmp_path: Path, study: str) -> None:
    foreign = Authority.create(tmp_path / "authority", study)
    foreign.issue("ben", tmp_path / "ben")
    with pytest.raises(IdentityError, match="not signed by this study's authority"):
        ann.verify(pem(tmp_path / "ben"), party="ben")
    (tmp_path / "ben" / "authority.pem").write_bytes(ann.authority)
    with pytest.raises(IdentityError, match="not signed by this study's authority"):
        Credentials.load(tmp_path / "ben")


def test_the_authority_is_no_party(ann: Credentials) -> None:
    with pytest.raises(IdentityError, match="authority's own"):
        ann.verify(ann.authority)


def test_a_party_vouches_for_nobody(study_keys: Path, ann: Credentials, ben: Credentials) -> None:
    from cutlayer.keys.certificates import load_key

    made = party_certificate(
        load_certificate(ben.certificate),
        load_key(ben.key),
        "host",
        new_key().public_key(),
        NOW - DAY,
        NOW + DAY,
    )
    with pytest.raises(IdentityError, match="not signed by this study's authority"):
        ann.verify(made.public_bytes(Encoding.PEM))


def test_two_certificates_in_one_file_are_not_taken_for_one(ann: Credentials, ben: Credentials) -> None:
    with pytest.raises(IdentityError, match="should be one certificate"):
        ann.verify(ben.certificate + self_made("ben"))


def test_a_changed_certificate(ann: Credentials, ben: Credentials) -> None:
    raw = load_certificate(ben.certificate).public_bytes(Encoding.DER)
    changed = x509.load_der_x509_certificate(raw.replace(b"ben", b"bob")).public_bytes(Encoding.PEM)
    with pytest.raises(IdentityError, match="not signed by this study's authority"):
        ann.verify(changed)


def test_a_revocation_is_seen_while_running(own: Authority, tmp_path: Path) -> None:
    for party in ("ann", "ben"):
        own.issue(party, tmp_path / party)
    ann = Credentials.load(tmp_path / "ann")
    assert ann.verify(pem(tmp_path / "ben")) == "ben"
    own.revoke("ben", "laptop stolen")
    assert ann.verify(pem(tmp_path / "ben")) == "ben"  # ann does not have the new list yet
    (tmp_path / "ann" / "revoked.pem").write_bytes(own.revoked)
    with pytest.raises(IdentityError, match="the certificate of ben was revoked on"):
        ann.verify(pem(tmp_path / "ben"))
    assert ann.verify(ann.certificate) == "ann"
    (tmp_path / "ben" / "revoked.pem").write_bytes(own.revoked)
    with pytest.raises(IdentityError, match="was revoked on"):
        Credentials.load(tmp_path / "ben")


def test_lists_that_cannot_be_trusted_are_refused_loudly(own: Authority, tmp_path: Path) -> None:
    own.issue("ann", tmp_path / "ann")
    ann = Credentials.load(tmp_path / "ann")
    path, good = tmp_path / "ann" / "revoked.pem", own.revoked
    foreign = Authority.create(tmp_path / "foreign", "small study").revoked
    for content, what in ((foreign, "not signed by"), (good[:150], "damaged"), (b"", "damaged")):
        path.write_bytes(content)
        for _ in range(2):
            with pytest.raises(IdentityError, match=f"the list of revoked certificates.*{what}"):
                ann.verify(ann.certificate)
    path.write_bytes(good)
    assert ann.verify(ann.certificate) == "ann"
    path.unlink()
    with pytest.raises(IdentityError, match="has gone"):
        ann.verify(ann.certificate)


def test_an_older_list_does_not_bring_anybody_back(own: Authority, tmp_path: Path) -> None:
    for party in ("ann", "ben"):
        own.issue(party, tmp_path / party)
    before = own.revoked
    own.revoke("ben", "lost")
    path = tmp_path / "ann" / "revoked.pem"
    path.write_bytes(own.revoked)
    ann = Credentials.load(tmp_path / "ann")
    path.write_bytes(before)
    with pytest.raises(
        IdentityError, match="older than the one that was there before; got list 1; expected list 2"
    ):
        ann.verify(pem(tmp_path / "ben"))


def test_a_list_that_cannot_be_looked_for_is_no_empty_one(own: Authority, tmp_path: Path) -> None:
    own.issue("ann", tmp_path / "ann")
    ann = Credentials.load(tmp_path / "ann")
    (tmp_path / "ann").rename(tmp_path / "moved")
    (tmp_path / "ann").write_text("a file where the folder was")
    with pytest.raises(IdentityError, match="list of revoked certificates"):
        ann.verify(ann.certificate)


def test_a_folder_without_a_list_may_get_one(own: Authority, tmp_path: Path) -> None:
    own.issue("ann", tmp_path / "ann")
    (tmp_path / "ann" / "revoked.pem").unlink()
    ann = Credentials.load(tmp_path / "ann")
    own.revoke("ann", "test")
    (tmp_path / "ann" / "revoked.pem").write_bytes(own.revoked)
    with pytest.raises(IdentityError, match="was revoked"):
        ann.verify(ann.certificate)


def test_a_certificate_that_was_compared_by_hand_is_the_only_one(own: Authority, tmp_path: Path) -> None:
    for party in ("ann", "ben"):
        own.issue(party, tmp_path / party)
    known = tmp_path / "ann" / "known"
    known.mkdir()
    (known / "ben.pem").write_bytes(pem(tmp_path / "ben"))
    ann = Credentials.load(tmp_path / "ann")
    assert ann.verify(pem(tmp_path / "ben")) == "ben"
    own.renew("ben", tmp_path / "forged")  # the lead makes itself a certificate of that name
    with pytest.raises(IdentityError, match="of ben is not the one that is known"):
        ann.verify(pem(tmp_path / "forged"))
    assert Credentials.load(tmp_path / "forged").verify(ann.certificate) == "ann"


def test_credentials_can_be_built_from_bytes(ann: Credentials, ben: Credentials) -> None:
    copy = Credentials(party="ann", certificate=ann.certificate, key=ann.key, authority=ann.authority)
    assert copy.verify(ben.certificate) == "ben"
    with pytest.raises(IdentityError, match="somebody else's; got 'ann'; expected 'ben'"):
        Credentials(party="ben", certificate=ann.certificate, key=ann.key, authority=ann.authority)


def test_a_key_with_a_password_says_so(ann: Credentials) -> None:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, PrivateFormat

    from cutlayer.keys.certificates import load_key

    locked = load_key(ann.key).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")
    )
    with pytest.raises(IdentityError, match="encrypted with a password"):
        Credentials(party="ann", certificate=ann.certificate, key=locked, authority=ann.authority)


def test_an_authority_of_the_same_key_but_other_name_does_not_matter(tmp_path: Path) -> None:
    key, own_key = new_key(), new_key()
    one, two = (authority_certificate(key, name, NOW - DAY, NOW + DAY) for name in ("one", "two"))
    made = party_certificate(one, key, "ann", own_key.public_key(), NOW - DAY, NOW + DAY).public_bytes(
        Encoding.PEM
    )
    credentials = Credentials(
        party="ann", certificate=made, key=key_pem(own_key), authority=two.public_bytes(Encoding.PEM)
    )
    with pytest.raises(IdentityError, match="not signed by"):
        credentials.verify(made)


def test_asking_again_is_cheap(ann: Credentials, ben: Credentials) -> None:
    ann.verify(ben.certificate)
    began = time.perf_counter()
    for _ in range(200):
        ann.verify(ben.certificate, party="ben")
    assert (time.perf_counter() - began) / 200 < 1e-3


def test_a_folder_is_read_as_its_owner_left_it(own: Authority, tmp_path: Path) -> None:
    own.issue("ann", tmp_path / "ann")
    before = sorted(os.listdir(tmp_path / "ann"))
    Credentials.load(tmp_path / "ann")
    assert sorted(os.listdir(tmp_path / "ann")) == before


def changed(der: bytes, signed: bytes) -> Iterator[bytes]:
    """Give ``der`` with one byte changed, each in turn.

    The byte before a signature says how many bits of it are unused; it is in no signature and says nothing.
    """
    unsigned = der.index(signed) + len(signed) + 12 + 2
    assert der[unsigned] == 0
    for place in range(len(der)):
        if place != unsigned:
            yield der[:place] + bytes([der[place] ^ (0x01 if place % 2 else 0xFF)]) + der[place + 1 :]


@pytest.mark.filterwarnings("ignore")
def test_no_change_of_a_certificate_is_believed_or_crashes(ann: Credentials, ben: Credentials) -> None:
    good = load_certificate(ben.certificate)
    for der in changed(good.public_bytes(Encoding.DER), good.tbs_certificate_bytes):
        with pytest.raises(IdentityError):
            ann.verify(armoured(der, "CERTIFICATE"))


@pytest.mark.filterwarnings("ignore")
def test_no_change_of_a_list_is_believed_or_crashes(own: Authority) -> None:
    good = x509.load_pem_x509_crl(own.revoked)
    for der in changed(good.public_bytes(Encoding.DER), good.tbs_certlist_bytes):
        with pytest.raises(IdentityError):
            Revocations.read(armoured(der, "X509 CRL"), load_certificate(own.certificate), "here")


@pytest.mark.filterwarnings("ignore")
def test_no_change_of_a_request_is_signed_or_crashes(own: Authority, tmp_path: Path) -> None:
    good = x509.load_pem_x509_csr(make_request("ann", tmp_path / "ann").read_bytes())
    for der in changed(good.public_bytes(Encoding.DER), good.tbs_certrequest_bytes):
        with pytest.raises(IdentityError):
            requested_key(armoured(der, "CERTIFICATE REQUEST"), "ann")
