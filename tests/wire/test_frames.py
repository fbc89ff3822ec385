"""A message and its frame are the same thing, and nothing else is a frame."""

import struct

import pytest
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from cutlayer.errors import FrameError
from cutlayer.wire import DTYPES, Kind, Limits, Message, decode, encode
from cutlayer.wire.frame_layout import PRELUDE_BYTES

PRELUDE = struct.Struct("<4sBBHQQQI")
FIELDS = ("magic", "version", "kind", "flags", "frame_bytes", "step", "sequence", "meta_bytes")


def same(one, other):
    """Bit for bit: NaNs and negative zeros too."""
    if one is None or other is None:
        return one is other
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(
        one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8)
    )


def assert_same(came, sent):
    assert came._replace(tensors=(), layout=None) == sent._replace(tensors=())
    assert [name for name, _ in came.tensors] == [name for name, _ in sent.tensors]
    for (name, tensor), (_, expected) in zip(came.tensors, sent.tensors, strict=True):
        assert same(tensor, expected), name
        assert tensor is None or tensor.data_ptr() % 64 == 0


def message(*tensors, kind=Kind.ACTIVATION, name="head->server", step=3, **more):
    return Message(kind, name, step, tuple((str(i), tensor) for i, tensor in enumerate(tensors)), **more)


def with_checksum(frame):
    frame[-8:] = xxhash.xxh3_64_intdigest(frame[:-8]).to_bytes(8, "little")
    return frame


def forged(frame, **changes):
    """Return the frame with other fields in its prelude and a checksum that fits."""
    frame = bytearray(frame)
    values = dict(zip(FIELDS, PRELUDE.unpack_from(frame), strict=True)) | changes
    PRELUDE.pack_into(frame, 0, *values.values())
    return with_checksum(frame)


@st.composite
def tensors(draw):
    if draw(st.booleans()) and draw(st.booleans()):
        return None
    dtype = draw(st.sampled_from(sorted(DTYPES, key=str)))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    count = torch.Size(shape).numel()
    if dtype is torch.bool:
        return torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=dtype).view(
            shape
        )
    size = count * dtype.itemsize
    raw = torch.tensor(list(draw(st.binary(min_size=size, max_size=size))), dtype=torch.uint8)
    tensor = raw.view(dtype).view(shape)
    return tensor.transpose(0, -1) if shape and draw(st.booleans()) else tensor


NUMBERS = st.integers(0, 2**64 - 1)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zl", "Zp"]), max_size=30)
MESSAGES = st.builds(
    Message,
    kind=st.sampled_from(Kind),
    name=NAMES,
    step=NUMBERS,
    tensors=st.dictionaries(NAMES, tensors(), max_size=4).map(lambda named: tuple(named.items())),
    training=st.booleans(),
    sequence=NUMBERS,
    layout=st.none(),
)


@settings(deadline=None)
@given(MESSAGES)
def test_a_message_comes_back_from_its_frame(sent):
    frame = encode(sent)
    assert_same(decode(frame), sent)
    assert_same(decode(bytes(frame)), sent)
    assert encode(decode(frame)) == frame


def test_frames_that_are_alike_share_their_layout():
    first, second = (decode(encode(message(torch.zeros(3, 2), step=step))) for step in (1, 2))
    assert first.layout is second.layout is not None
    others = [
        message(torch.zeros(4, 2)),
        message(torch.zeros(3, 2, dtype=torch.int32)),
        message(None),
        message(torch.zeros(3, 2), name="elsewhere"),
    ]
    assert first.layout not in [decode(encode(other)).layout for other in others]


@settings(deadline=None)
@given(MESSAGES, st.data())
def test_every_truncation_is_refused(sent, data):
    frame = bytes(encode(sent))
    with pytest.raises(FrameError):
        decode(frame[: data.draw(st.integers(0, len(frame) - 1))])
    with pytest.raises(FrameError, match="longer than it says"):
        decode(frame + data.draw(st.binary(min_size=1, max_size=70)))


