"""A frame within a frame, for its addressee only."""

from dataclasses import dataclass

import pytest
import torch

from cutlayer.errors import FrameError
from cutlayer.wire import Kind, Message, PlainSeal, decode, disclose, enclose, encode

STATE = Message(Kind.HANDOVER, "head", 12, (("weight", torch.randn(8, 4)), ("bias", torch.randn(8))))


@dataclass(frozen=True, kw_only=True)
class XorSeal:
    """A toy that really changes the bytes, with a key for each pair of parties."""

    party: str

    def seal(self, frame, to):
        return bytes(byte ^ self._key(self.party, to) for byte in memoryview(frame))

    def open(self, sealed, sender):
        return bytes(byte ^ self._key(sender, self.party) for byte in memoryview(sealed))

    def _key(self, sender, receiver):
        return sum(f"{sender}>{receiver}".encode()) % 255 + 1


@pytest.mark.parametrize("seal", [PlainSeal, XorSeal])
def test_the_addressee_reads_what_was_enclosed(seal):
    outer = encode(enclose(encode(STATE), seal(party="client-1"), to="client-2", step=12))
    relayed = bytes(outer)  # the relay passes it on as it came
    message = decode(relayed)
    assert (message.kind, message.name, message.step) == (Kind.SEALED, "client-2", 12)
    came = decode(disclose(message, seal(party="client-2"), sender="client-1"))
    assert came[:3] == STATE[:3]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(came.tensors, STATE.tensors, strict=True))


def test_a_seal_that_hides_shows_nothing_of_the_frame():
    inner = bytes(encode(STATE))
    outer = bytes(encode(enclose(inner, XorSeal(party="client-1"), to="client-2", step=12)))
    assert b"weight" in inner
    assert b"weight" not in outer


def test_the_wrong_sender_is_noticed():
    message = decode(encode(enclose(encode(STATE), XorSeal(party="client-1"), to="client-2", step=12)))
    with pytest.raises(FrameError):
        decode(disclose(message, XorSeal(party="client-2"), sender="client-9"))


def test_a_plain_seal_copies_nothing():
    outer = encode(enclose(encode(STATE), PlainSeal(party="a"), to="b", step=0))
    weight = decode(disclose(decode(outer), PlainSeal(party="b"), sender="a")).tensors[0][1]
    start = torch.frombuffer(outer, dtype=torch.uint8).data_ptr()
    assert start < weight.data_ptr() < start + len(outer)


def test_bytes_that_must_not_be_written_can_be_enclosed():
    message = enclose(bytes(encode(STATE)), PlainSeal(party="a"), to="b", step=0)
    assert decode(disclose(message, PlainSeal(party="b"), sender="a")).name == "head"


def test_only_the_addressee_opens():
    message = enclose(encode(STATE), PlainSeal(party="client-1"), to="client-2", step=12)
    with pytest.raises(
        FrameError, match="client-3, step 12: the sealed message is for somebody else; got 'client-2'"
    ):
        disclose(message, PlainSeal(party="client-3"), sender="client-1")


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (STATE, "not sealed; got HANDOVER"),
        (Message(Kind.SEALED, "b", 0, ()), "exactly one tensor of bytes"),
        (Message(Kind.SEALED, "b", 0, (("sealed", None),)), "exactly one tensor of bytes"),
        (Message(Kind.SEALED, "b", 0, (("sealed", torch.zeros(3)),)), "exactly one tensor of bytes"),
    ],
)
def test_what_is_not_sealed_is_not_opened(message, says):
    with pytest.raises(FrameError, match=says):
        disclose(message, PlainSeal(party="b"), sender="a")
