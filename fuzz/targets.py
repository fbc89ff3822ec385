"""What is fuzzed: functions that take any bytes and must return, or refuse them with a `FrameError`.

A target raises anything else only where cutlayer is wrong. Targets know nothing of the fuzzer, so the
kept inputs in ``corpus/`` are replayed by the ordinary tests too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import torch
from torch import nn
from xxhash import xxh3_64_intdigest

from cutlayer import optim
from cutlayer.errors import CutlayerError, FrameError
from cutlayer.graph.parts import Segment
from cutlayer.runtime.live import LiveSegment, State
from cutlayer.sessions.messages import read_hello, read_message, written
from cutlayer.transports.network.envelopes import HEADER, Chunks, Envelope, Violation
from cutlayer.wire import Limits, decode, encode
from cutlayer.wire.peek import peek

__all__ = ["SEGMENTS", "TARGETS", "mend", "mend_scalars", "segment"]

HANDOVER_LIMITS = Limits(max_frame_bytes=2**36, max_tensors=2**16 - 1)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_FRAME_BYTES_AT, _PRELUDE_BYTES, _CHECKSUM_BYTES = 8, 36, 8

SEGMENTS: dict[str, Callable[[], tuple[nn.Module, optim.OptimizerSpec]]] = {
    "adam": lambda: (
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
        optim.Adam(lr=0.01, schedule=optim.StepLR(step_size=2), every="step"),
    ),
    "cycle": lambda: (
        nn.Linear(3, 2),
        optim.SGD(lr=0.1, momentum=0.9, schedule=optim.OneCycleLR(max_lr=0.5, total_steps=50), every="step"),
    ),
    "sgd": lambda: (nn.Linear(3, 2), optim.SGD(lr=0.1, momentum=0.9)),
    "frozen": lambda: (nn.Flatten(), optim.SGD(lr=0.1)),
}
"""Small segments whose hand-overs are fuzzed: with and without slots, schedules and parameters."""


def mend(frame: bytes) -> bytes:
    """Return ``frame`` with a size and a checksum that fit, so that a reader looks at the rest."""
    if len(frame) < _PRELUDE_BYTES + _CHECKSUM_BYTES:
        return frame
    mended = bytearray(frame)
    mended[_FRAME_BYTES_AT : _FRAME_BYTES_AT + 8] = len(mended).to_bytes(8, "little")
    mended[-_CHECKSUM_BYTES:] = xxh3_64_intdigest(mended[:-_CHECKSUM_BYTES]).to_bytes(8, "little")
    return bytes(mended)


def mend_scalars(frame: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return the hand-over ``frame`` with its counters (JSON as bytes) changed; as it is if it has none."""
    try:
        message = decode(frame)
    except FrameError:
        return frame
    tensors = tuple(
        (name, _tensor(change(t.numpy().tobytes())))
        if name == "scalars" and t is not None and t.dtype is torch.uint8
        else (name, t)
        for name, t in message.tensors
    )
    return bytes(encode(message._replace(tensors=tensors)))


def segment(name: str) -> LiveSegment:
    """Return a new segment at work, always with the same weights; an unknown name stands for ``adam``."""
    module, spec = SEGMENTS.get(name, SEGMENTS["adam"])()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view(parameter.shape))
    made = Segment(name="head", module=module, role="client", inputs=("x",), outputs=("out",))
    return LiveSegment(made, spec, torch.device("cpu"))


def work(live: LiveSegment) -> None:
    """Do one step of training with ``live``."""
    live.module(torch.ones(2, 3)).sum().backward() if live.parameters else None
    live.step()


def frames(data: bytes) -> None:
    """Any bytes are the one frame of a message, or are refused."""
    for limits in (Limits(), HANDOVER_LIMITS):
        try:
            message = decode(data, limits=limits)
        except FrameError as error:
            _one_line(error)
            _glance(data, limits)
            continue
        if encode(message, limits=limits) != data:
            raise AssertionError("a frame decodes to a message whose frame is another one")
        described = tuple((n, *((None, ()) if t is None else (t.dtype, t.shape))) for n, t in message.tensors)
        seen = peek(data, limits=limits)
        if (seen.name, seen.step, seen.tensors) != (message.name, message.step, described):
            raise AssertionError("a frame says something else about itself than its message")


def states(data: bytes) -> None:
    """The state in a hand-over is taken over whole and can be worked with, or is refused and changes nothing."""
    try:
        message = decode(data)
    except FrameError:
        return
    live = segment(message.name)
    before = _digest(live.state())
    try:
        live.restore({name: tensor for name, tensor in message.tensors if tensor is not None})
    except FrameError as error:
        _one_line(error)
        if _digest(live.state()) != before:
            raise AssertionError("a state was refused and partly taken over") from error
        return
    work(live)
    live.advance()
    live.state()


def control(data: bytes) -> None:
    """Any bytes on a stream are an envelope, any text in it a message of a study's parties, or are refused."""
    try:
        envelope = Envelope.parse(data)
        Chunks(2**30).place("somebody", envelope)
    except Violation as error:
        _one_line(error)
    for read in (read_message, read_hello):
        for text in (data, data[HEADER.size :]):
            try:
                said = read(text, "somebody")
            except FrameError as error:
                _one_line(error)
                continue
            if read(written(said), "somebody") != said:
                raise AssertionError("a message is written otherwise than it was read")


TARGETS: dict[str, Callable[[bytes], None]] = {"frames": frames, "states": states, "control": control}
"""Targets by the names that ``run.py`` takes."""


def _glance(data: bytes, limits: Limits) -> None:
    """Look at a frame that was refused as those do who pass it on."""
    try:
        peek(data, limits=limits)
    except FrameError as error:
        _one_line(error)


def _digest(state: State) -> int:
    return xxh3_64_intdigest(
        b"".join(name.encode() + t.contiguous().numpy().tobytes() for name, t in sorted(state.items()))
    )


def _tensor(raw: bytes) -> torch.Tensor:
    return torch.tensor(list(raw), dtype=torch.uint8)


def _one_line(error: CutlayerError) -> None:
    """A message that quotes what came must not carry line ends or terminal codes into a log."""
    if _CONTROL.search(str(error)):
        raise AssertionError(f"the message carries control characters: {json.dumps(str(error))}") from error
