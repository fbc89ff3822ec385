"""The link alone, without a network: what is lost, doubled and out of order."""

import threading
import time
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutlayer.transports.network.envelopes import (
    CHUNK,
    FIRST,
    HEADER,
    VERSION,
    Chunks,
    Envelope,
    Lane,
    Violation,
)
from cutlayer.transports.network.link import Link
from cutlayer.transports.network.settings import NetworkSettings

SETTINGS = NetworkSettings(window_bytes=4000, window_frames=4)


def go_on():
    pass


class Paper:
    """A line on which nothing leaves until it is taken, and nothing comes but what is given."""

    peer, certificate, beat, over, blocks = "nowhere", b"", None, False, False

    def __init__(self):
        self.parcels, self.coming, self.heard = deque(), deque(), time.monotonic()

    def put(self, parcel):
        self.parcels.append(parcel)

    def flush(self):
        pass

    def keep_alive(self, beat, every_s):
        self.beat = beat

    def take(self, room):
        if not self.coming:
            self.over = True
            return None
        envelope = Envelope.parse(self.coming.popleft())
        memory = room(envelope, len(envelope.payload))
        memory[:] = envelope.payload
        return envelope._replace(payload=memory)

    def wait(self, until):
        raise AssertionError("what is on paper has come or will not")

    def ring(self):
        pass

    def cancel(self):
        self.coming.clear()

    def finish(self):
        self.cancel()


class Side:
    """One side of a link and what it was given."""

    def __init__(self, settings=SETTINGS):
        self.link, self.came, self.stream = Link(settings), [], None

    def attach(self, peer):
        self.stream = self.link.attach(peer.link.received, Paper())

    def deliver(self, envelope):
        self.came.append((envelope.lane, bytes(envelope.payload)))

    def take(self, count=1000):
        parcels, taken = self.stream.line.parcels, []
        while parcels and len(taken) < count:
            parcel = parcels.popleft()
            if parcel is not None:
                taken.append(b"".join(parcel()))
        return taken

    def beat(self):
        return b"".join(self.stream.line.beat())

    def read(self, messages, stream=None, deliver=None):
        stream = stream or self.stream
        stream.line.coming.extend(messages)
        stream.line.over = False
        self.link.read(stream, lambda envelope, size: memoryview(bytearray(size)), deliver or self.deliver)


def pair(settings=SETTINGS):
    one, other = Side(settings), Side(settings)
    one.attach(other)
    other.attach(one)
    return one, other


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("frame"), st.integers(0, 1), st.integers(1, 50)),
        st.tuples(st.just("control"), st.integers(0, 1), st.integers(1, 50)),
        st.tuples(st.just("move"), st.integers(0, 1), st.integers(0, 5)),
        st.tuples(st.just("twice"), st.integers(0, 1), st.integers(1, 5)),
        st.tuples(st.just("lose"), st.integers(0, 1), st.integers(0, 5)),
    ),
    max_size=60,
)


@given(actions=ACTIONS)
@settings(deadline=None, max_examples=200)
def test_whatever_streams_lose_or_double_everything_comes_once_and_in_order(actions):
    sides = pair(NetworkSettings())
    sent = ([], [])
    for number, (what, way, count) in enumerate(actions):
        one, other = sides[way], sides[1 - way]
        if what == "frame":
            frame = number.to_bytes(4, "big") * count
            one.link.send_frame(way, 1 - way, 0, memoryview(frame), go_on)
            sent[way].append((Lane.DATA, frame))
        elif what == "control":
            one.link.post(Lane.CONTROL, way, 1 - way, 0, number.to_bytes(4, "big"))
            sent[way].append((Lane.CONTROL, number.to_bytes(4, "big")))
        elif what in ("move", "twice"):
            messages = one.take(count)
            other.read(messages * 2 if what == "twice" else messages)
        else:
            one.take(count)  # lost with the stream
            one.attach(other)
            other.attach(one)
    sides[0].attach(sides[1])
    sides[1].attach(sides[0])
    for one, other in (sides, sides[::-1], sides):
        other.read(one.take())
    assert sides[1].came == sent[0]
    assert sides[0].came == sent[1]


def test_what_is_out_of_order_is_refused():
    one, other = pair()
    for number in range(3):
        one.link.post(Lane.CONTROL, 0, 1, 0, bytes([number]))
    messages = one.take()
    with pytest.raises(Violation, match="out of order; got number 2; expected number 1"):
        other.read(messages[1:])
    assert other.came == []


