"""Hand-over: a role's segment state passes to the next party, sealed so that only that one can open it."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import FrameError
from ..schedules.actions import Action
from ..wire import Kind, Limits, Message, decode, disclose, enclose, encode
from .compute import finite
from .crossing import placed
from .live import State
from .party import LocalParty, Runner
from .updates import pack, unpack

__all__ = ["copy", "give", "relay", "take"]

_UPDATE = "update/"  # before the name of a tensor that is sent as what changed in it
_LIMITS = Limits(max_frame_bytes=2**36, max_tensors=2**16 - 1)


def give(party: LocalParty, action: Action) -> Runner:
    """Seal the state of the role's segments, send it, and keep no copy at work."""
    states, whole = party.states(_role(action)), "#" not in action.what

    def run(step: int, what: str) -> None:
        # What comes back to be averaged comes without the optimizer's memory, which is not averaged.
        _send(party, action, step, {name: party.segment(key).state(memory=whole) for name, key in states})
        for _, key in states:
            party.shared.workshop.bring_back(party.live.pop(key))
        party.away = party.away or whole
        party.land()

    return run


def copy(party: LocalParty, action: Action) -> Runner:
    """Seal a copy of the state of the role's segments and send it; the state stays."""
    names = [name for name, _ in party.states(_role(action))]

    def run(step: int, what: str) -> None:
        _send(party, action, step, {name: party.segment(name).state(memory=False) for name in names})

    return run


def _send(party: LocalParty, action: Action, step: int, states: Mapping[str, State]) -> None:
    """Send the state of segments by name, sealed for whom it is."""
    state = tuple(
        (f"{segment}/{name}", tensor.detach().cpu())
        for segment, tensors in states.items()
        for name, tensor in (_changes(party, segment, tensors) if _changed(action) else tensors).items()
    )
    inner = encode(Message(Kind.HANDOVER, action.what, step, state), limits=_LIMITS)
    frame = encode(enclose(inner, party.seal, to=action.peer, step=step), limits=_LIMITS)
    to = action.via or action.peer
    party.transport.send(to, frame)
    _count(party, action.what, to, len(frame), sum(tensor.nbytes for _, tensor in state))


def _changes(party: LocalParty, segment: str, state: State) -> State:
    """Return ``state`` with an update in the place of each tensor of weights that was there from the beginning."""
    beginning = _beginning(party, segment)
    found: State = {}
    for name, now in state.items():
        start = beginning.get(name)
        if start is not None and (start.shape, start.dtype) == (now.shape, now.dtype):
            found[f"{_UPDATE}{name}"] = pack(now, start)
        else:
            found[name] = now
    return found


def _beginning(party: LocalParty, segment: str) -> State:
    """Return the initial weights of a segment by their names in its state."""
    module = party.shared.blueprint.graph.segments[segment].module
    return {f"weight/{name}": t for name, t in (*module.named_parameters(), *module.named_buffers())}


def _role(action: Action) -> str:
    """Return the role, or the copy of its state, that is handed over."""
    return action.what.partition(":")[0]


def _changed(action: Action) -> bool:
    """Return whether what is handed over is what changed."""
    return ":" in action.what


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
        if "#" not in action.what:
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
    segments = party.states(_role(action))
    beginning = {name: _beginning(party, name) for name, _ in segments} if _changed(action) else {}
    states: dict[str, State] = {}
    for name, tensor in message.tensors:
        owner, _, rest = name.partition("/")
        if tensor is not None and rest.startswith(_UPDATE):
            rest = rest.removeprefix(_UPDATE)
            start = beginning.get(owner, {}).get(rest)
            if start is None:
                raise FrameError(f"{name!a} of the hand-over is an update of nothing that is known here")
            tensor = unpack(tensor, start)
        if party.shared.wary and tensor is not None and not finite(tensor):
            raise FrameError(f"{name!r} of the hand-over holds NaN or infinity")
        if tensor is not None:
            states.setdefault(owner, {})[rest] = tensor
    for name, key in segments:
        live = party.live.get(key) or party.shared.workshop.blank(name)
        live.restore(states.get(name, {}))
        party.live[key] = live


def _count(party: LocalParty, role: str, to: str, frame_bytes: int, tensor_bytes: int) -> None:
    role = role.partition("#")[0].partition(":")[0]
    count = party.shared.meter.traffic("hand-over", f"hand-over of {role}", Kind.HANDOVER, party.name, to)
    count[0] += 1
    count[1] += frame_bytes
    count[2] += tensor_bytes
