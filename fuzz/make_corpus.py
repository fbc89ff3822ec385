"""Write the kept inputs anew: ``python fuzz/make_corpus.py``.

Real frames and hand-overs, and some that lie. Inputs that once crashed cutlayer are kept beside them as
``found-*`` and are not touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from targets import SEGMENTS, mend, mend_scalars, segment, work

from cutlayer.sessions.messages import Hello, Offer, Ready, RollCall, Stop, written
from cutlayer.transports.network.envelopes import HEADER, Lane
from cutlayer.wire import DTYPES, Kind, Message, encode

HERE = Path(__file__).parent


def frames() -> Iterator[tuple[str, bytes]]:
    """Real frames of every kind and type, then lies about sizes, counts, types and names."""
    torch.manual_seed(0)
    for kind in Kind:
        yield f"kind-{kind.name.lower()}", frame(kind, torch.randn(2, 3))
    for dtype in DTYPES:
        yield f"type-{str(dtype).removeprefix('torch.')}", frame(Kind.ACTIVATION, torch.ones(3).to(dtype))
    yield "no-tensors", frame(Kind.VERDICT)
    yield "missing-tensor", frame(Kind.GRADIENT, torch.ones(2), None, torch.ones(1, 1))
    yield "empty-tensors", frame(Kind.LABEL, torch.ones(0, 4), torch.ones(3, 0))
    yield "number", frame(Kind.STATISTICS, torch.tensor(0.5))
    yield "not-finite", frame(Kind.GRADIENT, torch.tensor([float("nan"), float("inf"), -float("inf")]))
    yield "many-dimensions", frame(Kind.ACTIVATION, torch.ones((1,) * 16))
    yield "many-tensors", frame(Kind.HANDOVER, *(torch.ones(1) for _ in range(40)))
    yield "evaluation", bytes(encode(Message(Kind.ACTIVATION, "häd->server", 2**40, (), False, 7)))
    whole = frame(Kind.ACTIVATION, torch.ones(2, 3))
    yield "cut-short", whole[:-9]
    yield "damaged", whole[:50] + b"\x55" + whole[51:]
    # In this frame the name takes 12 bytes, the tensor's name 1: its type is byte 53, its shape from 55 on.
    yield "lie-shape-4-gb", mend(whole[:55] + (2**32).to_bytes(8, "little") + whole[63:])
    yield "lie-shape-2-64", mend(whole[:55] + b"\xff" * 16 + whole[71:])
    yield "lie-type", mend(whole[:53] + b"\x0b" + whole[54:])
    yield "lie-dimensions", mend(whole[:54] + b"\xff" + whole[55:])
    yield "lie-count", mend(whole[:49] + b"\xff\xff" + whole[51:])
    yield "lie-meta", mend(whole[:32] + b"\xff\xff\xff\xff" + whole[36:])
    yield "lie-frame-bytes", whole[:8] + b"\xff" * 8 + whole[16:]
    yield "name-not-utf-8", mend(whole[:37] + b"\xc3\x28" + whole[39:])
    yield "name-with-terminal-codes", mend(whole[:37] + b"\x1b[2J\n" + whole[42:])


def states() -> Iterator[tuple[str, bytes]]:
    """Real hand-overs before and after a step, then counters that lie."""
    for name in SEGMENTS:
        live = segment(name)
        yield f"{name}-new", state(name, live.state())
        work(live)
        yield f"{name}-stepped", state(name, live.state())
    whole = state("adam", live_after_a_step("adam").state())
    for word, value in {
        "nested": b"[" * 3000, "nested-slots": b'{"slots":' + b"[" * 900 + b"]" * 900 + b"}", "nan": b"NaN",
        "text": b'"groups"', "not-utf-8": b"\xff\xfe", "long-number": b"9" * 5000, "nothing": b"",
    }.items():  # fmt: skip
        yield f"lie-{word}", mend_scalars(whole, lambda raw, value=value: value)
    for word, (place, value) in {
        "rate-nan": (("groups", 0, "lr"), float("nan")), "rate-huge": (("groups", 0, "lr"), 10**400),
        "maximize": (("groups", 0, "maximize"), True), "fused": (("groups", 0, "fused"), True),
        "schedule-method": (("schedule", "step"), "x"), "schedule-zero": (("schedule", "step_size"), 0),
        "slot-number": (("slots", "9" * 5000 + "/step"), 1), "slot-step": (("slots", "0/step"), 1e308),
    }.items():  # fmt: skip
        yield f"lie-{word}", mend_scalars(whole, lambda raw, p=place, v=value: put(raw, p, v))


def control() -> Iterator[tuple[str, bytes]]:
    """Real messages of parties and host, bare and in an envelope, then lies."""
    digest, places = "ab" * 32, [(0, 0), (1, 20)]
    offer = Offer(rows={"train": 120, "test": 30}, ids={"train": digest})
    said = {
        "hello": Hello(parts={"graph": digest}, offer=offer, card={"party": "hospital-a"}),
        "roll-call": RollCall(generation=3, reason="hospital-b restarted"),
        "ready": Ready(generation=3, positions=places),
        "stop": Stop(reason="hospital-b did not come back"),
    }
    for name, message in said.items():
        yield name, written(message)
        yield f"{name}-in-an-envelope", envelope(Lane.CONTROL, written(message))
    yield "first-chunk", envelope(Lane.DATA, bytes(100), flags=1)
    yield "lie-total", envelope(Lane.DATA, bytes(100), flags=1, total=2**63)
    yield "lie-version", b"\xff" + envelope(Lane.ACK, b"")[1:]
    yield "lie-generation", b'{"kind":"ready","generation":-1,"positions":[[0,1e400]]}'
    yield "lie-deep", b"[" * 4000
    yield "lie-many", b'{"kind":"ready","generation":0,"positions":[' + b",".join([b"1"] * 2000) + b"]}"
    yield "lie-name", b'{"kind":"ready","generation":0,"positions":[],"\\u001b[2J\\nserver: all is well":1}'


def envelope(lane: Lane, payload: bytes, flags: int = 0, total: int | None = None) -> bytes:
    """Return an envelope."""
    return HEADER.pack(1, lane, flags, 0, 1, 2, 5, 4, 0, len(payload) if total is None else total) + payload


def live_after_a_step(name: str):  # type: ignore[no-untyped-def]
    """Return a segment with slots."""
    live = segment(name)
    work(live)
    return live


def frame(kind: Kind, *tensors: torch.Tensor | None) -> bytes:
    """Return a frame of a cut with these tensors."""
    return bytes(encode(Message(kind, "head->server", 3, tuple((str(i), t) for i, t in enumerate(tensors)))))


def state(name: str, tensors: dict[str, torch.Tensor]) -> bytes:
    """Return the hand-over of the segment ``name``."""
    return bytes(encode(Message(Kind.HANDOVER, name, 3, tuple(tensors.items()))))


def put(raw: bytes, place: tuple[str | int, ...], value: object) -> bytes:
    """Return the JSON ``raw`` with ``value`` at ``place``."""
    whole = inner = json.loads(raw)
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return json.dumps(whole).encode()


if __name__ == "__main__":
    for target, inputs in {"frames": frames(), "states": states(), "control": control()}.items():
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if not old.name.startswith("found-"):
                old.unlink()
        for name, data in inputs:
            (folder / name).write_bytes(data)