def test_what_was_never_sent_cannot_be_confirmed():
    one, other = pair()
    liar = HEADER.pack(VERSION, Lane.ACK, 0, 0, 0, 0, 0, 7, 0, 0)
    with pytest.raises(Violation, match="confirmed that were never sent; got number 7; expected at most 0"):
        one.read([liar])
    with pytest.raises(Violation, match="never sent"):
        other.read([HEADER.pack(VERSION, Lane.ACK, 0, 0, 0, 0, 0, 0, 9, 0)])


def test_an_older_stream_is_not_listened_to():
    one, other = pair()
    one.link.post(Lane.CONTROL, 0, 1, 0, b"x")
    messages, older = one.take(), other.stream
    other.attach(one)
    other.read(messages, older)
    assert other.came == []
    other.read(messages)
    assert other.came == [(Lane.CONTROL, b"x")]


def test_what_was_read_when_the_link_began_anew_is_of_the_past():
    one, other = pair()
    one.link.post(Lane.CONTROL, 0, 1, 0, b"x")
    other.read(one.take())
    other.link.post(Lane.CONTROL, 1, 0, 0, b"answer")
    one.read(other.take())
    one.link.post(Lane.CONTROL, 0, 1, 0, b"y")  # it confirms the answer, too

    class Late(Paper):
        """A line on which an envelope's header comes just before the link begins anew."""

        def take(self, room):
            if self.coming:
                other.link.reset()
            return super().take(room)

        def cancel(self):
            pass

    late = Late()
    late.coming.extend(one.take())
    stream = other.link.attach(0, late)
    asked = []
    other.link.read(stream, lambda envelope, size: asked.append(envelope), asked.append)
    assert asked == [] and other.link.received == 0


def test_a_sender_waits_while_too_much_is_unread_and_control_does_not():
    one, other = pair()
    frame = memoryview(bytes(1000))
    for _ in range(5):
        one.link.send_frame(0, 1, 0, frame, go_on)
    waiting = threading.Thread(target=one.link.send_frame, args=(0, 1, 0, frame, go_on), daemon=True)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    one.link.post(Lane.CONTROL, 0, 1, 0, b"at once")
    other.read(one.take())
    assert other.came[-1] == (Lane.CONTROL, b"at once")
    one.read([other.beat()])  # received, but unread
    waiting.join(0.1)
    assert waiting.is_alive()
    other.link.consume(0, 1000, 1)
    other.link.consume(0, 1000, 1)
    one.read([other.beat()])
    waiting.join(5)
    assert not waiting.is_alive()


def test_who_waits_for_room_can_be_called_off():
    one, _ = pair()
    for _ in range(5):
        one.link.send_frame(0, 1, 0, memoryview(bytes(1000)), go_on)
    stop = threading.Event()

    def maybe():
        if stop.is_set():
            raise InterruptedError

    raised = []

    def send():
        try:
            one.link.send_frame(0, 1, 0, memoryview(bytes(1000)), maybe)
        except InterruptedError as error:
            raised.append(error)

    waiting = threading.Thread(target=send, daemon=True)
    waiting.start()
    stop.set()
    one.link.wake()
    waiting.join(5)
    assert raised


def test_who_ignores_the_window_floods():
    one, other = Side(NetworkSettings()), Side(SETTINGS)
    one.attach(other)
    other.attach(one)
    for _ in range(20):
        one.link.send_frame(0, 1, 0, memoryview(bytes(1000)), go_on)
    with pytest.raises(Violation, match="it floods"):
        other.read(one.take())


def test_each_party_has_a_window_of_its_own():
    one, other = pair()
    for _ in range(5):
        one.link.send_frame(0, 1, 0, memoryview(bytes(1000)), go_on)
    for _ in range(9):  # passed on for a party whose frames nobody reads
        one.link.relay(chunk(1000, 1000)._replace(source=2), True, Side().link)

    def called_off():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        one.link.send_frame(0, 1, 0, memoryview(bytes(1000)), called_off)
    other.read(one.take())
    assert len(other.came) == 5 + 9
    other.link.consume(0, 2000, 2)
    one.read([other.beat(), other.beat()])
    one.link.send_frame(0, 1, 0, memoryview(bytes(1000)), go_on)  # would wait for ever


