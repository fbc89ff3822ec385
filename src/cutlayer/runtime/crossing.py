"""Send and receive over a cut: activations and labels forwards, gradients backwards."""

from __future__ import annotations

from torch import Tensor

from ..errors import FrameError, NumericsError
from ..graph.parts import TensorSpec
from ..schedules.actions import Action
from ..wire import Kind, Message, decode, encode
from .blueprint import Crossing
from .compute import NUMERICS, finite, total
from .party import Flight, LocalParty, Runner

__all__ = ["receive", "send"]


def send(party: LocalParty, action: Action) -> Runner:
    """Make the frame of a cut and hand it to the transport."""
    shared, name, peer = party.shared, action.what, action.peer
    crossing = shared.blueprint.crossings[name]
    kind, gather = crossing.kind, _GATHER[crossing.kind]
    checks = shared.check_finite and kind is Kind.GRADIENT
    transport = party.transport
    counts = [
        shared.meter.traffic(phase, crossing.cut.name, kind, party.name, peer)
        for phase in ("evaluation", "training")
    ]

    def run(step: int, what: str) -> None:
        flight = party.flight(step)
        tensors = gather(flight, crossing)
        size = 0
        for label, tensor in tensors:
            if tensor is not None:
                size += tensor.nbytes
                if checks and not finite(tensor):
                    _refuse(party, name, step, label, tensor)
        frame = encode(Message(kind, name, step, tensors, flight.training))
        transport.send(peer, frame)
        count = counts[flight.training]
        count[0] += 1
        count[1] += len(frame)
        count[2] += size

    return run


def receive(party: LocalParty, action: Action) -> Runner:
    """Take the next frame of a peer, compare it with what the graph says, keep its tensors."""
    shared, name, peer = party.shared, action.what, action.peer
    crossing = shared.blueprint.crossings[name]
    kind, keep, timeout_s = crossing.kind, _KEEP[crossing.kind], shared.timeout_s
    device, moves = shared.device, shared.device.type != "cpu"
    transport = party.transport
    expected = tuple(
        (n, None, None) if s is None else (n, s.dtype, s.shape)
        for n, s in zip(crossing.names, crossing.specs, strict=True)
    )

    def run(step: int, what: str) -> None:
        try:
            message = decode(transport.receive(peer, timeout_s))
        except FrameError as error:
            raise FrameError(
                error.what,
                party=party.name,
                cut=name,
                step=step,
                got=error.got,
                expected=error.expected,
                todo=error.todo,
            ) from error
        if message.name != name or message.step != step or message.kind is not kind:
            raise FrameError(
                f"a frame arrived from {peer} that the program does not expect here", party=party.name, cut=name, step=step,
                got=f"{message.kind.name.lower()} {message.name!r} of step {message.step}",
                todo="all parties must perform the same program; compare the study's digest",
            )  # fmt: skip
        tensors = message.tensors
        if len(tensors) != len(expected):
            raise _unlike(party, name, step, f"{len(tensors)} tensors", f"{len(expected)}")
        for (label, tensor), (wanted, dtype, shape) in zip(tensors, expected, strict=True):
            if label != wanted or (
                tensor is not None
                and dtype is not None
                and (tensor.dtype is not dtype or tensor.shape[1:] != shape)
            ):
                spec = (
                    "nothing" if tensor is None else str(TensorSpec.of(tensor)) if tensor.ndim else "a number"
                )
                raise _unlike(
                    party,
                    name,
                    step,
                    f"{label} {spec}",
                    f"{wanted} {dict(zip(crossing.names, crossing.specs, strict=True)).get(wanted)}",
                )
        if moves:
            tensors = tuple((label, None if t is None else t.to(device)) for label, t in tensors)
        flight = party.flight(step)
        flight.training = message.training
        keep(flight, crossing, tensors)

    return run


Named = tuple[tuple[str, Tensor | None], ...]


def _activations(flight: Flight, crossing: Crossing) -> Named:
    values = flight.values
    return tuple(
        [(name, values[ref].detach()) for name, ref in zip(crossing.names, crossing.refs, strict=True)]
    )


def _gradients(flight: Flight, crossing: Crossing) -> Named:
    parts = flight.gradients
    return tuple(
        [(name, total(parts.pop(ref, None))) for name, ref in zip(crossing.names, crossing.refs, strict=True)]
    )


def _labels(flight: Flight, crossing: Crossing) -> Named:
    return tuple([(name, flight.fields[name]) for name in crossing.names])


def _keep_activations(flight: Flight, crossing: Crossing, tensors: Named) -> None:
    for ref, (_, tensor) in zip(crossing.refs, tensors, strict=True):
        if tensor is not None:
            flight.values[ref] = tensor


def _keep_gradients(flight: Flight, crossing: Crossing, tensors: Named) -> None:
    for ref, (_, tensor) in zip(crossing.refs, tensors, strict=True):
        if tensor is not None:
            flight.gradients.setdefault(ref, []).append((crossing.index, tensor))


def _keep_labels(flight: Flight, crossing: Crossing, tensors: Named) -> None:
    flight.fields.update({name: tensor for name, tensor in tensors if tensor is not None})


_GATHER = {Kind.ACTIVATION: _activations, Kind.GRADIENT: _gradients, Kind.LABEL: _labels}
_KEEP = {Kind.ACTIVATION: _keep_activations, Kind.GRADIENT: _keep_gradients, Kind.LABEL: _keep_labels}


def _unlike(party: LocalParty, cut: str, step: int, got: str, expected: str) -> FrameError:
    return FrameError(
        "what came is not what the graph says", party=party.name, cut=cut, step=step, got=got, expected=expected,
        todo="both sides must load the same study; compare its digest",
    )  # fmt: skip


def _refuse(party: LocalParty, cut: str, step: int, name: str, tensor: Tensor) -> None:
    bad = int((~tensor.isfinite()).sum())
    raise NumericsError(
        f"the gradient {name!r} holds NaN or infinity in {bad} of {tensor.numel()} values and was not sent",
        party=party.name, cut=cut, step=step, todo=NUMERICS,
    )  # fmt: skip
