"""Whether a certificate is one of this study's, of the right name, and holds today."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from ..errors import IdentityError
from .certificates import DAMAGED, fingerprint, load_certificate, party_of, public_bytes, right_now
from .files import read_file
from .names import party_name
from .revocations import Revocations

__all__ = ["Trust", "check_dates", "issued_by"]

_MOST_KEPT = 4096


class Trust:
    """Checks certificates against one authority and its list of revoked ones.

    What does not change (who signed it, whose it is) is checked once for each certificate; dates and the
    list each time, the list being read again only when its file has changed. Threads may share it.

    Args:
        authority: The authority's certificate, PEM.
        revoked_file: Where its list of revoked certificates lies; it may come to be there later.
        known: A folder with ``NAME.pem`` for each party whose certificate was compared by hand: no other
            certificate with that name is taken, whoever signed it.
    """

    def __init__(self, authority: bytes, revoked_file: Path | None, known: Path | None = None) -> None:
        self._authority = load_certificate(authority, "the authority's certificate")
        self._file = revoked_file
        self._known = known
        self._checked: dict[bytes, tuple[str, x509.Certificate]] = {}
        self._list: tuple[tuple[int, int, int], Revocations] | None = None

    def verify(self, pem: bytes, *, party: str | None = None, now: datetime.datetime | None = None) -> str:
        """Return the party's name in a certificate that holds.

        Args:
            pem: The certificate.
            party: Whose it should be.
            now: When it should hold; at present unless given.

        Raises:
            IdentityError: If it is of another authority, self-made, damaged, over, not yet valid, revoked or
                somebody else's, or if the list of revoked certificates cannot be trusted.
        """
        name, certificate = self._checked.get(pem) or self._check(pem)
        moment = right_now(now)
        check_dates(certificate, moment, f"the certificate of {name}")
        since = self._revoked().get(certificate.serial_number)
        if since is not None:
            raise IdentityError(
                f"the certificate of {name} was revoked on {since:%Y-%m-%d %H:%M} UTC",
                todo="ask the study lead for a new one",
            )
        if party is not None and name != party:
            raise IdentityError("the certificate is somebody else's", got=repr(name), expected=repr(party))
        self._compare(name, certificate)
        return name

    def _compare(self, name: str, certificate: x509.Certificate) -> None:
        """Check a certificate against the one that this party keeps for that name, if it keeps one."""
        if self._known is None or not (self._known / f"{name}.pem").exists():
            return
        file = self._known / f"{name}.pem"
        known = load_certificate(read_file(file, f"the certificate known of {name}"))
        if certificate != known:
            raise IdentityError(
                f"the certificate of {name} is not the one that is known, {file}",
                got=fingerprint(certificate),
                expected=fingerprint(known),
                todo=f"ask {name} over another channel; if it renewed its certificate, replace the file",
            )

    def _check(self, pem: bytes) -> tuple[str, x509.Certificate]:
        certificate = load_certificate(pem)
        issued_by(self._authority, certificate)
        found = party_name(party_of(certificate)), certificate
        if len(self._checked) >= _MOST_KEPT:
            self._checked.clear()
        self._checked[bytes(pem)] = found
        return found

    def _revoked(self) -> Mapping[int, datetime.datetime]:
        """Return when each revoked certificate was revoked, as the list says now."""
        if self._file is None:
            return {}
        before = self._list
        try:
            state = self._file.stat()
        except FileNotFoundError as error:
            if before is None:
                return {}
            raise IdentityError(
                f"the list of revoked certificates, {self._file}, has gone", todo="put it back"
            ) from error
        except OSError as error:
            raise IdentityError(
                f"the list of revoked certificates, {self._file}, cannot be read: {error.strerror}"
            ) from error
        mark = (state.st_mtime_ns, state.st_size, state.st_ino)
        if before is not None and before[0] == mark:
            return before[1].since
        found = Revocations.read(
            read_file(self._file, "the list of revoked certificates"), self._authority, str(self._file)
        )
        if before is not None and found.number < before[1].number:
            raise IdentityError(
                f"the list of revoked certificates, {self._file}, is older than the one that was there before",
                got=f"list {found.number}",
                expected=f"list {before[1].number} or later",
            )
        self._list = (mark, found)
        return found.since


def issued_by(authority: x509.Certificate, certificate: x509.Certificate) -> None:
    """Check that ``authority`` signed ``certificate`` as a party's, whatever its dates.

    Raises:
        IdentityError: If somebody else signed it, or it is an authority's.
    """
    try:
        certificate.verify_directly_issued_by(authority)
    except (*DAMAGED, InvalidSignature) as error:
        subject, made_itself = _subject(certificate)
        raise IdentityError(
            "the certificate was made by its owner alone, not by this study's authority"
            if made_itself
            else "the certificate is not signed by this study's authority",
            got=f"subject {subject!r}",
            todo="use the folder that belongs to this study, or ask the study lead for a certificate",
        ) from error
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise IdentityError("the certificate does not say that it is a party's") from error
    if constraints.ca:
        raise IdentityError("the certificate is the authority's own, not a party's")
    public_bytes(certificate.public_key())


def check_dates(certificate: x509.Certificate, now: datetime.datetime, what: str) -> None:
    """Check that a certificate holds at ``now``.

    Raises:
        IdentityError: If it is over or does not hold yet; the message says by how much.
    """
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        raise IdentityError(
            f"{what} ended {_span(now - end)} ago, on {end:%Y-%m-%d %H:%M} UTC",
            todo="renew it: cutlayer keys renew (if the date looks wrong, look at this machine's clock)",
        )
    if now < begin:
        raise IdentityError(
            f"{what} does not hold before {begin:%Y-%m-%d %H:%M} UTC, in {_span(begin - now)}",
            todo=f"look at this machine's clock: it says {now:%Y-%m-%d %H:%M} UTC",
        )


def _subject(certificate: x509.Certificate) -> tuple[str, bool]:
    """Return what a stranger's certificate calls its owner, and whether it calls its issuer the same."""
    try:
        return certificate.subject.rfc4514_string()[:200], certificate.issuer == certificate.subject
    except DAMAGED:
        return "that cannot be read", False


def _span(time: datetime.timedelta) -> str:
    if time.days:
        return f"{time.days} day{'s' * (time.days != 1)}"
    hours, minutes = divmod(max(time.seconds // 60, 1), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
