"""A party makes its own key and asks the study lead for a certificate; the key never leaves it."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ..errors import IdentityError
from .certificates import (
    DAMAGED,
    fingerprint,
    key_pem,
    load_certificate,
    load_key,
    new_key,
    party_of,
    public_bytes,
    request_pem,
)
from .files import (
    AUTHORITY,
    CERTIFICATE,
    KEY,
    NEXT_KEY,
    REQUEST,
    REVOKED,
    make_folder,
    read_file,
    read_key_file,
    write_file,
)
from .names import party_name
from .revocations import Revocations
from .trust import issued_by

__all__ = [
    "install",
    "install_revoked",
    "make_request",
    "renew_request",
    "requested_key",
    "requested_party",
]


def make_request(party: str, folder: str | Path) -> Path:
    """Make a party's key and its request for a certificate.

    Args:
        party: The name to ask for.
        folder: The party's folder. A request that was made there before and not answered is made again with
            the same key.

    Returns:
        The request's file, to be sent to the study lead: it holds nothing secret.

    Raises:
        IdentityError: If the name cannot be, or the folder has a certificate already.
    """
    place = Path(folder)
    if (place / CERTIFICATE).exists():
        raise IdentityError(
            f"{place} has a certificate already", todo="ask for the next one: cutlayer keys request --renew"
        )
    return _request(party_name(party), place, KEY)


def renew_request(folder: str | Path) -> Path:
    """Make a party's next key and the request for its certificate, while the old one goes on holding.

    Args:
        folder: The party's folder.

    Returns:
        The request's file.

    Raises:
        IdentityError: If there is no certificate to renew.
    """
    place = Path(folder)
    todo = "ask for the first one: cutlayer keys request"
    party = party_of(load_certificate(read_file(place / CERTIFICATE, "the certificate to renew", todo=todo)))
    return _request(party, place, NEXT_KEY)


def install(
    folder: str | Path, certificate_pem: bytes, authority_pem: bytes, revoked_pem: bytes | None = None
) -> str:
    """Take what the study lead sent into a party's folder, after checking that it fits.

    Args:
        folder: The party's folder, where its key is.
        certificate_pem: The party's certificate.
        authority_pem: The certificate of the study's authority.
        revoked_pem: The list of revoked certificates.

    Returns:
        The party's name.

    Raises:
        IdentityError: If the certificate was not made for a key in this folder, the authority did not sign it
            or the list, or the folder trusts another authority.
    """
    place = Path(folder)
    certificate = load_certificate(certificate_pem)
    authority = load_certificate(authority_pem, "the authority's certificate")
    issued_by(authority, certificate)
    _same_authority(place, authority)
    if revoked_pem is not None:
        _check_list(place, authority, revoked_pem)
    key = _key_of(place, certificate)
    write_file(place / AUTHORITY, authority_pem)
    if revoked_pem is not None:
        write_file(place / REVOKED, revoked_pem)
    write_file(place / CERTIFICATE, certificate_pem)
    if key != KEY:
        (place / key).replace(place / KEY)
    (place / REQUEST).unlink(missing_ok=True)
    return party_of(certificate)


def install_revoked(folder: str | Path, revoked_pem: bytes) -> Revocations:
    """Take a new list of revoked certificates into a party's folder; running processes see it at once.

    Args:
        folder: The party's folder.
        revoked_pem: The list, from the study lead.

    Returns:
        What the list says.

    Raises:
        IdentityError: If the list is damaged, not signed by the folder's authority, or older than the one there.
    """
    place = Path(folder)
    authority = load_certificate(read_file(place / AUTHORITY, "the authority's certificate"))
    _check_list(place, authority, revoked_pem)
    write_file(place / REVOKED, revoked_pem)
    return Revocations.read(revoked_pem, authority, "that was sent")


def requested_party(pem: bytes) -> str:
    """Return the name that a request asks for.

    Raises:
        IdentityError: If the request is damaged or does not ask for one name.
    """
    return _request_in(pem)[0]


def requested_key(pem: bytes, party: str) -> ec.EllipticCurvePublicKey:
    """Return the public key in a request that must be for the name ``party``.

    Raises:
        IdentityError: If the request is damaged, asks for another name or was not made with the key in it.
    """
    name, key = _request_in(pem)
    if name != party:
        raise IdentityError(
            "the request asks for another name",
            got=repr(name),
            expected=repr(party),
            todo="ask the party whether it made this request, and for which name",
        )
    return key


def _request_in(pem: bytes) -> tuple[str, ec.EllipticCurvePublicKey]:
    """Return name and public key of a request that was made with the key in it."""
    try:
        request = x509.load_pem_x509_csr(pem)
        signed, key = request.is_signature_valid, request.public_key()
        names = [str(one.value) for one in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except DAMAGED as error:
        raise IdentityError("this is no request for a certificate in PEM, or it is damaged") from error
    if not signed:
        raise IdentityError("the request is not signed with the key in it: it was changed on its way")
    if len(names) != 1:
        raise IdentityError("the request should ask for one name", got=f"{len(names)} names")
    public_bytes(key)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise IdentityError("the request's key is not on the curve P-256")
    return names[0], key


def _check_list(folder: Path, authority: x509.Certificate, pem: bytes) -> None:
    """Check that a list is the authority's, and not older than the one in ``folder``."""
    found = Revocations.read(pem, authority, "that was sent")
    if (folder / REVOKED).exists():
        there = Revocations.read(
            read_file(folder / REVOKED, "the list of revoked certificates"), authority, str(folder / REVOKED)
        )
        if found.number < there.number:
            raise IdentityError(
                "the list of revoked certificates is older than the one that is there",
                got=f"list {found.number}",
                expected=f"list {there.number} or later",
            )


def _request(party: str, folder: Path, name: str) -> Path:
    make_folder(folder)
    path = folder / name
    if path.exists():
        key = load_key(read_key_file(path, "the private key"))
    else:
        key = new_key()
        write_file(path, key_pem(key), private=True)
    write_file(folder / REQUEST, request_pem(key, party))
    return folder / REQUEST


def _key_of(folder: Path, certificate: x509.Certificate) -> str:
    """Return the name of the key's file that the certificate was made for."""
    wanted = public_bytes(certificate.public_key())
    for name in (KEY, NEXT_KEY):
        path = folder / name
        if (
            path.exists()
            and public_bytes(load_key(read_key_file(path, "the private key")).public_key()) == wanted
        ):
            return name
    raise IdentityError(
        f"the certificate of {party_of(certificate)} was not made for a key in {folder}",
        todo="install it where the request was made",
    )


def _same_authority(folder: Path, authority: x509.Certificate) -> None:
    if not (folder / AUTHORITY).exists():
        return
    trusted = load_certificate(read_file(folder / AUTHORITY, "the authority's certificate"))
    if trusted != authority:
        raise IdentityError(
            f"{folder} trusts another authority",
            got=fingerprint(authority),
            expected=fingerprint(trusted),
            todo="use one folder for each study; if the lead made a new authority, begin with a new folder",
        )
