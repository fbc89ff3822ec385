"""Who one is, with the proof: a party's certificate and key, and the authority that it trusts."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from ..errors import IdentityError
from .certificates import fingerprint, load_certificate, load_key, party_of, public_bytes, right_now, study_of
from .files import AUTHORITY, CERTIFICATE, KEY, KNOWN, NEXT_KEY, REVOKED, read_file, read_key_file
from .trust import Trust

__all__ = ["Credentials"]

_GET_ONE = "get one from the study lead (cutlayer keys issue), or make a request (cutlayer keys request)"


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """One party's proof of who it is, and what it needs to check the others'.

    Attributes:
        party: The party's name, as its certificate says.
        certificate: Its certificate, PEM.
        key: Its private key, PEM; never leaves the party.
        authority: The certificate of the study's authority, PEM.
        revoked_file: The authority's list of revoked certificates; read again whenever it changes.
        known: Folder of certificates ``NAME.pem`` that were compared by hand: for those names no others hold.
    """

    party: str
    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)
    authority: bytes = field(repr=False)
    revoked_file: Path | None = None
    known: Path | None = None
    _trust: Trust = field(init=False, repr=False, compare=False)
    _parsed: x509.Certificate = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parsed = load_certificate(self.certificate)
        if public_bytes(load_key(self.key).public_key()) != public_bytes(parsed.public_key()):
            raise IdentityError(
                "key and certificate do not belong together",
                party=self.party,
                todo="install the certificate that was made for this key's request",
            )
        if party_of(parsed) != self.party:
            raise IdentityError(
                "the certificate is somebody else's", got=repr(party_of(parsed)), expected=repr(self.party)
            )
        object.__setattr__(self, "_parsed", parsed)
        object.__setattr__(self, "_trust", Trust(self.authority, self.revoked_file, self.known))

    @staticmethod
    def load(folder: str | Path, *, now: datetime.datetime | None = None) -> Credentials:
        """Return the credentials in a party's folder, checked.

        Args:
            folder: Where ``key.pem``, ``certificate.pem``, ``authority.pem`` and perhaps ``revoked.pem`` are.
            now: When they should hold; at present unless given.

        Raises:
            IdentityError: If a file is missing or damaged, the key can be read by others, key and certificate do
                not belong together, or the certificate is another authority's, over, not yet valid or revoked.
        """
        found = Credentials.read(folder)
        found.verify(found.certificate, party=found.party, now=now)
        return found

    @staticmethod
    def read(folder: str | Path) -> Credentials:
        """Return the credentials in a folder whatever their dates and whoever signed them, to look at them.

        Args:
            folder: A party's folder.

        Raises:
            IdentityError: If a file is missing or damaged, the key can be read by others, or key and certificate
                do not belong together.
        """
        place = Path(folder)
        certificate = read_file(place / CERTIFICATE, "the certificate", todo=_GET_ONE)
        parsed = load_certificate(certificate, f"the certificate {place / CERTIFICATE}")
        return Credentials(
            party=party_of(parsed),
            certificate=certificate,
            key=_matching_key(place, parsed),
            authority=read_file(
                place / AUTHORITY, "the authority's certificate", todo="get it from the study lead"
            ),
            revoked_file=place / REVOKED,
            known=place / KNOWN,
        )

    def verify(
        self, certificate_pem: bytes, *, party: str | None = None, now: datetime.datetime | None = None
    ) -> str:
        """Return the name in a party's certificate, if it is this study's and holds.

        Args:
            certificate_pem: The certificate.
            party: Whose it should be; anybody's in the study unless given.
            now: When it should hold; at present unless given.

        Raises:
            IdentityError: If it is another authority's, self-made, damaged, over, not yet valid, revoked or
                somebody else's, or if the list of revoked certificates cannot be trusted.
        """
        return self._trust.verify(certificate_pem, party=party, now=now)

    def known_certificate(self, party: str) -> bytes | None:
        """Return the certificate of ``party`` that was compared by hand (``known/NAME.pem``), if there is one."""
        path = self.known / f"{party}.pem" if self.known is not None else None
        return (
            read_file(path, f"the certificate known of {party}")
            if path is not None and path.exists()
            else None
        )

    @property
    def days_left(self) -> float:
        """Days until the certificate ends; negative after that."""
        return (self._parsed.not_valid_after_utc - right_now()) / datetime.timedelta(days=1)

    @property
    def until(self) -> datetime.datetime:
        """When the certificate ends, in UTC."""
        return self._parsed.not_valid_after_utc

    @property
    def study(self) -> str:
        """Label of the study in its certificates: made by chance, since whoever connects is shown it."""
        return study_of(load_certificate(self.authority))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the party's certificate, to compare with the lead over another channel."""
        return fingerprint(self._parsed)

    @property
    def authority_fingerprint(self) -> str:
        """SHA-256 of the authority's certificate: the same at every party of a study."""
        return fingerprint(load_certificate(self.authority))


def _matching_key(folder: Path, certificate: x509.Certificate) -> bytes:
    """Return the key that the certificate is for.

    After a crash between the two steps of a renewal it may still bear the name of the next one.
    """
    wanted = public_bytes(certificate.public_key())
    key = read_key_file(folder / KEY, "the private key", todo=_GET_ONE)
    if public_bytes(load_key(key).public_key()) != wanted and (folder / NEXT_KEY).exists():
        following = read_key_file(folder / NEXT_KEY, "the next private key")
        if public_bytes(load_key(following).public_key()) == wanted:
            return following
    return key
