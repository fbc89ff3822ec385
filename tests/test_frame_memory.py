"""Memory for frames: aligned, and used again only when nobody refers to it any more."""

import gc
import threading

import numpy as np
import pytest
import torch

from cutlayer import memory
from cutlayer.memory import ALIGNMENT, aligned_buffer

LARGE = 3 << 20


def address(buffer):
    return np.frombuffer(buffer, np.uint8).ctypes.data


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1 << 20, (1 << 20) + 1, LARGE])
def test_a_buffer_is_aligned_writable_and_as_long_as_asked(size):
    buffer = aligned_buffer(size)
    assert len(buffer) == size and not buffer.readonly
    if size:
        assert address(buffer) % ALIGNMENT == 0


def test_what_nobody_refers_to_is_used_again(monkeypatch):
    monkeypatch.setattr(memory, "_kept", memory._Kept())
    first = aligned_buffer(LARGE)
    where = address(first)
    del first
    assert address(aligned_buffer(LARGE)) == where


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


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS.keys())
def test_what_somebody_refers_to_is_not(holder, monkeypatch):
    monkeypatch.setattr(memory, "_kept", memory._Kept())
    buffer = aligned_buffer(LARGE)
    where = address(buffer)
    held = holder(buffer)
    del buffer
    others = [aligned_buffer(LARGE) for _ in range(3)]
    assert where not in map(address, others)
    del held
    gc.collect()
    assert where in map(address, [aligned_buffer(LARGE) for _ in range(3)])


def test_no_two_threads_are_given_the_same():
    given, lock, start = [], threading.Lock(), threading.Barrier(8)

    def work(number):
        start.wait()
        for _ in range(200):
            buffer = aligned_buffer(LARGE)
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