def test_every_single_flipped_bit_is_refused():
    frame = bytearray(encode(message(torch.randn(3, 2), None, torch.tensor([True]), step=2**40)))
    for bit in range(8 * len(frame)):
        frame[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameError):
            decode(frame)
        frame[bit // 8] ^= 1 << bit % 8
    decode(frame)


@settings(deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_are_refused(noise, dressed):
    if dressed:  # a prelude and a checksum that hold, so that the rest is looked at
        head = PRELUDE.pack(b"CutL", 1, 1, 1, PRELUDE_BYTES + len(noise) + 8, 0, 0, len(noise))
        noise = with_checksum(bytearray(head + noise + bytes(8)))
    with pytest.raises(FrameError):
        decode(noise)


@settings(max_examples=300, deadline=None)
@given(MESSAGES, st.data())
def test_whatever_decodes_is_the_one_frame_of_its_message(sent, data):
    frame = bytearray(encode(sent))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 9))] = data.draw(st.integers(0, 255))
    try:
        came = decode(with_checksum(frame))
    except FrameError:
        return
    assert encode(came) == frame


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"magic": b"PK\3\4"}, "not a cutlayer frame"),
        ({"version": 2}, "another version; got 2; expected 1; install the same version"),
        ({"kind": 0}, "unknown kind of message; got 0"),
        ({"kind": 200}, "unknown kind of message"),
        ({"flags": 2}, "unknown flags"),
        ({"frame_bytes": 2**64 - 1}, "too large"),
        ({"frame_bytes": 10**6}, "cut short"),
        ({"frame_bytes": 64}, "longer than it says"),
        ({"meta_bytes": 2**32 - 1}, "meta is too long"),
        ({"meta_bytes": 28 + 128}, "belong to nothing|ends within"),
        ({"meta_bytes": 5}, "ends within an entry"),
    ],
)
def test_a_forged_prelude_is_refused(changes, says):
    with pytest.raises(FrameError, match=says):
        decode(forged(encode(message(torch.ones(40))), **changes))


def test_bytes_beyond_or_between_tensors_are_refused():
    frame = bytearray(encode(message(torch.ones(1), torch.ones(1))))
    hidden = bytearray(frame)
    hidden[-8 - 4 - 1] = 7
    with pytest.raises(FrameError, match="hides bytes between"):
        decode(with_checksum(hidden))
    with pytest.raises(FrameError, match="not that of its tensors"):
        decode(forged(frame + bytes(64), frame_bytes=len(frame) + 64))


def test_truth_values_other_than_0_and_1_are_refused():
    frame = bytearray(encode(message(torch.tensor([True, False]))))
    frame[-9] = 2
    with pytest.raises(FrameError, match="truth values"):
        decode(with_checksum(frame))


def test_a_long_meta_is_refused_before_it_is_copied():
    frame = encode(message(torch.zeros(2**20, dtype=torch.uint8)))
    with pytest.raises(FrameError, match="meta is too long"):
        decode(forged(frame, meta_bytes=2**19))


def test_limits_hold_at_both_ends():
    sent = message(torch.zeros(1000))
    with pytest.raises(FrameError, match=r"too large.*at most 2000"):
        encode(sent, limits=Limits(max_frame_bytes=2000))
    with pytest.raises(FrameError, match=r"too large.*at most 2000"):
        decode(encode(sent), limits=Limits(max_frame_bytes=2000))
    with pytest.raises(FrameError, match="too many dimensions"):
        decode(encode(message(torch.zeros(1, 1))), limits=Limits(max_dimensions=1))


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (torch.zeros(2, dtype=torch.complex64), "got torch.complex64; expected float64, float32"),
        (torch.zeros(2).to(torch.float8_e4m3fn), "convert it before"),
        (torch.zeros(2, device="meta"), "cannot be copied.*on meta"),
        (torch.eye(2).to_sparse(), "cannot be copied.*sparse"),
        ([1.0], "is not a tensor; got list"),
        (torch.zeros(2).numpy(), "is not a tensor; got ndarray"),
    ],
)
def test_what_cannot_cross_is_refused_by_name(tensor, says):
    with pytest.raises(FrameError, match=says) as caught:
        encode(message(tensor))
    assert caught.value.cut == "head->server"
    assert "'0'" in str(caught.value)


@pytest.mark.parametrize("wrong", [{"step": -1}, {"sequence": 2**64}, {"step": 1.5}])
def test_steps_are_counted_from_0(wrong):
    with pytest.raises(FrameError, match="counted from 0"):
        encode(message(**wrong))


def test_an_unknown_kind_is_not_sent():
    with pytest.raises(FrameError, match=r"unknown kind.*99"):
        encode(message(kind=99))


