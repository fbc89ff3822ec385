"""What holds for parties in one process beyond what every transport promises."""

import gc
import math
import threading
import time

import pytest

from cutlayer.errors import PeerTimeout, TransportError
from cutlayer.transports import MemoryHub


def test_a_party_has_one_end():
    hub = MemoryHub(["a", "b"])
    assert hub.end("a") is hub.end("a")
    assert hub.end("a").party == "a"
    assert hub.parties == ("a", "b")


def test_names_are_checked():
    with pytest.raises(TransportError, match="two parties share a name; got 'a'"):
        MemoryHub(["a", "b", "a"])
    with pytest.raises(TransportError, match=r"no such party; got 'sever'; did you mean 'server'\?"):
        MemoryHub(["hospital", "server"]).end("sever")


def test_a_party_does_not_send_to_itself():
    end = MemoryHub(["a", "b"]).end("a")
    with pytest.raises(TransportError, match="a: a party does not send frames to itself"):
        end.send("a", b"frame")


def test_the_frame_is_given_away_not_copied():
    hub = MemoryHub(["a", "b"])
    frame = bytearray(b"frame")
    hub.end("a").send("b", frame)
    received = hub.end("b").receive("a")
    assert received.obj is frame


@pytest.mark.parametrize("frame", ["text", 3, memoryview(b"frames")[::2]])
def test_only_contiguous_bytes_are_sent(frame):
    with pytest.raises(TransportError, match="a: a frame is contiguous bytes"):
        MemoryHub(["a", "b"]).end("a").send("b", frame)


@pytest.mark.parametrize("timeout_s", [-1.0, -math.inf, math.nan])
def test_timeouts_are_checked(timeout_s):
    with pytest.raises(TransportError, match="0 or more"):
        MemoryHub(["a", "b"]).end("a").receive("b", timeout_s)


@pytest.mark.parametrize("timeout_s", [math.inf, 1e300])
def test_a_party_may_wait_for_ever(timeout_s):
    hub = MemoryHub(["a", "b"])
    threading.Timer(0.05, lambda: hub.end("a").send("b", b"frame")).start()
    assert hub.end("b").receive("a", timeout_s) == b"frame"


def test_sending_to_a_closed_party_is_refused():
    hub = MemoryHub(["a", "b"])
    hub.end("a").send("b", b"before")
    hub.end("b").close()
    with pytest.raises(TransportError, match="a: cannot send to 'b', which has closed its end"):
        hub.end("a").send("b", b"after")
    with pytest.raises(TransportError, match="a: nothing more will come from 'b'"):
        hub.end("a").receive("b")


def test_looking_at_nothing_says_so_at_once():
    end = MemoryHub(["a", "b"]).end("a")
    with pytest.raises(PeerTimeout, match="a: nothing came from 'b' within 0 s; check that 'b' runs"):
        end.receive("b", timeout_s=0)


def test_many_parties_cost_nothing_until_they_speak():
    gc.collect()
    before = len(gc.get_objects())
    hub = MemoryHub(f"client-{number}" for number in range(500))
    assert len(gc.get_objects()) - before < 500 * 6
    hub.end("client-0").send("client-1", b"frame")
    assert hub.end("client-1").receive("client-0") == b"frame"


def test_a_frame_that_is_there_is_received_in_microseconds():
    hub = MemoryHub(["a", "b"])
    sender, receiver = hub.end("a"), hub.end("b")
    best = math.inf
    for _ in range(20):
        for _ in range(1000):
            sender.send("b", b"frame")
        start = time.perf_counter()
        for _ in range(1000):
            receiver.receive("a", 0)
        best = min(best, (time.perf_counter() - start) / 1000)
    assert best < 5e-6  # about 0.3 on an idle core


def test_closing_wakes_every_thread_that_waits():
    parties = [f"party-{number}" for number in range(6)]
    hub = MemoryHub(parties)
    pairs = [(receiver, sender) for receiver in parties for sender in parties if receiver != sender]
    ended = []

    def receive_all(receiver, sender):
        try:
            while True:
                hub.end(receiver).receive(sender, 10)
        except PeerTimeout:
            pass
        except TransportError:
            ended.append((receiver, sender))

    threads = [threading.Thread(target=receive_all, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for receiver, sender in pairs:
        hub.end(sender).send(receiver, b"frame")
    hub.end(parties[0]).close()
    for thread, pair in zip(threads, pairs, strict=True):
        if parties[0] in pair:
            thread.join(5)
    assert set(ended) == {pair for pair in pairs if parties[0] in pair}
    for party in parties[1:]:
        hub.end(party).close()
    for thread in threads:
        thread.join(5)
    assert sorted(ended) == sorted(pairs)


def test_a_closed_end_forgets_what_it_had_not_received():
    hub = MemoryHub(["a", "b"])
    for _ in range(3):
        hub.end("b").send("a", b"frame")
    hub.end("a").receive("b")
    hub.end("a").send("b", b"frame")
    hub.end("a").close()
    for ask in (lambda: hub.end("a").receive("b"), lambda: hub.end("a").send("b", b"frame")):
        with pytest.raises(TransportError, match="a: this end is closed"):
            ask()
