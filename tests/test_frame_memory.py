"""Memory for frames: aligned, and used again only when nobody refers to it any more."""

import gc
import threading

import numpy as np
import pytest
import torch

from cutlayer import memory
from cutlayer.memory import ALIGNMENT, aligned_buffer, room_at

SMALL, LARGE = 66_000, 3 << 20
SIZES = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(memory, "_small", memory._Small())
    monkeypatch.setattr(memory, "_large", memory._Large())


def address(buffer):
    return np.frombuffer(buffer, np.uint8).ctypes.data


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1 << 20, (1 << 20) + 1, LARGE])
def test_a_buffer_is_aligned_writable_and_as_long_as_asked(size):
    buffer = aligned_buffer(size)
    assert len(buffer) == size and not buffer.readonly
    if size:
        assert address(buffer) % ALIGNMENT == 0


@SIZES
def test_what_nobody_refers_to_is_used_again(size):
    first, where = room_at(size)
    assert address(first) == where
    del first
    assert room_at(size)[1] == where


def test_of_small_pieces_only_some_are_kept():
    in_use = [aligned_buffer(SMALL) for _ in range(10)]
    assert len(set(map(address, in_use))) == 10
    assert [len(shelf) for shelf in memory._small._shelves.values()] == [4]


def test_small_pieces_of_many_sizes_are_forgotten():
    for size in range(1 << 18, (1 << 18) + 200):
        aligned_buffer(size)
    assert 0 < 4 * sum(memory._small._shelves) <= 32 << 20


HOLDERS = {
    "the buffer": lambda buffer: buffer,
    "a part of it": lambda buffer: buffer[5:10],
    "an array": lambda buffer: np.frombuffer(buffer, np.uint8)[7:],
    "an array of an array": lambda buffer: np.ndarray((4,), np.float32, buffer, 64).reshape(2, 2)[1],
    "a tensor": lambda buffer: torch.from_numpy(np.ndarray((4,), np.float32, buffer, 64)),
    "a tensor's view": lambda buffer: torch.frombuffer(buffer, dtype=torch.float32).view(2, -1)[1],
    "a parameter": lambda buffer: torch.nn.Parameter(torch.frombuffer(buffer, dtype=torch.float32)).detach(),
    "what autograd keeps": lambda buffer: (
        torch.frombuffer(buffer, dtype=torch.float32) * torch.ones(1, requires_grad=True)
    ),
}


@SIZES
@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS.keys())
def test_what_somebody_refers_to_is_not(holder, size):
    buffer = aligned_buffer(size)
    where = address(buffer)
    held = holder(buffer)
    del buffer
    others = [aligned_buffer(size) for _ in range(3)]
    assert where not in map(address, others)
    del held
    gc.collect()
    assert where in map(address, [aligned_buffer(size) for _ in range(4)])


@SIZES
def test_no_two_threads_are_given_the_same(size):
    given, lock, start = [], threading.Lock(), threading.Barrier(8)

    def work(number):
        start.wait()
        for _ in range(200):
            buffer = aligned_buffer(size)
            buffer[0] = number
            with lock:
                given.append(buffer)
            assert buffer[0] == number
            with lock:
                given.remove(buffer)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not given
