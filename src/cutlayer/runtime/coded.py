"""Tensors over a cut that has a codec: written as their parts before a frame is made, read when one has come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..codecs import Codec, Like, Moment, buffer_name, check_parts, codec_of, write_with_feedback
from ..errors import FrameError, NumericsError
from ..graph.coding import feedback_holder
from ..graph.parts import Ref
from ..seeds import stream
from ..wire import Kind, Message, decode
from .blueprint import Crossing
from .compute import finite, total
from .misfits import not_sent
from .party import Flight, LocalParty

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["reader", "writer"]

Named = tuple[tuple[str, Tensor | None], ...]


@dataclass(frozen=True, slots=True)
class _Lane:
    """One tensor's way over a cut, in one direction.

    Attributes:
        name: The tensor.
        ref: What it is in the graph.
        trace: Where the codec's trace is kept from the activation to its gradient, among the step's values.
        like: Dtype and shape of one row [1, ...].
        forth: The activation's codec, which also folds the gradient.
        forth_seed: Its random numbers'.
        codec: The codec that writes in this direction.
        seed: Its random numbers'.
        titles: Names in the frame of the parts that it writes.
        left: Segment and buffer that keep what it left out, if it has error feedback.
    """

    name: str
    ref: Ref
    trace: Ref
    like: Like
    forth: Codec
    forth_seed: int
    codec: Codec
    seed: int
    titles: tuple[str, ...]
    left: tuple[str, str] | None

    def of(self, rows: int) -> Like:
        """Return dtype and shape of a batch."""
        return Like((rows, *self.like.shape[1:]), self.like.dtype)


def writer(party: LocalParty, crossing: Crossing, peer: str) -> Callable[[Flight, Crossing, int], Named]:
    """Return what gathers the tensors of ``crossing`` and writes them: ``gather(flight, crossing, step)``."""
    lanes = _lanes(party, crossing, peer)
    one = _write_gradient if crossing.kind is Kind.GRADIENT else _write_activation

    def gather(flight: Flight, crossing: Crossing, step: int) -> Named:
        found: list[tuple[str, Tensor | None]] = []
        for lane in lanes:
            try:
                parts = one(party, flight, lane, step)
            except NumericsError as error:
                name = crossing.name
                raise NumericsError(
                    error.what, party=party.name, cut=name, step=step, todo=error.todo
                ) from error
            found += zip(lane.titles, parts, strict=True)
        return tuple(found)

    return gather


def reader(
    party: LocalParty, crossing: Crossing, peer: str, frame_name: str, most: int
) -> Callable[[Buffer, int], Message]:
    """Return what reads a frame of ``crossing``: ``read(frame, step)``, a message with the tensors as they were.

    Args:
        party: Who reads.
        crossing: What the frame carries; what rides along stays as it is.
        peer: Who wrote it.
        frame_name: The frame's name.
        most: The most rows that there may be.
    """
    lanes, kind = _lanes(party, crossing, peer), crossing.kind
    titles = [title for lane in lanes for title in lane.titles]

    def read(frame: Buffer, step: int) -> Message:
        message = decode(frame)
        if message.name != frame_name or message.step != step or message.kind is not kind:
            return message  # whoever asked will refuse it
        came = [title for title, _ in message.tensors[: len(titles)]]
        if came != titles:
            raise FrameError(
                "what came is not what the cut's codec writes",
                got=", ".join(came) or "nothing",
                expected=", ".join(titles),
                todo="both sides must load the same study; compare its digest",
            )
        flight, found, at = party.flight(step), list[tuple[str, Tensor | None]](), 0
        for lane in lanes:
            parts = [tensor for _, tensor in message.tensors[at : at + len(lane.titles)]]
            at += len(lane.titles)
            found.append((lane.name, _read(party, flight, lane, parts, message, most)))
        return message._replace(tensors=(*found, *message.tensors[at:]))

    return read


def _lanes(party: LocalParty, crossing: Crossing, peer: str) -> list[_Lane]:
    cut, seed, graph = crossing.cut, party.shared.seed, party.shared.blueprint.graph
    back = crossing.kind is Kind.GRADIENT
    lanes = []
    for name, ref, spec in zip(crossing.names, crossing.refs, crossing.specs, strict=True):
        if spec is None:  # no codec could be chosen then
            raise FrameError("the shape is not known", party=party.name, cut=cut.name)
        written = spec.dtype.is_floating_point
        forth = cut.codec if written else codec_of("exact")
        codec = (cut.return_codec if back else cut.codec) if written else forth
        like = Like((1, *spec.shape), spec.dtype)
        forth_seed = stream(seed, "codec", cut.name, name)
        left = None
        if back and codec.feedback:
            left = feedback_holder(graph, cut, name), buffer_name(cut.producer, cut.tensors.index(name))
        lanes.append(
            _Lane(
                name=name,
                ref=ref,
                trace=Ref(f"{cut.name}/{peer}", name),  # "->" stands in no segment's name
                like=like,
                forth=forth,
                forth_seed=forth_seed,
                codec=codec,
                seed=stream(seed, "codec", cut.backward_name, name) if back else forth_seed,
                titles=tuple(
                    f"{name}.{part.name}" if part.name else name
                    for part in codec.parts(forth.folded(like) if back else like)
                ),
                left=left,
            )
        )
    return lanes


def _write_activation(party: LocalParty, flight: Flight, lane: _Lane, step: int) -> Sequence[Tensor | None]:
    written = lane.codec.write(flight.values[lane.ref].detach(), Moment(lane.seed, step, flight.training))
    if flight.training and written.trace is not None:
        flight.values[lane.trace] = written.trace
    return written.parts


def _write_gradient(party: LocalParty, flight: Flight, lane: _Lane, step: int) -> Sequence[Tensor | None]:
    gradient = total(flight.gradients.pop(lane.ref, None))
    if gradient is None:
        return (None,) * len(lane.titles)
    if party.shared.check_finite and not finite(gradient):
        raise not_sent(lane.name, gradient)
    trace = flight.values.pop(lane.trace, None)
    folded = lane.forth.fold(gradient, trace, Moment(lane.forth_seed, step, True))
    moment = Moment(lane.seed, step, True)
    if lane.left is None:
        return lane.codec.write(folded, moment).parts
    segment, buffer = lane.left
    left = party.segment(segment).module.get_buffer(buffer)
    return write_with_feedback(lane.codec, folded, left, moment).parts


def _read(
    party: LocalParty,
    flight: Flight,
    lane: _Lane,
    came: Sequence[Tensor | None],
    message: Message,
    most: int,
) -> Tensor | None:
    """Return the tensor that the parts that came stand for; None where all are."""
    parts = [tensor.to(party.shared.device) for tensor in came if tensor is not None]
    if not parts:
        return None
    back = message.kind is Kind.GRADIENT
    try:
        if len(parts) < len(came):
            raise FrameError(f"some parts are missing of {', '.join(lane.titles)}")
        rows = len(flight.values[lane.ref]) if back else len(parts[0]) if parts[0].ndim else 0
        if not 0 < rows <= most:
            raise FrameError("there are too few or too many rows", got=str(rows), expected=f"1 to {most}")
        like = lane.of(rows)
        if not back:
            check_parts(lane.codec, parts, like)
            tensor, trace = _only(
                lane.codec.read(parts, like, Moment(lane.seed, message.step, message.training))
            )
            if message.training and trace is not None:
                flight.values[lane.trace] = trace
            return tensor
        folded = lane.forth.folded(like)
        check_parts(lane.codec, parts, folded)
        tensor, _ = _only(lane.codec.read(parts, folded, Moment(lane.seed, message.step, True)))
        trace = flight.values.pop(lane.trace, None)
        return lane.forth.unfold(tensor, trace, like, Moment(lane.forth_seed, message.step, True))
    except FrameError as error:
        raise FrameError(
            f"{lane.name!r} cannot be read as {lane.codec.word}: {error.what}",
            got=error.got,
            expected=error.expected,
            todo=error.todo,
        ) from error


def _only(written: tuple[tuple[Tensor, ...], Tensor | None]) -> tuple[Tensor, Tensor | None]:
    return written[0][0], written[1]