def test_a_new_stream_tells_again_what_was_consumed_of_everybodys():
    one, other = pair()
    for source in (0, 2):
        for _ in range(4):
            one.link.relay(chunk(1000, 1000)._replace(source=source), True, Side().link)
    other.read(one.take())
    other.link.consume(0, 4000, 4)
    other.link.consume(2, 3000, 3)
    other.take()  # lost on the way
    other.attach(one)
    told = {e.target: e.consumed for e in map(Envelope.parse, other.take())}
    assert told == {0: 4000, 2: 3000}


def test_bytes_of_an_older_generation_do_not_leave_and_free_their_room():
    one, other = pair()
    for generation in (0, 0, 0, 0, 1):
        one.link.send_frame(0, 1, generation, memoryview(bytes(1000)), go_on)
    one.link.begin(1)
    other.read(one.take())
    assert [lane for lane, _ in other.came] == [Lane.VOID] * 4 + [Lane.DATA]
    one.read([other.beat()])
    for _ in range(4):
        one.link.send_frame(0, 1, 1, memoryview(bytes(1000)), go_on)  # would wait for ever


def test_relayed_bytes_are_consumed_when_the_last_one_has():
    source, (hub, target) = Side(), pair()
    source_at_hub = Side()
    source.attach(source_at_hub)
    source_at_hub.attach(source)
    source.link.send_frame(0, 1, 0, memoryview(bytes(1500)), go_on)

    def relay(envelope):
        hub.link.relay(envelope, True, source_at_hub.link)

    source_at_hub.read(source.take(), deliver=relay)
    target.read(hub.take())
    hub.read([target.beat()])
    assert Envelope.parse(source_at_hub.beat()).consumed == 0
    target.link.consume(0, 1500, 1)
    hub.read([target.beat()])
    assert Envelope.parse(source_at_hub.beat()).consumed == 1500


def chunk(total, size, first=True, generation=0):
    return Envelope(
        Lane.DATA, FIRST if first else 0, 0, 1, generation, 1, 0, 0, total, memoryview(bytes(size))
    )


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([chunk(0, 0)], "forbidden length"),
        ([chunk(1 << 40, CHUNK)], "forbidden length was announced; got 1099511627776 bytes"),
        ([chunk(10, 9)], "not full; got 9 bytes; expected 10"),
        ([chunk(10, 11)], "not full"),
        ([chunk(CHUNK + 5, 5)], "not full"),
        ([chunk(5, 5, first=False)], "no frame that is under way"),
        ([chunk(CHUNK + 5, CHUNK), chunk(CHUNK + 6, 6, first=False)], "no frame that is under way"),
        ([chunk(CHUNK + 5, CHUNK), chunk(CHUNK + 5, 4, first=False)], "not full; got 4 bytes; expected 5"),
        ([chunk(CHUNK + 5, CHUNK), chunk(5, 5)], "before the one before it has ended"),
        ([chunk(CHUNK + 5, CHUNK), chunk(CHUNK + 5, 5, first=False, generation=1)], "no frame"),
    ],
)
def test_chunks_that_do_not_fit_are_refused(chunks, words):
    rule = Chunks(1 << 30)
    with pytest.raises(Violation, match=words):
        for one in chunks:
            rule.place("hospital", one)


def test_chunks_of_two_frames_may_take_turns_and_a_newer_generation_begins_anew():
    rule = Chunks(1 << 30)
    assert rule.place("a", chunk(CHUNK + 5, CHUNK)) == 0
    assert rule.place("b", chunk(CHUNK + 7, CHUNK)) == 0
    assert rule.place("a", chunk(CHUNK + 5, 5, first=False)) == CHUNK
    assert rule.place("b", chunk(9, 9, generation=1)) == 0
    assert rule.place("b", chunk(9, 9, generation=1)) == 0


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "too short; got 0 bytes"),
        (bytes(HEADER.size - 1), "too short"),
        (
            HEADER.pack(9, Lane.ACK, 0, 0, 0, 0, 0, 0, 0, 0),
            "got version 9; expected version 1; install the same",
        ),
        (HEADER.pack(VERSION, Lane.DATA, 1, 0, 0, 0, 1, 0, 0, 9) + bytes(CHUNK + 1), "too long"),
    ],
)
def test_envelopes_that_are_none(message, words):
    with pytest.raises(Violation, match=words):
        Envelope.parse(message)
