"""The trial that every transport passes: ours, and yours.

Each check is a plain function of ``connect``, which makes fresh ends for the parties it is given. A
check returns if the transport behaves and raises AssertionError, saying what it did, if not. With
pytest, for a transport of your own::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_transport(check):
        check(connect)

A transport that does not share memory between the parties passes `COPYING_CHECKS` as well.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np

from cutlayer.errors import PeerTimeout, TransportError
from cutlayer.transports.base import ALIGNMENT, Transport, aligned_buffer

__all__ = ["CHECKS", "COPYING_CHECKS", "Check", "Connect"]

Connect = Callable[[Sequence[str]], Mapping[str, Transport]]
"""Makes the ends of some parties, by name, able to reach each other."""
Check = Callable[[Connect], None]
"""One check; raises AssertionError where the transport misbehaves."""

_T = TypeVar("_T")
_A, _B, _C = "hospital-a", "hospital-b", "server"
_ANSWER_S = 20.0  # far more than any delivery takes
_NOTHING_S = 0.05  # how long to wait where nothing shall come
_SIZES = (1, 2, 63, 64, 65, 4096, 2**16 + 1, 2**20 - 1, 2**20, 2**20 + 1, 4 * 2**20 + 3)
_LARGE = 32 * 2**20


def frames_arrive_in_order(connect: Connect) -> None:
    """Many small frames arrive once each, in the order in which they were sent."""
    with _connected(connect, _A, _C) as ends:
        for number in range(2000):
            ends[_A].send(_C, number.to_bytes(4, "big"))
        for number in range(2000):
            came = int.from_bytes(ends[_C].receive(_A, _ANSWER_S), "big")
            _demand(came == number, f"frame {came} came where {number} was due")
        _demand(_nothing_from(ends[_C], _A), "more frames came than were sent")


def any_size_arrives(connect: Connect) -> None:
    """Frames from one byte to 32 MiB arrive bit for bit."""
    with _connected(connect, _A, _C) as ends:
        for size in (*_SIZES, _LARGE):
            ends[_A].send(_C, _frame(size))
            came = ends[_C].receive(_A, _ANSWER_S)
            _demand(len(came) == size, f"{len(came)} bytes came where {size} were sent")
            _demand(_equal(came, _frame(size)), f"a frame of {size} bytes was changed on its way")


def any_buffer_is_taken(connect: Connect) -> None:
    """Bytes, bytearrays and memoryviews can be sent; what comes is always a flat memoryview of bytes."""
    with _connected(connect, _A, _C) as ends:
        for frame in (b"frame", bytearray(b"frame"), memoryview(b"a frame")[2:], _copied(b"frame")):
            ends[_A].send(_C, frame)
            came = ends[_C].receive(_A, _ANSWER_S)
            _demand(isinstance(came, memoryview), f"a {type(came).__name__} was received")
            _demand(came.format == "B" and came.ndim == 1, "what was received is not flat bytes")
            _demand(bytes(came) == b"frame", f"{bytes(came)!r} came where b'frame' was sent")


def pairs_are_independent(connect: Connect) -> None:
    """A frame waits for the party that asks for its sender; other pairs neither see nor delay it."""
    with _connected(connect, _A, _B, _C) as ends:
        ends[_A].send(_C, b"a to c")
        ends[_A].send(_B, b"a to b")
        ends[_B].send(_C, b"b to c")
        _demand(_nothing_from(ends[_A], _C), "a party received its own frame")
        for receiver, sender, due in ((_C, _B, b"b to c"), (_B, _A, b"a to b"), (_C, _A, b"a to c")):
            came = bytes(ends[receiver].receive(sender, _ANSWER_S))
            _demand(came == due, f"{came!r} came where {due!r} was due")


def both_directions_at_once(connect: Connect) -> None:
    """Two parties send each other many frames at the same time, from threads, and none waits for ever."""
    frame, rounds = bytes(range(256)) * 1024, 40

    def send(end: Transport, to: str) -> None:
        for _ in range(rounds):
            end.send(to, frame)

    def receive(end: Transport, sender: str) -> bool:
        return all(end.receive(sender, _ANSWER_S) == frame for _ in range(rounds))

    with _connected(connect, _A, _C) as ends, ThreadPoolExecutor(4) as threads:
        sends = [threads.submit(send, ends[_A], _C), threads.submit(send, ends[_C], _A)]
        receives = [threads.submit(receive, ends[_A], _C), threads.submit(receive, ends[_C], _A)]
        for sending in sends:
            sending.result(2 * _ANSWER_S)
        for receiving in receives:
            _demand(receiving.result(2 * _ANSWER_S), "a frame was changed on its way")


def a_waiting_receiver_wakes(connect: Connect) -> None:
    """Who waits gets the frame when it comes, long before the time is up."""
    with _connected(connect, _A, _C) as ends:
        waiting = _started(lambda: bytes(ends[_C].receive(_A, _ANSWER_S)))
        ends[_A].send(_C, b"late")
        came = waiting.result(_ANSWER_S / 2)
        _demand(came == b"late", f"{came!r} came where b'late' was due")


def a_timeout_names_the_party(connect: Connect) -> None:
    """Nothing in time is a PeerTimeout about the silent party, neither early nor late, and loses nothing."""
    with _connected(connect, _A, _C) as ends:
        for timeout_s in (0.0, 0.2):
            start = time.monotonic()
            error = _refused(partial(ends[_C].receive, _A, timeout_s), "waiting in vain")
            passed = time.monotonic() - start
            _demand(isinstance(error, PeerTimeout), f"{type(error).__name__} instead of PeerTimeout: {error}")
            _demand(_A in str(error), f"the message does not name the silent party: {error}")
            _demand(error.party == _C, f"the error says that {error.party} waited")
            _demand(timeout_s * 0.9 <= passed < timeout_s + 1, f"waited {passed:.3f} s of {timeout_s} s")
        ends[_A].send(_C, b"late")
        _demand(bytes(ends[_C].receive(_A, _ANSWER_S)) == b"late", "a frame was lost after a timeout")


def unknown_parties_are_refused(connect: Connect) -> None:
    """Sending to or receiving from a party that is not there is an error that names the nearest one."""
    with _connected(connect, _A, _B, _C) as ends:
        for what, ask in (
            ("send to", lambda: ends[_A].send("servr", b"frame")),
            ("receive from", lambda: ends[_A].receive("servr", _ANSWER_S)),
        ):
            error = _refused(ask, f"to {what} an unknown party")
            _demand(not isinstance(error, PeerTimeout), f"to {what} an unknown party waited in vain")
            _demand("servr" in str(error) and "'server'" in str(error), f"'server' is not offered: {error}")


def a_closed_end_refuses(connect: Connect) -> None:
    """A closed end neither sends nor receives; closing it again does nothing."""
    with _connected(connect, _A, _C) as ends:
        ends[_C].send(_A, b"unread")
        ends[_A].close()
        ends[_A].close()
        _refused(lambda: ends[_A].send(_C, b"frame"), "sending from a closed end")
        error = _refused(lambda: ends[_A].receive(_C, _ANSWER_S), "receiving at a closed end")
        _demand(not isinstance(error, PeerTimeout), "receiving at a closed end waited in vain")


def closing_wakes_own_receivers(connect: Connect) -> None:
    """Whoever waits at an end that is closed gets a TransportError at once."""
    with _connected(connect, _A, _B, _C) as ends:
        waiting = [_started(partial(ends[_C].receive, sender, _ANSWER_S)) for sender in (_A, _B)]
        ends[_C].close()
        for one in waiting:
            _demand_ended(one, _C)


def closing_wakes_the_peer(connect: Connect) -> None:
    """Who waits for a party that closes gets what it sent before, then a TransportError that names it."""
    with _connected(connect, _A, _C) as ends:
        ends[_A].send(_C, b"last")
        _demand(bytes(ends[_C].receive(_A, _ANSWER_S)) == b"last", "a frame was lost")
        waiting = [_started(lambda: ends[_C].receive(_A, _ANSWER_S)) for _ in range(2)]
        ends[_A].close()
        for one in waiting:
            _demand_ended(one, _A)
        _demand_ended(_started(lambda: ends[_C].receive(_A, _ANSWER_S)), _A)


def frames_sent_before_closing_arrive(connect: Connect) -> None:
    """A party may send its last frames and leave; they arrive, whether or not the other had asked before."""
    with _connected(connect, _A, _B, _C) as ends:
        for number in range(3):
            ends[_A].send(_C, bytes([number]))
        ends[_A].close()
        came = [bytes(ends[_C].receive(_A, _ANSWER_S))[0] for _ in range(3)]
        _demand(came == [0, 1, 2], f"frames {came} came where 0, 1 and 2 were sent")
        for end in (ends[_B], ends[_C]):
            _demand_ended(_started(partial(end.receive, _A, _ANSWER_S)), _A)


def received_memory_is_aligned(connect: Connect) -> None:
    """A frame sent from writable memory on a 64-byte boundary is received in such memory."""
    with _connected(connect, _A, _C) as ends:
        for size in _SIZES:
            ends[_A].send(_C, _frame(size))
            came = ends[_C].receive(_A, _ANSWER_S)
            address = np.frombuffer(came, dtype=np.uint8).ctypes.data
            _demand(address % ALIGNMENT == 0, f"a frame of {size} bytes lies {address % ALIGNMENT} bytes off")
            _demand(not came.readonly, f"a frame of {size} bytes cannot be written to")


def received_frames_stay(connect: Connect) -> None:
    """A received frame stays as it is when later ones come, and writing to it changes no other."""
    with _connected(connect, _A, _C) as ends:
        for number in range(8):
            ends[_A].send(_C, _copied(bytes([number]) * 5000))
        came = [ends[_C].receive(_A, _ANSWER_S) for _ in range(8)]
        came[0][:] = b"\xff" * 5000
        for number in range(1, 8):
            _demand(came[number] == bytes([number]) * 5000, f"frame {number} changed after it was received")


def later_writes_do_not_cross(connect: Connect) -> None:
    """What the sender writes to its memory once the frame is received stays at the sender."""
    with _connected(connect, _A, _C) as ends:
        sent = _copied(b"frame" * 1000)
        ends[_A].send(_C, sent)
        came = ends[_C].receive(_A, _ANSWER_S)
        sent[:] = b"FRAME" * 1000
        _demand(came == b"frame" * 1000, "the receiver sees what the sender wrote later")


CHECKS: tuple[Check, ...] = (
    frames_arrive_in_order,
    any_size_arrives,
    any_buffer_is_taken,
    pairs_are_independent,
    both_directions_at_once,
    a_waiting_receiver_wakes,
    a_timeout_names_the_party,
    unknown_parties_are_refused,
    a_closed_end_refuses,
    closing_wakes_own_receivers,
    closing_wakes_the_peer,
    frames_sent_before_closing_arrive,
    received_memory_is_aligned,
    received_frames_stay,
)
"""What every transport passes."""
COPYING_CHECKS: tuple[Check, ...] = (later_writes_do_not_cross,)
"""What a transport that does not share memory between the parties passes besides."""


@contextlib.contextmanager
def _connected(connect: Connect, *parties: str) -> Iterator[Mapping[str, Transport]]:
    ends = connect(parties)
    try:
        for party in parties:
            _demand(ends[party].party == party, f"the end of {party} says that it is {ends[party].party}'s")
        yield ends
    finally:
        for end in ends.values():
            end.close()


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _refused(ask: Callable[[], object], what: str) -> TransportError:
    try:
        ask()
    except TransportError as error:
        return error
    raise AssertionError(f"{what} raised no TransportError")


def _nothing_from(end: Transport, sender: str) -> bool:
    try:
        end.receive(sender, _NOTHING_S)
    except PeerTimeout:
        return True
    return False


def _started(ask: Callable[[], _T]) -> Future[_T]:
    """Return the future answer of ``ask``, which has had time to start waiting in a thread of its own."""
    answer: Future[_T] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    time.sleep(_NOTHING_S)
    return answer


def _demand_ended(waiting: Future[memoryview], party: str) -> None:
    error = _refused(lambda: waiting.result(_ANSWER_S / 2), "waiting for what will never come")
    _demand(not isinstance(error, PeerTimeout), "closing did not wake the receiver before its time was up")
    _demand(party in str(error), f"the message does not name {party}: {error}")


def _frame(size: int) -> memoryview:
    frame = aligned_buffer(size)
    np.frombuffer(frame, dtype=np.uint8)[:] = np.arange(size, dtype=np.uint32) * 2654435761 >> 24
    return frame


def _copied(content: bytes) -> memoryview:
    frame = aligned_buffer(len(content))
    frame[:] = content
    return frame


def _equal(one: memoryview, other: memoryview) -> bool:
    return np.array_equal(np.frombuffer(one, dtype=np.uint8), np.frombuffer(other, dtype=np.uint8))
