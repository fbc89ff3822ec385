"""Clipping by the norm of the whole network's gradient: what each party tells, hears and does."""

from __future__ import annotations

import math

import torch

from ..errors import FrameError, NumericsError
from ..schedules.actions import Action
from ..wire import Kind, Message, decode, encode
from .compute import NUMERICS
from .crossing import placed
from .live import LiveSegment
from .party import LocalParty, Runner

__all__ = ["clip", "factor", "note", "report"]


def report(party: LocalParty, action: Action) -> Runner:
    """Send the sum of squares of one's gradients, or the norm of everybody's."""
    name = action.what
    count = party.shared.meter.traffic("training", "gradient norm", Kind.STATISTICS, party.name, action.peer)

    def run(step: int, what: str) -> None:
        number = _own(party) if name == "squares" else _norm(party, step)
        if not math.isfinite(number) and party.shared.check_finite:
            raise NumericsError(
                "the gradients hold NaN or infinity", party=party.name, step=step, todo=NUMERICS
            )
        tensor = torch.tensor([number], dtype=torch.float64)
        frame = encode(Message(Kind.STATISTICS, name, step, (("number", tensor),)))
        party.transport.send(action.peer, frame)
        count[0] += 1
        count[1] += len(frame)
        count[2] += tensor.nbytes

    return run


def note(party: LocalParty, action: Action) -> Runner:
    """Receive another party's sum of squares, or the norm."""
    name = action.what

    def run(step: int, what: str) -> None:
        try:
            message = decode(party.transport.receive(action.peer, party.shared.timeout_s))
        except FrameError as error:
            raise placed(error, party, None, step) from error
        number = message.tensors[0][1] if message.tensors else None
        known = (message.kind, message.name, message.step) == (Kind.STATISTICS, name, step)
        if not known or number is None or number.shape != (1,) or not number.item() >= 0:
            raise FrameError(
                f"not the {name} that the program expects",
                party=party.name,
                step=step,
                got=f"{message.kind.name.lower()} {message.name!r} of step {message.step} from {action.peer}",
                expected="one number, 0 or more",
            )
        flight = party.flight(step)
        if name == "squares":
            flight.squares += (number.item(),)
        else:
            flight.norm = number.item()

    return run


def clip(party: LocalParty, action: Action) -> Runner:
    """Scale one's gradients so that the norm of everybody's is at most the bound."""
    bound = float(action.what)

    def run(step: int, what: str) -> None:
        scale = factor(_norm(party, step), bound)
        for live in _trained(party):
            live.settle()
            if scale < 1.0:
                live.scale(scale)

    return run


def factor(norm: float, bound: float) -> float:
    """Return by what to scale gradients of this norm, as ``torch.nn.utils.clip_grad_norm_`` does."""
    return min(1.0, bound / (norm + 1e-6))


def _norm(party: LocalParty, step: int) -> float:
    """Return the norm that one was told, or else that of one's own gradients and those one was told of."""
    flight = party.flight(step)
    if flight.norm is None:
        flight.norm = math.sqrt(math.fsum([_own(party), *flight.squares]))
    return flight.norm


def _own(party: LocalParty) -> float:
    return math.fsum(live.squares() for live in _trained(party))


def _trained(party: LocalParty) -> list[LiveSegment]:
    """Return the segments, or copies of them, that have gradients: those of this step, no others."""
    return [
        live for live in party.live.values() if live.owed or any(p.grad is not None for p in live.parameters)
    ]
