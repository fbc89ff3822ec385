"""The trial of every transport, passed by the one in memory."""

import pytest
import torch

from cutlayer.transports import MemoryHub
from cutlayer.transports.conformance import CHECKS, COPYING_CHECKS
from cutlayer.wire import Kind, Message, decode, encode


def connect(parties):
    hub = MemoryHub(parties)
    return {party: hub.end(party) for party in parties}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_memory_transport(check):
    check(connect)


class Mute:
    """An end that breaks one promise after the other: nothing that is sent arrives."""

    def __init__(self, end):
        self.party, self.receive, self.close = end.party, end.receive, end.close

    def send(self, party, frame):
        pass


class Reordering(Mute):
    """An end that holds back every other frame."""

    def __init__(self, end):
        super().__init__(end)
        self._end, self._held = end, []

    def send(self, party, frame):
        self._held.append(frame)
        if len(self._held) == 2:
            self._end.send(party, self._held.pop())
            self._end.send(party, self._held.pop())


class Reusing(Mute):
    """An end that receives every frame into the same memory."""

    def __init__(self, end):
        super().__init__(end)
        self._end, self._memory = end, bytearray(2**26)
        self.send = end.send
        self.receive = self._receive

    def _receive(self, party, timeout_s=1.0):
        frame = self._end.receive(party, timeout_s)
        self._memory[: len(frame)] = frame
        return memoryview(self._memory)[: len(frame)]


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Reordering, "frames_arrive_in_order"),
        (Reusing, "received_frames_stay"),
        (Mute, "a_closed_end_refuses"),
    ],
)
def test_the_trial_finds_what_is_broken(broken, check):
    def connect_broken(parties):
        return {party: broken(end) for party, end in connect(parties).items()}

    with pytest.raises(AssertionError):
        next(one for one in CHECKS if one.__name__ == check)(connect_broken)


def test_sharing_memory_is_noticed_by_the_checks_for_transports_that_copy():
    with pytest.raises(AssertionError, match="wrote later"):
        COPYING_CHECKS[0](connect)


def test_what_is_received_decodes_to_aligned_tensors_without_a_copy():
    ends = connect(("hospital", "server"))
    activation = torch.randn(64, 256)
    frame = encode(Message(Kind.ACTIVATION, "head->server", 3, (("0", activation), ("1", activation[:, :3]))))
    ends["hospital"].send("server", frame)
    received = ends["server"].receive("hospital")
    message = decode(received)
    for (_, tensor), expected in zip(message.tensors, (activation, activation[:, :3]), strict=True):
        assert torch.equal(tensor, expected)
        assert tensor.data_ptr() % 64 == 0
    start = torch.frombuffer(frame, dtype=torch.uint8).data_ptr()
    assert start < message.tensors[0][1].data_ptr() < start + len(frame)
