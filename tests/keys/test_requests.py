"""A party's own key: it never leaves, and only its own certificate can be installed beside it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cutlayer.errors import IdentityError
from cutlayer.keys import Authority, Credentials, install, install_revoked, make_request, renew_request


def joined(own: Authority, folder: Path, party: str) -> Credentials:
    """Take a party through request, signature and installation."""
    request = make_request(party, folder)
    install(folder, own.sign(request.read_bytes(), party=party), own.certificate, own.revoked)
    return Credentials.load(folder)


def test_request_sign_install(own: Authority, tmp_path: Path) -> None:
    request = make_request("ann", tmp_path / "ann")
    key = (tmp_path / "ann" / "key.pem").read_bytes()
    assert (tmp_path / "ann" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in request.read_bytes()
    certificate = own.sign(request.read_bytes(), party="ann", hosts=["localhost"], days=3)
    assert install(tmp_path / "ann", certificate, own.certificate, own.revoked) == "ann"
    found = Credentials.load(tmp_path / "ann")
    assert found.party == "ann" and found.key == key and 2.9 < found.days_left <= 3
    assert sorted(os.listdir(tmp_path / "ann")) == [
        "authority.pem",
        "certificate.pem",
        "key.pem",
        "revoked.pem",
    ]
    secret = re.findall(rb"-----\n(.*?)\n", key)[0]
    assert not any(secret in path.read_bytes() for path in own.folder.iterdir())


def test_a_request_asked_for_twice_keeps_its_key(own: Authority, tmp_path: Path) -> None:
    first = make_request("ann", tmp_path / "ann").read_bytes()
    make_request("ann", tmp_path / "ann")
    install(tmp_path / "ann", own.sign(first, party="ann"), own.certificate)
    with pytest.raises(IdentityError, match="--renew"):
        make_request("ann", tmp_path / "ann")


def test_the_lead_says_whom_it_signs(own: Authority, tmp_path: Path) -> None:
    request = make_request("mallory", tmp_path / "m").read_bytes()
    with pytest.raises(IdentityError, match="asks for another name; got 'mallory'; expected 'ann'"):
        own.sign(request, party="ann")
    assert own.issued() == []


def test_a_name_that_is_taken_needs_the_leads_word(own: Authority, tmp_path: Path) -> None:
    joined(own, tmp_path / "ann", "ann")
    request = make_request("ann", tmp_path / "mallory").read_bytes()
    with pytest.raises(IdentityError, match="two parties cannot have one name"):
        own.sign(request, party="ann")
    own.sign(request, party="ann", renew=True)


def test_renewing_while_the_old_certificate_holds(own: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "ann"
    before = joined(own, folder, "ann")
    request = renew_request(folder)
    assert Credentials.load(folder).key == before.key
    certificate = own.sign(request.read_bytes(), party="ann", renew=True)
    install(folder, certificate, own.certificate, own.revoked)
    after = Credentials.load(folder)
    assert after.key != before.key and after.certificate == certificate
    assert sorted(os.listdir(folder)) == ["authority.pem", "certificate.pem", "key.pem", "revoked.pem"]


def test_a_crash_in_the_middle_of_a_renewal(own: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "ann"
    joined(own, folder, "ann")
    certificate = own.sign(renew_request(folder).read_bytes(), party="ann", renew=True)
    (folder / "certificate.pem").write_bytes(certificate)  # the process died before the key got its name
    found = Credentials.load(folder)
    assert found.key == (folder / "key.next.pem").read_bytes()
    install(folder, certificate, own.certificate)
    assert Credentials.load(folder) == found


def test_there_is_nothing_to_renew(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="ask for the first one"):
        renew_request(tmp_path / "ann")


def test_a_certificate_for_another_key_is_not_installed(own: Authority, tmp_path: Path) -> None:
    make_request("ann", tmp_path / "ann")
    own.issue("ben", tmp_path / "ben")
    with pytest.raises(IdentityError, match="was not made for a key in"):
        install(tmp_path / "ann", (tmp_path / "ben" / "certificate.pem").read_bytes(), own.certificate)
    assert sorted(os.listdir(tmp_path / "ann")) == ["key.pem", "request.pem"]


def test_an_authority_that_did_not_sign_is_not_installed(own: Authority, tmp_path: Path) -> None:
    certificate = own.sign(make_request("ann", tmp_path / "ann").read_bytes(), party="ann")
    other = Authority.create(tmp_path / "other", "small study")
    with pytest.raises(IdentityError, match="not signed by this study's authority"):
        install(tmp_path / "ann", certificate, other.certificate)
    with pytest.raises(IdentityError, match="list of revoked certificates, that was sent, is not signed"):
        install(tmp_path / "ann", certificate, own.certificate, other.revoked)
    assert sorted(os.listdir(tmp_path / "ann")) == ["key.pem", "request.pem"]


def test_an_authority_is_not_exchanged_unseen(own: Authority, tmp_path: Path) -> None:
    joined(own, tmp_path / "ann", "ann")
    other = Authority.create(tmp_path / "other", "small study")
    certificate = other.sign(renew_request(tmp_path / "ann").read_bytes(), party="ann")
    with pytest.raises(IdentityError, match="trusts another authority"):
        install(tmp_path / "ann", certificate, other.certificate)


def test_a_new_list_is_taken_and_an_old_one_is_not(own: Authority, tmp_path: Path) -> None:
    joined(own, tmp_path / "ann", "ann")
    own.issue("ben", tmp_path / "ben")
    before = own.revoked
    own.revoke("ben", "lost")
    assert len(install_revoked(tmp_path / "ann", own.revoked).since) == 1
    with pytest.raises(IdentityError, match="older than the one that is there; got list 1; expected list 2"):
        install_revoked(tmp_path / "ann", before)
    with pytest.raises(IdentityError, match="damaged"):
        install_revoked(tmp_path / "ann", own.revoked[:200])


def test_a_request_that_was_changed_is_refused(own: Authority, tmp_path: Path) -> None:
    request = x509.load_pem_x509_csr(make_request("ann", tmp_path / "ann").read_bytes())
    raw = bytearray(request.public_bytes(Encoding.DER))
    raw[raw.index(b"ann")] ^= 2  # "cnn"
    changed = x509.load_der_x509_csr(bytes(raw)).public_bytes(Encoding.PEM)
    with pytest.raises(IdentityError, match="changed on its way"):
        own.sign(changed, party="cnn")


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_what_is_no_request(own: Authority, content: bytes) -> None:
    with pytest.raises(IdentityError, match="no request"):
        own.sign(content, party="ann")


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "Ed25519", "RSA"],
)
def test_keys_of_other_kinds_are_refused(
    own: Authority, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ann")])
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, algorithm)
    with pytest.raises(IdentityError, match="P-256"):
        own.sign(request.public_bytes(Encoding.PEM), party="ann")
