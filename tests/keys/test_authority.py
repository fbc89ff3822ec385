"""The authority: what its certificates say, what it refuses, that a crash leaves nothing half done."""

from __future__ import annotations

import datetime
import ipaddress
import multiprocessing
import os
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cutlayer.errors import IdentityError
from cutlayer.keys import Authority, Credentials
from cutlayer.keys.certificates import fingerprint, load_certificate
from cutlayer.keys.issued import write_index

DAY = datetime.timedelta(days=1)
NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_authority_is_a_p256_certificate_that_may_sign_parties_only(own: Authority) -> None:
    certificate = load_certificate(own.certificate)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1"
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign and usage.crl_sign and not usage.digital_signature
    assert own.study == "small study"


def test_private_files_are_private(own: Authority, tmp_path: Path) -> None:
    own.issue("ann", tmp_path / "ann")
    assert mode(own.folder) == mode(tmp_path / "ann") == 0o700
    assert mode(own.folder / "key.pem") == mode(tmp_path / "ann" / "key.pem") == 0o600


def test_a_partys_certificate_says_who_where_and_for_what(own: Authority, tmp_path: Path) -> None:
    own.issue("hospital-a", tmp_path / "a", hosts=["study.example.org", "192.0.2.7", "::1"])
    certificate = load_certificate((tmp_path / "a" / "certificate.pem").read_bytes())
    assert [one.value for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [
        "hospital-a"
    ]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hospital-a", "study.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("192.0.2.7"),
        ipaddress.ip_address("::1"),
    ]
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature


def test_openssl_agrees(own: Authority, tmp_path: Path) -> None:
    own.issue("ann", tmp_path / "ann")
    own.issue("ben", tmp_path / "ben")
    own.revoke("ben", "gone")
    command = ["openssl", "verify", "-crl_check", "-CAfile", str(own.folder / "certificate.pem")]
    command += ["-CRLfile", str(own.folder / "revoked.pem")]
    verdicts = [
        subprocess.run([*command, str(tmp_path / party / "certificate.pem")], capture_output=True, text=True)
        for party in ("ann", "ben")
    ]
    assert verdicts[0].returncode == 0, verdicts[0].stderr
    assert verdicts[1].returncode != 0 and "revoked" in verdicts[1].stderr


def test_certificates_are_short_lived_and_begin_a_little_earlier(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "authority", "study", days=40, now=NOW)
    authority.issue("ann", tmp_path / "ann", now=NOW)
    certificate = load_certificate((tmp_path / "ann" / "certificate.pem").read_bytes())
    assert certificate.not_valid_after_utc == NOW + 30 * DAY
    assert NOW - datetime.timedelta(minutes=10) <= certificate.not_valid_before_utc < NOW


def test_no_certificate_outlives_the_authority(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "authority", "study", days=40, now=NOW)
    line = authority.issue("ann", tmp_path / "ann", days=100, now=NOW)
    assert datetime.datetime.fromisoformat(line.end) == authority.until == NOW + 40 * DAY


def test_an_authority_that_is_over_issues_nothing(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "authority", "study", days=40, now=NOW)
    with pytest.raises(IdentityError, match="the authority ended 2 days ago"):
        authority.issue("ann", tmp_path / "ann", now=NOW + 42 * DAY)
    assert authority.issued() == [] and not (tmp_path / "ann").exists()


def test_nothing_is_overwritten(own: Authority, tmp_path: Path) -> None:
    key = (own.folder / "key.pem").read_bytes()
    with pytest.raises(IdentityError, match="nothing is overwritten"):
        Authority.create(own.folder, "another")
    assert (own.folder / "key.pem").read_bytes() == key
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(IdentityError, match="nothing is overwritten"):
        own.issue("ann", tmp_path / "full")
    assert own.issued() == [] and os.listdir(tmp_path / "full") == ["letter.txt"]


