"""Frames that somebody meddled with on their way are refused by whom they are for, and said to be."""

import pytest
import torch
from two_clients import listening

from cutlayer.errors import FrameError, PeerTimeout
from cutlayer.metering.run_log import read_log
from cutlayer.wire import Kind, Message, decode, encode


def nth(kind, number, change):
    """Meddle with the frame of this kind that comes ``number``-th, from 0."""
    seen = [0]

    def meddle(frame):
        if seen[0] > number or decode(bytes(frame)).kind is not kind:
            return frame
        seen[0] += 1
        return change(bytearray(frame)) if seen[0] == number + 1 else frame

    return meddle


def flipped(frame):
    frame[len(frame) // 2] ^= 1
    return memoryview(frame)


def altered(**changes):
    return lambda frame: encode(decode(bytes(frame))._replace(**changes))


def tensors(change):
    return lambda frame: encode(
        (m := decode(bytes(frame)))._replace(tensors=tuple(change(*pair) for pair in m.tensors))
    )


WAYS = {
    "a bit is turned over": (flipped, "the frame was damaged on its way: its checksum differs"),
    "it is cut": (lambda frame: memoryview(frame[:-9]), "the frame is cut short"),
    "it is no frame": (lambda frame: memoryview(b"GET / HTTP/1.1 and more" * 9), "not a cutlayer frame"),
    "it is of another step": (altered(step=77), "does not expect here; got .* of step 77"),
    "it is of another cut": (altered(name="tail->server"), "does not expect here; got .* 'tail->server'"),
    "it is of another kind": (altered(kind=Kind.STATISTICS), "does not expect here; got statistics"),
    "it has a tensor too few": (altered(tensors=()), "what came is not what the graph says; got 0 tensors"),
    "its tensors are wider": (
        tensors(lambda n, t: (n, torch.cat([t, t], -1) if t.ndim > 1 else t)), r"not what the graph says; got .*16\]",
    ),
    "its tensors are of another type": (tensors(lambda n, t: (n, t.double())), "the graph says; got .* float64"),
    "its tensors have other names": (tensors(lambda n, t: ("x" + n, t)), "not what the graph says; got x"),
}  # fmt: skip


@pytest.mark.parametrize("kind", [Kind.ACTIVATION, Kind.GRADIENT])
@pytest.mark.parametrize("way", WAYS)
def test_a_frame_that_somebody_meddled_with_is_refused(way, kind):
    change, why = WAYS[way]
    simulation, _ = listening(meddle=nth(kind, 2, change))
    with pytest.raises(FrameError, match=why) as caught:
        simulation.train()
    receiver, cut = (
        ("server", "head->server+y->server") if kind is Kind.ACTIVATION else ("c0", "head<-server")
    )
    assert (caught.value.party, caught.value.cut, caught.value.step) == (receiver, cut, 2)


@pytest.mark.parametrize("handover", ["peer", "server"])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (flipped, "damaged on its way"),
        (lambda frame: memoryview(frame[:-9]), "cut short"),
        (altered(kind=Kind.STATISTICS), "the message is not sealed; got STATISTICS"),
        (altered(name="c0"), "the sealed message is for somebody else; got 'c0'"),
    ],
)
def test_a_hand_over_that_somebody_meddled_with_is_refused(handover, change, why):
    simulation, _ = listening(meddle=nth(Kind.SEALED, 0, change), handover=handover)
    with pytest.raises(FrameError, match=why) as caught:
        simulation.train()
    assert (caught.value.party, caught.value.step) == ("c1", 3)


def test_the_state_of_another_network_is_not_taken_over():
    def other(frame):
        inner = decode(decode(bytes(frame)).tensors[0][1].numpy())
        wrong = inner._replace(
            tensors=tuple((n, torch.zeros(3)) if "bias" in n else (n, t) for n, t in inner.tensors)
        )
        sealed = torch.frombuffer(bytearray(encode(wrong)), dtype=torch.uint8)
        return encode(Message(Kind.SEALED, "c1", 3, (("sealed", sealed),)))

    simulation, _ = listening(meddle=nth(Kind.SEALED, 0, other))
    with pytest.raises(
        FrameError, match=r"the state of segment 'head' does not fit at 'linear1.bias'"
    ) as caught:
        simulation.train()
    assert (caught.value.party, caught.value.step) == ("c1", 3)


@pytest.mark.parametrize("kind", [Kind.ACTIVATION, Kind.GRADIENT, Kind.SEALED])
def test_a_frame_that_never_comes_is_missed(kind):
    simulation, _ = listening(meddle=nth(kind, 0, lambda frame: None))
    with pytest.raises(PeerTimeout, match=r"nothing came from '(c0|server)'"):
        simulation.train()


def test_a_run_that_failed_keeps_what_was_written_before(tmp_path):
    """The first epoch has 6 steps; a frame of the second is damaged."""
    simulation, _ = listening(meddle=nth(Kind.ACTIVATION, 8, flipped), out=tmp_path)
    with pytest.raises(FrameError):
        simulation.train()
    simulation.log.close()
    assert [e.epoch for e in read_log(tmp_path) if e.kind == "epoch_ended"] == [0]
    assert [p.name for p in (tmp_path / "snapshot").iterdir()] == ["1-0"]
