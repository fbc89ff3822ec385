"""Send and receive over a cut: activations and labels forwards, gradients backwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import FrameError
from ..schedules.actions import Action
from ..wire import Kind, Message, decode, encode
from .blueprint import Crossing
from .coded import reader, writer
from .compute import finite, total
from .expected import Expected
from .misfits import not_finite, not_sent, placed
from .party import Flight, LocalParty, Runner

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["placed", "receive", "send"]


Named = tuple[tuple[str, Tensor | None], ...]


Parcel = tuple[Crossing, ...]


def send(party: LocalParty, action: Action, parcel: Parcel | None = None) -> Runner:
    """Make the frame of a cut, with the labels that ride along, and hand it to the transport.

    What it carries is ``parcel`` in place of what the blueprint says, where values of other names are to leave.
    """
    shared, name, peer, transport = party.shared, action.what, action.peer, party.transport
    parcel = parcel or shared.blueprint.parcel(name)
    kind = parcel[0].kind
    first, riders = parcel[0], [(field, crossing) for crossing in parcel[1:] for field in crossing.names]
    gather = writer(party, first, peer) if first.coded else _GATHER[kind]
    checks = shared.check_finite and kind is Kind.GRADIENT and not first.coded
    counts = [
        {c.cut.name: shared.meter.traffic(phase, c.cut.name, c.kind, party.name, peer) for c in parcel}
        for phase in ("evaluation", "training")
    ]

    def run(step: int, what: str) -> None:
        flight = party.flight(step)
        tensors = gather(flight, first, step)
        size = 0
        for label, tensor in tensors:
            if tensor is not None:
                size += tensor.nbytes
                if checks and not finite(tensor):
                    raise not_sent(label, tensor, party.name, name, step)
        rode = 0
        for field, crossing in riders:
            labels = flight.fields[field]
            tensors += ((crossing.cut.name, labels),)
            count = counts[flight.training][crossing.cut.name]
            count[0] += 1
            count[1] += labels.nbytes
            count[2] += labels.nbytes
            rode += labels.nbytes
        frame = encode(Message(kind, name, step, tensors, flight.training))
        transport.send(peer, frame)
        count = counts[flight.training][first.cut.name]
        count[0] += 1
        count[1] += len(frame) - rode
        count[2] += size

    return run


def receive(party: LocalParty, action: Action, parcel: Parcel | None = None) -> Runner:
    """Take the next frame of a peer, compare it with what the graph says, keep its tensors."""
    shared, name, peer, transport = party.shared, action.what, action.peer, party.transport
    parcel = parcel or shared.blueprint.parcel(name)
    first, kind = parcel[0], parcel[0].kind
    keep, own, timeout_s = _KEEP[kind], len(parcel[0].names), shared.timeout_s
    device, moves = shared.device, shared.device.type != "cpu"
    most = max(shared.calendar.batch_size, shared.calendar.evaluation_batch_size)
    read = reader(party, first, peer, name, most) if first.coded else _read
    wary = shared.wary and shared.check_finite
    riders = [(crossing.cut.name, field) for crossing in parcel[1:] for field in crossing.names]
    check = Expected(party, name, parcel).check

    def run(step: int, what: str) -> None:
        try:
            message = read(transport.receive(peer, timeout_s), step)
        except FrameError as error:
            raise placed(error, party, name, step) from error
        if message.name != name or message.step != step or message.kind is not kind:
            raise FrameError(
                f"a frame arrived from {peer} that the program does not expect here",
                party=party.name,
                cut=name,
                step=step,
                got=f"{message.kind.name.lower()} {message.name!r} of step {message.step}",
                todo="all parties must perform the same program; compare the study's digest",
            )
        tensors, flight = message.tensors, party.flight(step)
        check(message, flight, step)
        if wary:
            for label, tensor in tensors:
                if tensor is not None and tensor.is_floating_point() and not finite(tensor):
                    raise not_finite(party, name, step, label, peer)
        if moves:
            tensors = tuple((label, None if t is None else t.to(device)) for label, t in tensors)
        flight.training = message.training
        keep(flight, first, tensors[:own])
        for (_, field), (_, tensor) in zip(riders, tensors[own:], strict=True):
            if tensor is not None:
                flight.fields[field] = tensor

    return run


def _read(frame: Buffer, step: int) -> Message:
    return decode(frame)


def _activations(flight: Flight, crossing: Crossing, step: int) -> Named:
    values = flight.values
    return tuple([(name, values[ref]) for name, ref in zip(crossing.names, crossing.refs, strict=True)])


def _gradients(flight: Flight, crossing: Crossing, step: int) -> Named:
    parts = flight.gradients
    return tuple(
        [(name, total(parts.pop(ref, None))) for name, ref in zip(crossing.names, crossing.refs, strict=True)]
    )


def _labels(flight: Flight, crossing: Crossing, step: int) -> Named:
    return tuple([(name, flight.fields[name]) for name in crossing.names])


def _keep_activations(flight: Flight, crossing: Crossing, tensors: Named) -> None:
    for ref, (_, tensor) in zip(crossing.refs, tensors, strict=True):
        if tensor is not None:
            flight.values[ref] = tensor


def _keep_gradients(flight: Flight, crossing: Crossing, tensors: Named) -> None:
    for ref, index, (_, tensor) in zip(crossing.refs, crossing.indices, tensors, strict=True):
        if tensor is not None:
            flight.gradients.setdefault(ref, []).append((index, tensor))


def _keep_labels(flight: Flight, crossing: Crossing, tensors: Named) -> None:
    flight.fields.update({name: tensor for name, tensor in tensors if tensor is not None})


_GATHER = {Kind.ACTIVATION: _activations, Kind.GRADIENT: _gradients, Kind.LABEL: _labels}
_KEEP = {Kind.ACTIVATION: _keep_activations, Kind.GRADIENT: _keep_gradients, Kind.LABEL: _keep_labels}
