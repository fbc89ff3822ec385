"""Names that can stand in a certificate: of parties, studies and hosts."""

from __future__ import annotations

import ipaddress
import re

from cryptography import x509

from ..errors import IdentityError

__all__ = ["LONGEST_NAME", "host_name", "party_name", "study_name"]

LONGEST_NAME = 63
"""Characters of a party's name: what one label of a DNS name holds (RFC 1035, section 2.3.4)."""
_LONGEST_STUDY = 64

_PARTY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_HOST = re.compile(
    r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
)


def party_name(name: str) -> str:
    """Return ``name`` if a certificate can carry it as a party's name.

    Raises:
        IdentityError: If it holds other characters than ASCII letters, digits, '-' and '_', or is too long.
    """
    if not _PARTY.fullmatch(name):
        raise IdentityError(
            f"{name!r} cannot be the name of a party in a certificate",
            todo="use the letters a to z and A to Z, digits, '-' and '_' only",
        )
    if len(name) > LONGEST_NAME:
        raise IdentityError(
            "the name of the party is too long for a certificate",
            got=f"{len(name)} characters",
            expected=f"at most {LONGEST_NAME}",
        )
    return name


def study_name(name: str) -> str:
    """Return ``name`` if a certificate can carry it as a study's name.

    Raises:
        IdentityError: If it is empty, too long or cannot be printed.
    """
    if not name.strip() or not name.isprintable() or len(name) > _LONGEST_STUDY:
        raise IdentityError(
            "this cannot be the name of a study in a certificate",
            got=repr(name),
            expected=f"1 to {_LONGEST_STUDY} characters on one line",
        )
    return name


def host_name(host: str) -> x509.GeneralName:
    """Return a host as it stands in a certificate: an IP address or a DNS name.

    Raises:
        IdentityError: If it is neither.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise IdentityError(
            f"{host!r} cannot be the name of a host",
            expected="a DNS name like study.example.org or an IP address, without port",
        )
    return x509.DNSName(host)
