"""What a party shows the others so that they can seal for it: a key for one process's life, signed."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ..errors import IdentityError
from .certificates import load_certificate, load_key
from .credentials import Credentials

__all__ = ["INCARNATION_BYTES", "PUBLIC_BYTES", "KeyCard", "framed"]

PUBLIC_BYTES = 32
"""Bytes of an X25519 public key (RFC 7748, section 6.1)."""
INCARNATION_BYTES = 16
_LONGEST_TEXT = 16_384
_LONGEST_SIGNATURE = 128
_PURPOSE = b"cutlayer key card 1"


@dataclass(frozen=True, kw_only=True)
class KeyCard:
    """The public half of what a party seals with, for as long as its process lives.

    Attributes:
        party: The party's name.
        certificate: Its certificate, PEM.
        public: Its X25519 public key, 32 bytes.
        incarnation: 16 random bytes, other ones each time its process starts.
        digest: The study that it is for.
        signature: ECDSA over all of that with the certificate's key.
    """

    party: str
    certificate: bytes = field(repr=False)
    public: bytes = field(repr=False)
    incarnation: bytes
    digest: str
    signature: bytes = field(repr=False)

    @staticmethod
    def signed(credentials: Credentials, public: bytes, incarnation: bytes, digest: str) -> KeyCard:
        """Return a party's card.

        Args:
            credentials: Whose it is.
            public: Its X25519 public key.
            incarnation: 16 random bytes of this process.
            digest: The study.
        """
        party, certificate = credentials.party, credentials.certificate
        message = _message(party, certificate, public, incarnation, digest)
        signature = load_key(credentials.key).sign(message, ec.ECDSA(hashes.SHA256()))
        return KeyCard(
            party=party,
            certificate=certificate,
            public=public,
            incarnation=incarnation,
            digest=digest,
            signature=signature,
        )

    def check(self, credentials: Credentials, party: str, digest: str) -> None:
        """Check that this is the card of ``party`` for the study ``digest``.

        Args:
            credentials: Those of the party that checks.
            party: Whose card it should be.
            digest: The study it should be for.

        Raises:
            IdentityError: If it is another party's, for another study, its certificate does not hold, or it is
                not signed with the certificate's key.
        """
        if self.party != party:
            raise IdentityError(
                "the key card is somebody else's", party=party, got=repr(self.party), expected=repr(party)
            )
        credentials.verify(self.certificate, party=party)
        key = load_certificate(self.certificate).public_key()
        message = _message(self.party, self.certificate, self.public, self.incarnation, self.digest)
        try:
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise InvalidSignature
            key.verify(self.signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise IdentityError(
                "the key card is not signed with the key of the party's certificate",
                party=party,
                todo="whoever relays the cards may have changed it; tell the study lead",
            ) from error
        if self.digest != digest:
            raise IdentityError(
                "the key card is for another study",
                party=party,
                got=self.digest[:12],
                expected=digest[:12],
                todo="all parties must load the same study",
            )

    def to_json(self) -> dict[str, str]:
        """Return the card as texts that JSON can carry."""
        return {
            "party": self.party,
            "certificate": self.certificate.decode("ascii"),
            "public": _text(self.public),
            "incarnation": _text(self.incarnation),
            "digest": self.digest,
            "signature": _text(self.signature),
        }

    @staticmethod
    def from_json(card: Mapping[str, object]) -> KeyCard:
        """Return the card that `to_json` wrote; who made it is for `check` to say.

        Raises:
            IdentityError: If a field is missing, unknown, no text or of a wrong length.
        """
        known = [one.name for one in fields(KeyCard)]
        if not isinstance(card, Mapping) or card.keys() != set(known):
            got = ", ".join(sorted(map(str, card))) if isinstance(card, Mapping) else type(card).__name__
            raise IdentityError("this is no key card", got=got[:200] or "nothing", expected=", ".join(known))
        texts = {name: _checked(name, card[name]) for name in known}
        return KeyCard(
            party=texts["party"],
            certificate=texts["certificate"].encode(),
            public=_bytes("public", texts["public"], PUBLIC_BYTES, PUBLIC_BYTES),
            incarnation=_bytes("incarnation", texts["incarnation"], INCARNATION_BYTES, INCARNATION_BYTES),
            digest=texts["digest"],
            signature=_bytes("signature", texts["signature"], 1, _LONGEST_SIGNATURE),
        )


def framed(*parts: bytes) -> bytes:
    """Return parts after one another, each behind its length, so that no two lists give the same bytes."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def _message(party: str, certificate: bytes, public: bytes, incarnation: bytes, digest: str) -> bytes:
    return framed(_PURPOSE, party.encode(), certificate, public, incarnation, digest.encode())


def _checked(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.isascii() or not 0 < len(value) <= _LONGEST_TEXT:
        raise IdentityError(
            f"the key card's {name} is damaged", expected=f"1 to {_LONGEST_TEXT:,} ASCII characters"
        )
    return value


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _bytes(name: str, text: str, least: int, most: int) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise IdentityError(f"the key card's {name} is not in base64") from error
    if not least <= len(value) <= most:
        raise IdentityError(
            f"the key card's {name} has a wrong length",
            got=f"{len(value)} bytes",
            expected=f"{most} bytes" if least == most else f"{least} to {most} bytes",
        )
    return value
