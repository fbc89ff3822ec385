"""Certificates that hold no longer: a list signed by the study's authority (X.509 CRL)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ..errors import IdentityError
from .certificates import DAMAGED

__all__ = ["Revocations", "revocation_list"]


@dataclass(frozen=True, kw_only=True)
class Revocations:
    """What a list of revoked certificates says.

    Attributes:
        number: Grows with each list that an authority signs.
        since: When each certificate was revoked, by serial number.
    """

    number: int
    since: Mapping[int, datetime.datetime]

    @staticmethod
    def read(pem: bytes, authority: x509.Certificate, where: str) -> Revocations:
        """Return what the list in ``pem`` says.

        Args:
            pem: The list.
            authority: Who must have signed it.
            where: Where it comes from, for messages.

        Raises:
            IdentityError: If it is damaged or not signed by the authority: going on without it could let
                a revoked certificate in.
        """
        todo = "get revoked.pem from the study lead again"
        try:
            found = x509.load_pem_x509_crl(pem)
            public = authority.public_key()
            signed = isinstance(public, ec.EllipticCurvePublicKey) and found.is_signature_valid(public)
            signed = signed and found.issuer == authority.subject
            number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            since = {one.serial_number: one.revocation_date_utc for one in found}
        except (*DAMAGED, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
            raise IdentityError(
                f"the list of revoked certificates, {where}, is damaged", todo=todo
            ) from error
        if not signed:
            raise IdentityError(
                f"the list of revoked certificates, {where}, is not signed by this study's authority",
                todo=todo,
            )
        return Revocations(number=number, since=since)


def revocation_list(
    authority: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    revoked: Mapping[int, datetime.datetime],
    now: datetime.datetime,
) -> bytes:
    """Return a signed list of revoked certificates as PEM.

    Its number is one more than the certificates on it, so a later list has a higher one. It does not
    run out before the authority does: parties that cannot reach the lead go on with the list they have.

    Args:
        authority: The study's authority.
        key: Its private key.
        revoked: When each certificate was revoked, by serial number.
        now: When the list is made.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(min(now, authority.not_valid_after_utc - datetime.timedelta(seconds=1)))
        .next_update(authority.not_valid_after_utc)
        .add_extension(x509.CRLNumber(len(revoked) + 1), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    for serial, since in revoked.items():
        one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
        builder = builder.add_revoked_certificate(one)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
