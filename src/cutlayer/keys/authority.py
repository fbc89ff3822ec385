"""A study's certificate authority: a folder that the study lead keeps, and keeps to itself."""

from __future__ import annotations

import contextlib
import datetime
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ..errors import IdentityError, nearest
from .certificates import (
    CLOCK_SKEW,
    authority_certificate,
    fingerprint,
    key_pem,
    load_certificate,
    load_key,
    new_key,
    party_certificate,
    party_of,
    public_bytes,
    right_now,
    study_of,
)
from .files import (
    AUTHORITY,
    CERTIFICATE,
    INDEX,
    KEY,
    NEXT_KEY,
    REVOKED,
    locked,
    make_folder,
    new_folder,
    read_file,
    read_key_file,
    write_file,
)
from .issued import Issued, read_index, write_index
from .names import host_name, party_name, study_name
from .requests import requested_key
from .revocations import Revocations, revocation_list
from .trust import check_dates

__all__ = ["AUTHORITY_DAYS", "PARTY_DAYS", "Authority"]

AUTHORITY_DAYS = 365
"""How long an authority holds unless told otherwise."""
PARTY_DAYS = 30
"""How long a party's certificate holds unless told otherwise."""

_LOCK = ".lock"
_STUDY = "study.txt"
_MOST_DAYS = 3650


