"""What an authority has issued: one JSON line for each certificate, in the order in which they were made."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from cryptography import x509

from ..errors import IdentityError
from .certificates import fingerprint, party_of
from .files import read_file, write_file

__all__ = ["Issued", "read_index", "write_index"]


@dataclass(frozen=True, kw_only=True)
class Issued:
    """One certificate of the index.

    Attributes:
        party: The name it speaks for.
        serial: Its serial number, in hexadecimal digits.
        begin: From when it holds, ISO 8601 in UTC.
        end: Until when it holds.
        fingerprint: SHA-256 of the certificate.
        hosts: Where the party can be reached, as far as the certificate says.
        revoked: When it was revoked, or None.
        reason: Why it was revoked.
    """

    party: str
    serial: str
    begin: str
    end: str
    fingerprint: str
    hosts: tuple[str, ...] = ()
    revoked: str | None = None
    reason: str | None = None

    @staticmethod
    def of(certificate: x509.Certificate, hosts: tuple[str, ...]) -> Issued:
        """Return the line for a certificate that was just made."""
        return Issued(
            party=party_of(certificate),
            serial=f"{certificate.serial_number:x}",
            begin=certificate.not_valid_before_utc.isoformat(),
            end=certificate.not_valid_after_utc.isoformat(),
            fingerprint=fingerprint(certificate),
            hosts=hosts,
        )

    def holds(self, now: datetime.datetime) -> bool:
        """Whether it is neither revoked nor over."""
        return self.revoked is None and now <= datetime.datetime.fromisoformat(self.end)


def read_index(path: Path) -> list[Issued]:
    """Return all certificates of an index.

    Raises:
        IdentityError: If a line is damaged; the message names it.
    """
    made: list[Issued] = []
    lines = read_file(path, "the index of issued certificates").decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            made.append(_parsed(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise IdentityError(
                f"line {number} of {path} is no line of an index: {error}",
                todo="restore the file from a backup of the authority's folder",
            ) from error
    return made


def write_index(path: Path, issued: list[Issued]) -> None:
    """Write the whole index anew, all or nothing."""
    lines = "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in issued)
    write_file(path, lines.encode(), private=True)


def _parsed(line: object) -> Issued:
    if not isinstance(line, dict) or line.keys() - {one.name for one in fields(Issued)}:
        raise ValueError("unknown fields")
    one = Issued(**{**line, "hosts": tuple(line.get("hosts", ()))})
    int(one.serial, 16)
    for moment in (one.begin, one.end, one.revoked):
        if moment is not None and datetime.datetime.fromisoformat(moment).tzinfo is None:
            raise ValueError(f"{moment} does not say its time zone")
    return one
