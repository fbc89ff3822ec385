"""Frames that lie: built part by part, with a checksum that fits, so that the reader looks at everything."""

import contextlib
import resource
import struct
import time

import torch
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

PRELUDE = struct.Struct("<4sBBHQQQI")  # magic, version, kind, flags, frame bytes, step, sequence, meta bytes
SIZES = (0, 0, 8, 4, 2, 2, 1, 2, 4, 8, 1, 1)
"""Bytes of an element by the code of its type."""

lying_numbers = st.sampled_from([0, 1, 2, 3, 63, 64, 255, 2**16 - 1, 2**30, 2**32, 2**62, 2**63, 2**64 - 1])
sides = st.one_of(st.integers(0, 4), st.integers(0, 4), lying_numbers)
names = st.one_of(st.text("abcxyz/.", max_size=6).map(str.encode), st.binary(max_size=9), st.just(b"n" * 255))


def checksummed(frame: bytearray) -> bytearray:
    """Return ``frame`` with a checksum that fits."""
    frame[-8:] = xxh3_64_intdigest(frame[:-8]).to_bytes(8, "little")
    return frame


@st.composite
def entries(draw):
    """One tensor of a meta, as bytes, and the bytes its elements would take (0 where that is absurd)."""
    name, code = draw(names), draw(st.one_of(st.integers(0, 10), st.integers(0, 10), st.integers(11, 255)))
    shape = draw(st.lists(sides, max_size=draw(st.sampled_from([3, 3, 3, 16, 17, 40]))))
    dimensions = draw(st.one_of(st.none(), st.none(), st.integers(0, 255)))
    raw = bytes([len(name)]) + name + bytes([code, len(shape) if dimensions is None else dimensions])
    size = torch.Size(shape).numel() if all(side < 2**16 for side in shape) and len(shape) < 4 else 2**40
    size *= SIZES[code] if code < len(SIZES) else 1
    return raw + b"".join(side.to_bytes(8, "little") for side in shape), size if size < 4096 else 0


@st.composite
def lying_frames(draw):
    """A frame of which any part may be a lie, and whose checksum fits."""
    described = draw(st.lists(entries(), max_size=4))
    count = draw(st.one_of(st.just(len(described)), st.just(len(described)), st.integers(0, 2**16 - 1)))
    name = draw(names)
    meta = bytes([len(name)]) + name + count.to_bytes(2, "little") + b"".join(raw for raw, _ in described)
    meta += draw(st.sampled_from([b"\0", b"\0", b"\0", b"\1"])) * (-(36 + len(meta)) % 64)
    meta += bytes(draw(st.sampled_from([0, 0, 0, 64, 1])))
    payload = bytearray()
    for _, size in described:
        if size:
            payload += draw(st.sampled_from([b"\0", b"\0", b"\0", b"\7"])) * (-len(payload) % 64)
            payload += bytes([draw(st.integers(0, 1))]) * size
    payload += bytes(draw(st.sampled_from([0, 0, 0, 0, 1, 64])))
    frame_bytes = PRELUDE.size + len(meta) + len(payload) + 8
    prelude = PRELUDE.pack(
        draw(st.sampled_from([b"CutL"] * 9 + [b"PK\3\4"])),
        draw(st.sampled_from([1] * 9 + [2])),
        draw(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 0])),
        draw(st.sampled_from([0, 1, 1, 2**15])),
        draw(st.sampled_from([frame_bytes] * 9 + [2**32, frame_bytes + 1, 0, 2**64 - 1])),
        draw(lying_numbers),
        draw(lying_numbers),
        draw(st.sampled_from([len(meta)] * 9 + [2**32 - 1, 0, len(meta) + 64, 1])),
    )
    return bytes(checksummed(bytearray(prelude) + meta + payload + bytes(8)))


@contextlib.contextmanager
def bounded(memory_bytes: int, seconds: float):
    """Let the block take that much more memory and that much time of this processor, and no more."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    began = time.thread_time()
    resource.setrlimit(resource.RLIMIT_AS, (now + memory_bytes, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))
    took = time.thread_time() - began
    assert took < seconds, f"{took:.1f} s of processor time"