class Authority:
    """Vouches for the names of a study's parties. Made by `create`, found again by `open`.

    The folder holds the authority's key and certificate, an index of all that was issued and the list of
    revoked certificates. Each file is replaced as a whole, so a crash leaves nothing half done.

    Attributes:
        folder: Where it lies.
        study: The study's name; it stays in this folder, since certificates are shown to whoever connects.
        certificate: Its certificate, PEM: what parties get as ``authority.pem``.
    """

    def __init__(self, folder: Path, certificate: bytes, key: ec.EllipticCurvePrivateKey) -> None:
        self.folder = folder
        self.certificate = certificate
        self._certificate = load_certificate(certificate)
        self._key = key
        self.study = _study_in(folder) or study_of(self._certificate)

    @staticmethod
    def create(
        folder: str | Path, study: str, *, days: float = AUTHORITY_DAYS, now: datetime.datetime | None = None
    ) -> Authority:
        """Make the authority of a study.

        Args:
            folder: Where to keep it; must not exist yet, or be empty.
            study: The study's name, for people.
            days: How long it holds; no certificate outlives it.
            now: The moment it begins; at present unless given.

        Raises:
            IdentityError: If there is something in the folder already, or the name cannot be.
        """
        begin = right_now(now)
        end = begin + _days(days)
        key = new_key()
        name, label = study_name(study), f"study {secrets.token_hex(6)}"
        certificate = authority_certificate(key, label, begin - CLOCK_SKEW, end)
        with new_folder(Path(folder), "an authority is made once; keep the one that is there") as place:
            write_file(place / KEY, key_pem(key), private=True)
            write_file(place / CERTIFICATE, certificate.public_bytes(Encoding.PEM))
            write_index(place / INDEX, [])
            write_file(place / _STUDY, f"{name}\n".encode())
            write_file(place / REVOKED, revocation_list(certificate, key, {}, begin))
        return Authority.open(folder)

    @staticmethod
    def open(folder: str | Path) -> Authority:
        """Return the authority that lies in ``folder``.

        Raises:
            IdentityError: If there is none, it is damaged, or its key can be read by others.
        """
        place = Path(folder)
        todo = "make the study's authority: cutlayer keys init"
        certificate = read_file(place / CERTIFICATE, "the authority's certificate", todo=todo)
        key = load_key(read_key_file(place / KEY, "the authority's private key", todo=todo))
        parsed = load_certificate(certificate)
        if public_bytes(parsed.public_key()) != public_bytes(key.public_key()):
            raise IdentityError(f"key and certificate of the authority in {place} do not belong together")
        if not (place / INDEX).is_file():
            raise IdentityError(f"{place} holds no authority: there is no {INDEX}", todo=todo)
        return Authority(place, certificate, key)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate, for parties to compare over another channel."""
        return fingerprint(self._certificate)

    @property
    def until(self) -> datetime.datetime:
        """When it ends, in UTC."""
        return self._certificate.not_valid_after_utc

    @property
    def revoked(self) -> bytes:
        """The list of revoked certificates, PEM: what parties get as ``revoked.pem``."""
        return read_file(self.folder / REVOKED, "the list of revoked certificates")

    def issued(self) -> list[Issued]:
        """Return all certificates that were ever issued, oldest first."""
        return read_index(self.folder / INDEX)

    def issue(
        self,
        party: str,
        folder: str | Path,
        *,
        hosts: Sequence[str] = (),
        days: float = PARTY_DAYS,
        now: datetime.datetime | None = None,
    ) -> Issued:
        """Make a key and a certificate for a party; the folder is what the party gets.

        Args:
            party: The party's name.
            folder: Where to; must not exist yet, or be empty.
            hosts: DNS names and IP addresses at which the party can be reached, for the one that listens.
            days: How long the certificate holds, at most as long as the authority.
            now: The moment it begins; at present unless given.

        Raises:
            IdentityError: If the party has a certificate that still holds, or name, hosts or folder cannot be.
        """
        key = new_key()
        todo = f"a new key and certificate for the same party: cutlayer keys renew {party}"
        with self._locked(), new_folder(Path(folder), todo) as place:
            self._refuse_second(party, right_now(now), todo)
            certificate, line = self._certify(party, key.public_key(), hosts, days, now)
            write_file(place / KEY, key_pem(key), private=True)
            self.hand_out(place, certificate)
        return line

    def sign(
        self,
        request_pem: bytes,
        *,
        party: str,
        days: float = PARTY_DAYS,
        hosts: Sequence[str] = (),
        renew: bool = False,
        now: datetime.datetime | None = None,
    ) -> bytes:
        """Return the certificate (PEM) for a party that made its own key.

        Args:
            request_pem: The party's request.
            party: Whom the lead means to sign; the request must say the same.
            days: How long the certificate holds.
            hosts: DNS names and IP addresses at which the party can be reached.
            renew: Whether the party may have a certificate that still holds.
            now: The moment it begins; at present unless given.

        Raises:
            IdentityError: If the request is damaged, for another name, not signed by its key, or if the
                party has a certificate that still holds and ``renew`` is not said.
        """
        public = requested_key(request_pem, party)
        with self._locked():
            if not renew:
                self._refuse_second(
                    party, right_now(now), "if the request is surely from this party, sign it with --renew"
                )
            return self._certify(party, public, hosts, days, now)[0]

    def renew(
        self,
        party: str,
        folder: str | Path,
        *,
        hosts: Sequence[str] | None = None,
        days: float = PARTY_DAYS,
        now: datetime.datetime | None = None,
    ) -> Issued:
        """Make a new key and certificate for a party that has had one; the old one holds until it ends.

        Args:
            party: The party's name.
            folder: Its folder, whose files are replaced; made if it is not there.
            hosts: Where the party can be reached; as in its last certificate unless given.
            days: How long the certificate holds.
            now: The moment it begins; at present unless given.

        Raises:
            IdentityError: If no such party ever had a certificate, or the folder is another party's.
        """
        place = Path(folder)
        with self._locked():
            last = self._of(party)[-1]
            if (place / CERTIFICATE).exists():
                _same_party(place, party)
            make_folder(place)
            key = new_key()
            chosen = last.hosts if hosts is None else hosts
            certificate, line = self._certify(party, key.public_key(), chosen, days, now)
            write_file(place / NEXT_KEY, key_pem(key), private=True)
            self.hand_out(place, certificate)
            (place / NEXT_KEY).replace(place / KEY)
        return line

    def revoke(self, who: str, reason: str, *, now: datetime.datetime | None = None) -> list[Issued]:
        """Revoke certificates before they end; every party needs the new ``revoked.pem`` then.

        Args:
            who: A party, all of whose certificates are meant, or the serial number of one.
            reason: Why, for the index.
            now: Since when; at present unless given.

        Returns:
            The certificates that do not hold any more by this.

        Raises:
            IdentityError: If there is no such certificate, or none that still holds.
        """
        moment = right_now(now)
        with self._locked():
            index = self.issued()
            meant = self._of(who)
            fallen = [
                replace(one, revoked=moment.isoformat(), reason=reason) for one in meant if one.holds(moment)
            ]
            if not fallen:
                raise IdentityError(f"{who} has no certificate that still holds")
            changed = {one.serial: one for one in fallen}
            write_index(self.folder / INDEX, [changed.get(one.serial, one) for one in index])
            self._publish()
        return fallen

    def hand_out(self, folder: str | Path, certificate_pem: bytes) -> None:
        """Write what a party gets: its certificate, the authority's, and the list of revoked ones."""
        place = Path(folder)
        make_folder(place)
        write_file(place / AUTHORITY, self.certificate)
        write_file(place / REVOKED, self.revoked)
        write_file(place / CERTIFICATE, certificate_pem)

    def _certify(
        self,
        party: str,
        public: ec.EllipticCurvePublicKey,
        hosts: Sequence[str],
        days: float,
        now: datetime.datetime | None,
    ) -> tuple[bytes, Issued]:
        """Return a certificate that stands in the index before anybody has it."""
        begin = right_now(now)
        check_dates(self._certificate, begin, "the authority")
        end = min(begin + _days(days), self.until)
        for host in hosts:
            host_name(host)
        certificate = party_certificate(
            self._certificate, self._key, party_name(party), public, begin - CLOCK_SKEW, end, hosts
        )
        line = Issued.of(certificate, tuple(hosts))
        write_index(self.folder / INDEX, [*self.issued(), line])
        return certificate.public_bytes(Encoding.PEM), line

    def _of(self, who: str) -> list[Issued]:
        """Return a party's certificates, or the one with this serial number."""
        index = self.issued()
        found = [one for one in index if one.party == who] or [
            one for one in index if one.serial == who.lower().replace(" ", "").removeprefix("0x")
        ]
        if not found:
            known = {one.party for one in index}
            raise IdentityError(
                f"no certificate was issued to {who!r} by this authority", todo=nearest(who, known)
            )
        return found

    def _refuse_second(self, party: str, now: datetime.datetime, todo: str) -> None:
        for one in self.issued():
            if one.party == party and one.holds(now):
                raise IdentityError(
                    f"{party} has a certificate that holds until {one.end[:10]}; two parties cannot have one name",
                    todo=todo,
                )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time change the authority; finish what a crash may have left undone."""
        with locked(self.folder / _LOCK):
            revoked = {int(one.serial, 16) for one in self.issued() if one.revoked is not None}
            published = Revocations.read(self.revoked, self._certificate, str(self.folder / REVOKED))
            if revoked != published.since.keys():
                self._publish()
            yield

    def _publish(self) -> None:
        """Sign the list of all that the index says is revoked."""
        revoked = {
            int(one.serial, 16): datetime.datetime.fromisoformat(one.revoked)
            for one in self.issued()
            if one.revoked is not None
        }
        content = revocation_list(self._certificate, self._key, revoked, right_now())
        write_file(self.folder / REVOKED, content)


def _days(days: float) -> datetime.timedelta:
    if not 0 < days <= _MOST_DAYS:
        raise IdentityError(
            "this is no time for a certificate to hold", got=f"{days} days", expected=f"up to {_MOST_DAYS}"
        )
    return datetime.timedelta(days=days)


def _same_party(folder: Path, party: str) -> None:
    found = party_of(load_certificate(read_file(folder / CERTIFICATE, "the certificate")))
    if found != party:
        raise IdentityError(f"{folder} is the folder of another party", got=repr(found), expected=repr(party))


def _study_in(folder: Path) -> str:
    path = folder / _STUDY
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