def test_two_tensors_of_one_name_are_not_sent():
    with pytest.raises(FrameError, match="two tensors are called 'x'"):
        encode(Message(Kind.LABEL, "cut", 0, (("x", None), ("x", torch.ones(1)))))


@pytest.mark.parametrize("frame", [memoryview(bytes(200))[::2], 3, "CutL" * 50])
def test_a_frame_is_contiguous_bytes(frame):
    with pytest.raises(FrameError, match="contiguous bytes"):
        decode(frame)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "\x7f", "\x9b1m", "\u202ecut", "\u2028"])
def test_a_name_that_would_forge_a_line_of_a_log_is_neither_sent_nor_read(name):
    with pytest.raises(FrameError, match="control characters") as caught:
        encode(Message(Kind.LABEL, "cut", 0, ((name, None),)))
    assert str(caught.value).isprintable()
    raw = name.encode()
    frame = bytes(encode(Message(Kind.LABEL, "@" * len(raw), 0, (("#" * len(raw), None),))))
    for mark in (b"@", b"#"):
        with pytest.raises(FrameError, match="control characters") as caught:
            decode(with_checksum(bytearray(frame.replace(mark * len(raw), raw))))
        assert str(caught.value).isprintable()


def test_tensors_arrive_without_history_and_contiguous():
    weights = torch.randn(6, 4, requires_grad=True)
    sent = message((weights * 2)[::2, 1:].t(), torch.nn.Parameter(torch.ones(2)))
    for (_, came), (_, tensor) in zip(decode(encode(sent)).tensors, sent.tensors, strict=True):
        assert torch.equal(came, tensor)
        assert came.is_contiguous()
        assert not came.requires_grad


def test_an_aligned_frame_is_not_copied():
    frame = encode(message(torch.zeros(16)))
    (_, tensor) = decode(frame).tensors[0]
    tensor += 1
    assert bytes(frame[-12:-8]) == struct.pack("<f", 1)


@pytest.mark.parametrize("offset", [0, 1, 8, 32])
def test_memory_off_a_boundary_or_not_writable_is_copied_once(offset):
    frame = encode(message(torch.ones(16), torch.ones(3)))
    shifted = torch.empty(len(frame) + 64, dtype=torch.uint8).numpy().data[offset : offset + len(frame)]
    shifted[:] = frame
    where = shifted.toreadonly() if offset == 0 else shifted
    came = decode(where)
    shifted[:] = bytes(len(frame))
    assert_same(came, message(torch.ones(16), torch.ones(3)))


def test_tensors_outlive_the_callers_view():
    frame = bytearray(encode(message(torch.ones(1000))))
    view = memoryview(frame)
    came = decode(view)
    view.release()
    del view, frame
    assert came.tensors[0][1].sum() == 1000


def test_nothing_of_old_memory_leaves():
    sent = message(*(torch.ones(1, dtype=torch.int8) for _ in range(40)))
    for _ in range(50):
        torch.full((8192,), 77, dtype=torch.uint8)  # freed memory, full of 77
        frame = bytes(encode(sent))
        assert frame[:-8].count(77) == 0
        assert frame[-8 - 64 * 39 - 1 : -8].count(1) == 40


def test_the_frame_is_as_the_page_says():
    frame = bytes(encode(Message(Kind.GRADIENT, "cut", 7, (("x", torch.tensor([1.0])),), False, 9)))
    meta = b"\3cut" + b"\1\0" + b"\1x" + b"\2\1" + (1).to_bytes(8, "little")
    meta = meta.ljust(64 - 36, b"\0")
    body = PRELUDE.pack(b"CutL", 1, 2, 0, 64 + 4 + 8, 7, 9, 28) + meta + struct.pack("<f", 1.0)
    assert frame == body + xxhash.xxh3_64_intdigest(body).to_bytes(8, "little")


@pytest.mark.parametrize("count", [1, 2, 8])
def test_the_overhead_is_at_most_half_a_percent_at_64_kb_a_tensor(count):
    names = tuple(f"layer4.1.conv2.{number}" for number in range(count))
    sent = Message(
        Kind.ACTIVATION, "radiology->server", 10**6, tuple((n, torch.zeros(64, 256)) for n in names)
    )
    payload = count * 64 * 256 * 4
    assert (len(encode(sent)) - payload) / payload <= 0.005
