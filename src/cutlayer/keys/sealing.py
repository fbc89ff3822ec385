"""Frames sealed from end to end: whoever relays them sees sizes and addresses, never contents.

Each process makes an X25519 key when it starts and forgets it when it ends (forward secrecy: a
certificate's key that is stolen later opens nothing that was recorded). Its public half travels on a
`KeyCard` that the certificate's key signs. For each pair of parties, direction and generation of the
run, HKDF-SHA256 (RFC 5869) makes a key for AES-256-GCM (NIST SP 800-38D) out of the two X25519 keys, the
names, the incarnations and the study. The nonce counts frames, so none is used twice and each frame is
opened exactly once and in its turn.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import FrameError, IdentityError
from .cards import INCARNATION_BYTES, KeyCard, framed
from .credentials import Credentials

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["LARGEST_FRAME", "OVERHEAD", "Sealer"]

LARGEST_FRAME = 2**36 - 32
"""Bytes of a frame that one nonce of AES-GCM may seal (NIST SP 800-38D, section 5.2.1.1)."""
_COUNTER = 8
_TAG = 16
OVERHEAD = _COUNTER + _TAG
"""Bytes that a sealed frame is longer than the frame: its number in front, the tag behind."""

_ALIGNMENT = 64
_ROOM = 15
"""Bytes that the library wants behind what it writes: a block but one."""
_PURPOSE = b"cutlayer seal 1"


class Sealer:
    """One party's seals: closes frames for another party, opens those closed for this one.

    It has no keys before `meet`. One thread may seal while another opens.

    Args:
        credentials: Whose seals these are.
        digest: The study.
    """

    def __init__(self, credentials: Credentials, digest: str) -> None:
        self._credentials = credentials
        self._private = X25519PrivateKey.generate()
        self._generation = -1
        self._peers: dict[str, _Peer] = {}
        public = self._private.public_key().public_bytes_raw()
        self.card = KeyCard.signed(credentials, public, secrets.token_bytes(INCARNATION_BYTES), digest)
        """What the other parties need to seal for this one."""

    @property
    def party(self) -> str:
        """Name of the party whose seals these are."""
        return self._credentials.party

    @property
    def generation(self) -> int:
        """The generation of the keys in use; -1 before the first `meet`."""
        return self._generation

    def meet(self, cards: Mapping[str, KeyCard], generation: int) -> None:
        """Make new keys with the parties of ``cards``; frames sealed before cannot be opened any more.

        Args:
            cards: Each party's card by its name; this party's own may be among them.
            generation: Number of the run's start; must be higher than the last one's, since the same keys
                must never count from 0 twice.

        Raises:
            IdentityError: If a card does not hold; nothing has changed then. Or if the generation is not new.
        """
        if generation <= self._generation or generation >= 2**63:
            raise IdentityError(
                "keys are made once for each generation of a run",
                party=self.party,
                got=f"generation {generation}",
                expected=f"a generation above {self._generation}",
            )
        own = cards.get(self.party)
        if own is not None and own != self.card:
            raise IdentityError(
                "another process shows a key card with this party's name",
                party=self.party,
                todo="end the other one; if it is not yours, have the certificate revoked",
            )
        peers = {
            name: self._peer(name, card, generation) for name, card in cards.items() if name != self.party
        }
        self._peers, self._generation = peers, generation

    def check(self, party: str, card: Mapping[str, object]) -> None:
        """Check a card as it came, before others are to rely on it.

        Args:
            party: Whose it should be.
            card: What `KeyCard.to_json` wrote.

        Raises:
            IdentityError: If it is none, or does not hold.
        """
        if party != self.party:
            self._peer(party, KeyCard.from_json(card), 0)

    def seal(self, frame: Buffer, to: str) -> memoryview:
        """Return ``frame`` sealed so that only the party ``to`` can open it, in writable memory.

        Args:
            frame: The bytes, contiguous.
            to: The party that shall open it.

        Raises:
            FrameError: If there is no key for that party, or the frame is larger than 64 GiB.
        """
        plain = memoryview(frame).cast("B")
        if len(plain) > LARGEST_FRAME:
            raise FrameError(
                "the frame is too large to be sealed",
                party=self.party,
                got=f"{len(plain):,} bytes",
                expected=f"at most {LARGEST_FRAME:,}",
            )
        way = self._peer_of(to).sending
        with way.lock:
            number = way.next
            way.next += 1
        sealed = _aligned(_COUNTER + len(plain) + _TAG + _ROOM, _COUNTER)
        sealed[:_COUNTER] = number.to_bytes(_COUNTER, "big")
        cipher = Cipher(AES256(way.key), GCM(_nonce(number))).encryptor()
        cipher.authenticate_additional_data(way.bound(number))
        end = _COUNTER + cipher.update_into(plain, sealed[_COUNTER:])
        cipher.finalize()
        sealed[end : end + _TAG] = cipher.tag
        return sealed[: end + _TAG]

    def open(self, sealed: Buffer, sender: str) -> memoryview:
        """Return the frame that ``sender`` sealed for this party, in writable memory that starts at a multiple of 64.

        Args:
            sealed: What `seal` returned at the sender.
            sender: Who sealed it.

        Raises:
            FrameError: If it is not the next frame of that party, was sealed by or for somebody else, or
                was changed since; what is opened next is the same frame still.
        """
        given = memoryview(sealed).cast("B")
        way = self._peer_of(sender).receiving
        if len(given) < OVERHEAD:
            raise self._refused(sender, "is too short to be one", f"{len(given)} bytes")
        number = int.from_bytes(given[:_COUNTER], "big")
        with way.lock:
            if number != way.next:
                raise self._out_of_turn(sender, number, way.next)
            frame = self._decrypted(given, way, number, sender)
            way.next += 1
        return frame

    def secret(self, peer: str, purpose: bytes) -> bytes:
        """Return 32 bytes that only this party and ``peer`` know: others for each purpose and generation.

        Raises:
            FrameError: If there is no key with that party.
        """
        ways = self._peer_of(peer)
        both = b"".join(sorted((ways.sending.key, ways.receiving.key)))
        return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=framed(_PURPOSE, purpose)).derive(
            both
        )

    def _decrypted(self, given: memoryview, way: _Way, number: int, sender: str) -> memoryview:
        size = len(given) - OVERHEAD
        frame = _aligned(size + _ROOM)
        cipher = Cipher(AES256(way.key), GCM(_nonce(number), bytes(given[-_TAG:]))).decryptor()
        cipher.authenticate_additional_data(way.bound(number))
        try:
            cipher.update_into(given[_COUNTER:-_TAG], frame)
            cipher.finalize()
        except InvalidTag as error:
            refused = self._refused(
                sender, "was changed on its way, or is of another sender, addressee or generation", None
            )
            raise refused from error
        return frame[:size]

    def _peer(self, name: str, card: KeyCard, generation: int) -> _Peer:
        card.check(self._credentials, name, self.card.digest)
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(card.public))
        except ValueError as error:
            raise IdentityError("the key card holds a key that gives no secret", party=name) from error
        return _Peer(
            sending=_way(shared, self.card, card, generation),
            receiving=_way(shared, card, self.card, generation),
        )

    def _peer_of(self, party: str) -> _Peer:
        peer = self._peers.get(party)
        if peer is None:
            raise FrameError(
                f"there is no key to seal for or open from {party!r}",
                party=self.party,
                got=f"keys with {', '.join(sorted(self._peers)) or 'nobody'}",
            )
        return peer

    def _out_of_turn(self, sender: str, number: int, due: int) -> FrameError:
        what = (
            "was received before: it is a replay, or out of order"
            if number < due
            else f"is not the next one: {number - due} before it are missing, or they are out of order"
        )
        return self._refused(sender, what, f"frame {number}", f"frame {due}")

    def _refused(self, sender: str, what: str, got: str | None, expected: str | None = None) -> FrameError:
        error = FrameError(
            f"a sealed frame from {sender} {what}", party=self.party, got=got, expected=expected
        )
        error.sender = sender
        return error


class _Way:
    """One direction between two parties: its key, what is bound to each frame, the next number."""

    def __init__(self, key: bytes, binding: bytes) -> None:
        self.key = key
        self.next = 0
        self.lock = threading.Lock()
        self._binding = binding

    def bound(self, number: int) -> bytes:
        """Return what the tag of frame ``number`` covers beside its contents."""
        return self._binding + number.to_bytes(_COUNTER, "big")


@dataclass(frozen=True, kw_only=True)
class _Peer:
    sending: _Way
    receiving: _Way


def _way(shared: bytes, sender: KeyCard, receiver: KeyCard, generation: int) -> _Way:
    """Return the direction from ``sender`` to ``receiver``; both ends make the same one."""
    names = framed(sender.party.encode(), receiver.party.encode(), generation.to_bytes(8, "big"))
    info = framed(_PURPOSE, names, sender.incarnation, receiver.incarnation, sender.public, receiver.public)
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=sender.digest.encode(), info=info).derive(shared)
    return _Way(key, names)


def _nonce(number: int) -> bytes:
    """Return the 96 bits that make the encryption of frame ``number`` different from all others under its key."""
    return number.to_bytes(12, "big")


def _aligned(size: int, lead: int = 0) -> memoryview:
    """Return ``size`` writable bytes of which the one after ``lead`` lies at a multiple of 64."""
    memory = np.empty(size + _ALIGNMENT, dtype=np.uint8)
    start = -(memory.__array_interface__["data"][0] + lead) % _ALIGNMENT
    return memory[start : start + size].data
