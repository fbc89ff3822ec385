"""X.509 as cutlayer uses it: P-256 keys, one authority for each study, certificates whose name is the party's.

P-256 because the TLS library inside gRPC does not take Ed25519 certificates unless told so.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import IdentityError
from .names import host_name

__all__ = [
    "CLOCK_SKEW",
    "DAMAGED",
    "authority_certificate",
    "fingerprint",
    "key_fingerprint",
    "key_pem",
    "load_certificate",
    "load_key",
    "new_key",
    "party_certificate",
    "party_of",
    "public_bytes",
    "request_pem",
    "right_now",
    "study_of",
]

CLOCK_SKEW = datetime.timedelta(minutes=5)
"""How far a party's clock may be behind the authority's when it gets a new certificate."""
DAMAGED = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What the library raises when it is given bytes that are not what they should be."""
_AUTHORITY_NAME = "study authority"


def right_now(now: datetime.datetime | None = None) -> datetime.datetime:
    """Return ``now``, or the present moment, in UTC and whole seconds."""
    return (now or datetime.datetime.now(datetime.UTC)).astimezone(datetime.UTC).replace(microsecond=0)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key on the curve P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM (PKCS#8, not encrypted: the file's mode protects it)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the private key in ``pem``.

    Raises:
        IdentityError: If it is damaged, encrypted or not on the curve P-256.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise IdentityError(
            "the private key is encrypted with a password",
            todo="decrypt it: openssl pkey -in old -out key.pem",
        ) from error
    except DAMAGED as error:
        raise IdentityError("this is no private key in PEM, or it is damaged") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError(
            "the private key is of a kind that is not used here", expected="one on the curve P-256"
        )
    return key


def load_certificate(pem: bytes, what: str = "the certificate") -> x509.Certificate:
    """Return the one certificate in ``pem``.

    Raises:
        IdentityError: If there is none, more than one, or it is damaged.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except DAMAGED as error:
        raise IdentityError(f"{what} is no certificate in PEM, or is damaged") from error
    if len(certificates) != 1:
        raise IdentityError(f"{what} should be one certificate", got=f"{len(certificates)} in one file")
    return certificates[0]


def public_bytes(key: object) -> bytes:
    """Return a public key's bytes, to compare it with another.

    Raises:
        IdentityError: If it is not on the curve P-256.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError(
            "the public key is of a kind that is not used here", expected="one on the curve P-256"
        )
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def party_of(certificate: x509.Certificate) -> str:
    """Return the party's name in a certificate.

    Raises:
        IdentityError: If it has no name or several.
    """
    return _only(certificate.subject, NameOID.COMMON_NAME, "a party")


def study_of(authority: x509.Certificate) -> str:
    """Return the study's label in the authority's certificate."""
    return _only(authority.subject, NameOID.ORGANIZATION_NAME, "a study")


def _only(name: x509.Name, kind: x509.ObjectIdentifier, what: str) -> str:
    found = name.get_attributes_for_oid(kind)
    if len(found) != 1:
        raise IdentityError(f"the certificate should name {what} once", got=f"{len(found)} names")
    value = found[0].value
    return value if isinstance(value, str) else value.decode("ascii", "replace")


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate in groups that can be read out over the telephone."""
    return _grouped(certificate.fingerprint(hashes.SHA256()).hex())


def key_fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of a public key, which a request and its certificate share."""
    return _grouped(hashlib.sha256(public_bytes(key)).hexdigest())


def _grouped(digits: str) -> str:
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))


def authority_certificate(
    key: ec.EllipticCurvePrivateKey, study: str, begin: datetime.datetime, end: datetime.datetime
) -> x509.Certificate:
    """Return the certificate with which a study's authority vouches for itself."""
    name = _name(_AUTHORITY_NAME, study)
    usage = _usage(key_cert_sign=True, crl_sign=True)
    builder = (
        _begun(name, name, key.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return builder.sign(key, hashes.SHA256())


def party_certificate(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    party: str,
    public: ec.EllipticCurvePublicKey,
    begin: datetime.datetime,
    end: datetime.datetime,
    hosts: Sequence[str] = (),
) -> x509.Certificate:
    """Return a certificate that says that ``public`` is the key of ``party``.

    Args:
        authority: The study's authority.
        authority_key: Its private key.
        party: The party's name, as subject and as DNS name.
        public: The party's public key.
        begin: From when it holds.
        end: Until when it holds.
        hosts: Under which DNS names and IP addresses the party can be reached.
    """
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    names = [x509.DNSName(party), *map(host_name, hosts)]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = (
        _begun(_name(party, study_of(authority)), authority.subject, public, begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issuer, critical=False)
    )
    return builder.sign(authority_key, hashes.SHA256())


def request_pem(key: ec.EllipticCurvePrivateKey, party: str) -> bytes:
    """Return a party's request for a certificate, signed with its own key (PKCS#10)."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, party)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def _name(name: str, study: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, study), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    begin: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
