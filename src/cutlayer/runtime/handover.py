"""Hand-over: a role's segment state passes to the next party, sealed so that only that one can open it."""

from __future__ import annotations

from torch import Tensor

from ..errors import FrameError
from ..schedules.actions import Action
from ..wire import Kind, Limits, Message, decode, disclose, enclose, encode
from .compute import finite
from .crossing import placed
from .live import State
from .party import LocalParty, Runner

__all__ = ["give", "relay", "take"]

_LIMITS = Limits(max_frame_bytes=2**36, max_tensors=2**16 - 1)


def give(party: LocalParty, action: Action) -> Runner:
    """Seal the state of the role's segments, send it, and keep no copy at work."""

    def run(step: int, what: str) -> None:
        state: list[tuple[str, Tensor | None]] = []
        segments = party.shared.blueprint.graph.segments_of(party.role)
        for segment in segments:
            live = party.segment(segment.name)
            state += [
                (f"{segment.name}/{name}", tensor.detach().cpu()) for name, tensor in live.state().items()
            ]
        inner = encode(Message(Kind.HANDOVER, action.what, step, tuple(state)), limits=_LIMITS)
        frame = encode(enclose(inner, party.seal, to=action.peer, step=step), limits=_LIMITS)
        to = action.via or action.peer
        party.transport.send(to, frame)
        _count(party, action.what, to, len(frame), sum(t.nbytes for _, t in state if t is not None))
        for segment in segments:
            party.shared.workshop.bring_back(party.live.pop(segment.name))
        party.away = True
        party.land()

    return run


def relay(party: LocalParty, action: Action) -> Runner:
    """Pass a sealed hand-over on, unopened."""

    def run(step: int, what: str) -> None:
        frame = party.transport.receive(action.peer, party.shared.timeout_s)
        party.transport.send(action.via, frame)
        _count(party, action.what, action.via, len(frame), 0)  # what is sealed is not the relay's to know

    return run


def take(party: LocalParty, action: Action) -> Runner:
    """Open what the last party sealed and take its state over."""

    def run(step: int, what: str) -> None:
        frame = party.transport.receive(action.via or action.peer, party.shared.timeout_s)
        try:
            _restore(party, action, step, frame)
        except FrameError as error:
            raise placed(error, party, None, step) from error
        party.away = False

    return run


def _restore(party: LocalParty, action: Action, step: int, frame: memoryview) -> None:
    """Bring the role's segments to the state in ``frame``."""
    sealed = decode(frame, limits=_LIMITS)
    message = decode(disclose(sealed, party.seal, sender=action.peer), limits=_LIMITS)
    if message.kind is not Kind.HANDOVER or message.name != action.what or message.step != step:
        raise FrameError(
            "not the hand-over that the program expects",
            got=f"{message.kind.name.lower()} {message.name!r} of step {message.step}",
            expected=f"handover {action.what!r}",
        )
    states: dict[str, State] = {}
    for name, tensor in message.tensors:
        owner, _, rest = name.partition("/")
        if party.shared.wary and tensor is not None and not finite(tensor):
            raise FrameError(f"{name!r} of the hand-over holds NaN or infinity")
        if tensor is not None:
            states.setdefault(owner, {})[rest] = tensor
    for segment in party.shared.blueprint.graph.segments_of(party.role):
        live = party.live.get(segment.name) or party.shared.workshop.blank(segment.name)
        live.restore(states.get(segment.name, {}))
        party.live[segment.name] = live


def _count(party: LocalParty, role: str, to: str, frame_bytes: int, tensor_bytes: int) -> None:
    count = party.shared.meter.traffic("hand-over", f"hand-over of {role}", Kind.HANDOVER, party.name, to)
    count[0] += 1
    count[1] += frame_bytes
    count[2] += tensor_bytes