def test_one_name_is_one_party(own: Authority, tmp_path: Path) -> None:
    own.issue("ann", tmp_path / "ann")
    with pytest.raises(IdentityError, match=r"two parties cannot have one name.*keys renew ann"):
        own.issue("ann", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    own.revoke("ann", "lost")
    own.issue("ann", tmp_path / "other")


@pytest.mark.parametrize("name", ["", "a b", "a.b", "../a", "klinik-köln", "a\n", "x" * 64, "a=b", "²"])
def test_names_that_cannot_be(own: Authority, tmp_path: Path, name: str) -> None:
    with pytest.raises(IdentityError, match=r"letters|too long"):
        own.issue(name, tmp_path / "folder")
    assert own.issued() == [] and not (tmp_path / "folder").exists()


@pytest.mark.parametrize("name", ["a", "A_1-z", "x" * 63, "-", "9"])
def test_names_that_can_be(own: Authority, tmp_path: Path, name: str) -> None:
    own.issue(name, tmp_path / "folder")
    assert Credentials.load(tmp_path / "folder").party == name


@pytest.mark.parametrize("host", ["", "a b", "https://a", "a:50051", "ä.example", "a..b", "-a", "a/b"])
def test_hosts_that_cannot_be(own: Authority, tmp_path: Path, host: str) -> None:
    with pytest.raises(IdentityError, match="cannot be the name of a host"):
        own.issue("ann", tmp_path / "ann", hosts=[host])


@pytest.mark.parametrize("study", ["", "  ", "x" * 65, "two\nlines"])
def test_studies_that_cannot_be(tmp_path: Path, study: str) -> None:
    with pytest.raises(IdentityError, match="name of a study"):
        Authority.create(tmp_path / "authority", study)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("days", [0, -1, float("nan"), float("inf"), 1e9])
def test_days_that_cannot_be(own: Authority, tmp_path: Path, days: float) -> None:
    with pytest.raises(IdentityError, match="no time for a certificate"):
        own.issue("ann", tmp_path / "ann", days=days)


def test_the_index_tells_what_was_issued(own: Authority, tmp_path: Path) -> None:
    first = own.issue("ann", tmp_path / "ann", hosts=["localhost"])
    second = own.issue("ben", tmp_path / "ben")
    assert Authority.open(own.folder).issued() == [first, second]
    certificate = load_certificate((tmp_path / "ann" / "certificate.pem").read_bytes())
    assert first.fingerprint == fingerprint(certificate)
    assert int(first.serial, 16) == certificate.serial_number
    assert first.hosts == ("localhost",)


def test_renewing_gives_another_key_for_the_same_party_and_hosts(own: Authority, tmp_path: Path) -> None:
    own.issue("ann", tmp_path / "ann", hosts=["localhost"])
    before = Credentials.load(tmp_path / "ann")
    line = own.renew("ann", tmp_path / "ann", days=10)
    after = Credentials.load(tmp_path / "ann")
    assert after.key != before.key and after.party == "ann" and line.hosts == ("localhost",)
    assert 9.9 < after.days_left <= 10
    assert after.verify(before.certificate) == "ann"  # the old one holds until it ends
    assert sorted(os.listdir(tmp_path / "ann")) == [
        "authority.pem",
        "certificate.pem",
        "key.pem",
        "revoked.pem",
    ]


def test_renewing_is_for_those_who_are_known(own: Authority, tmp_path: Path) -> None:
    own.issue("hospital-a", tmp_path / "a")
    own.issue("hospital-b", tmp_path / "b")
    with pytest.raises(IdentityError, match="did you mean 'hospital-a'"):
        own.renew("hospital-aa", tmp_path / "a")
    with pytest.raises(IdentityError, match="folder of another party"):
        own.renew("hospital-a", tmp_path / "b")
    assert len(own.issued()) == 2


def test_revoking_by_name_or_serial(own: Authority, tmp_path: Path) -> None:
    old = own.issue("ann", tmp_path / "ann")
    new = own.renew("ann", tmp_path / "ann")
    assert [one.serial for one in own.revoke(old.serial, "replaced")] == [old.serial]
    assert [one.serial for one in own.revoke("ann", "gone")] == [new.serial]
    assert [(one.revoked is not None, one.reason) for one in own.issued()] == [
        (True, "replaced"),
        (True, "gone"),
    ]
    with pytest.raises(IdentityError, match="no certificate that still holds"):
        own.revoke("ann", "again")
    with pytest.raises(IdentityError, match="no certificate was issued to 'anne'"):
        own.revoke("anne", "typing error")


def test_a_crash_between_index_and_list_is_mended(own: Authority, tmp_path: Path) -> None:
    own.issue("ann", tmp_path / "ann")
    before = own.revoked
    own.revoke("ann", "lost")
    (own.folder / "revoked.pem").write_bytes(before)  # as if the process had died just before writing it
    Authority.open(own.folder).issue("ben", tmp_path / "ben")
    ben = Credentials.load(tmp_path / "ben")
    with pytest.raises(IdentityError, match="was revoked"):
        ben.verify((tmp_path / "ann" / "certificate.pem").read_bytes())


def test_a_failed_write_leaves_nothing_behind(own: Authority, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(IdentityError):
        own.issue("ann", tmp_path / "file" / "ann")
    own.issue("ben", tmp_path / "ben")
    assert sorted(os.listdir(tmp_path)) == ["authority", "ben", "file"]
    assert [one.party for one in own.issued()] == ["ben"]


def _issue(folder: Path, party: str) -> None:
    Authority.open(folder / "authority").issue(party, folder / party)


def test_processes_take_turns(own: Authority, tmp_path: Path) -> None:
    names = [f"party-{number}" for number in range(6)]
    fork = multiprocessing.get_context("spawn")
    processes = [fork.Process(target=_issue, args=(tmp_path, name)) for name in names[:2]]
    for process in processes:
        process.start()
    for name in names[2:]:
        _issue(tmp_path, name)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(one.party for one in own.issued()) == names


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"party": "x"}', '{"party":"x","serial":"zz","begin":"","end":"","fingerprint":""}']
)
def test_a_damaged_index_names_its_line(own: Authority, tmp_path: Path, line: str) -> None:
    own.issue("ann", tmp_path / "ann")
    with (own.folder / "issued.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(IdentityError, match=r"line 2 of .*issued\.jsonl"):
        own.issued()


def test_an_authority_whose_key_others_can_read_is_refused(own: Authority) -> None:
    (own.folder / "key.pem").chmod(0o640)
    with pytest.raises(IdentityError, match="chmod 600"):
        Authority.open(own.folder)


def test_what_is_no_authority(own: Authority, tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="cutlayer keys init"):
        Authority.open(tmp_path / "nowhere")
    own.issue("ann", tmp_path / "ann")
    with pytest.raises(IdentityError, match="holds no authority"):
        Authority.open(tmp_path / "ann")
    other = Authority.create(tmp_path / "other", "study")
    (own.folder / "key.pem").write_bytes((other.folder / "key.pem").read_bytes())
    with pytest.raises(IdentityError, match="do not belong together"):
        Authority.open(own.folder)


def test_the_index_is_private(own: Authority) -> None:
    write_index(own.folder / "issued.jsonl", [])
    assert mode(own.folder / "issued.jsonl") == 0o600
