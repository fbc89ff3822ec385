"""Load, forward, loss, backward, step: what a party does with its own data and segments."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from ..errors import CutlayerError, DataError, NumericsError, StudyError
from ..graph.parts import Ref, TensorSpec
from ..metering.meter import counting
from ..schedules.actions import Action
from ..schedules.calendar import TRAINED, Batch
from ..seeds import at_step, stream
from .blueprint import Work
from .early import inputs_first
from .live import LiveSegment
from .party import Flight, LocalParty, Runner
from .precision import flops_apart

__all__ = [
    "accumulate",
    "advance",
    "backward",
    "detach",
    "finite",
    "forward",
    "infer",
    "load",
    "loss",
    "read_ahead",
    "step",
    "total",
]

NUMERICS = (
    "lower the learning rate, look for NaN in the data, or for a division or logarithm of zero in the segment"
)

_WORTH_FLOPS = 50_000_000
"""From how many FLOPs of a backward on the weights' gradients are put off."""
_TRAINED = tuple(f"{split}." for split in TRAINED)
_ENGINE = torch.autograd.Variable._execution_engine


Shapes = tuple[torch.Size, ...]
First = Callable[[LiveSegment, Shapes, list[Tensor]], Any]
Read = Callable[[int, str], tuple[dict[str, Tensor], int]]
"""Reads a batch: ``read(step, what)`` returns its fields and how many rows it has."""


def load(party: LocalParty, action: Action) -> Runner:
    """Take a batch's rows of one's own data, perhaps read ahead."""
    read = _reader(party)

    def run(step: int, what: str) -> None:
        ahead, party.ahead = party.ahead, None
        fields, rows = ahead[1:] if ahead is not None and ahead[0] == what else read(step, what)
        flight = party.flight(step)
        flight.fields = fields
        flight.training, flight.rows = what.startswith(_TRAINED), rows

    return run


def read_ahead(party: LocalParty, action: Action) -> Runner:
    """Read the batch that comes after that of ``action``, a load, so that nobody waits for it later."""
    read, calendar = _reader(party), party.shared.calendar

    def run(step: int, what: str) -> None:
        batch = Batch.parse(what)
        following = batch._replace(number=batch.number + 1)
        if following.number < calendar.batches(batch.turn, batch.split, batch.epoch):
            with contextlib.suppress(CutlayerError):  # a bad row is reported when its turn has come
                name = str(following)
                party.ahead = (name, *read(step, name))

    return run


def _reader(party: LocalParty) -> Read:
    if any(records.lazy for records in party.records.values()):
        return _lazy_reader(party)
    calendar, device = party.shared.calendar, party.shared.device
    moves = device.type != "cpu"

    def read(step: int, what: str) -> tuple[dict[str, Tensor], int]:
        batch = Batch.parse(what)
        rows = calendar.positions(batch)
        own = party.positions.get((batch.split, batch.turn))
        fields = party.records[batch.split].batch(rows if own is None else own.index_select(0, rows))
        if moves:
            fields = {name: tensor.to(device) for name, tensor in fields.items()}
        return dict(fields), rows.shape[0]

    return read


def _lazy_reader(party: LocalParty) -> Read:
    """Read a batch of a dataset; its augmentation draws from a stream of the role and the batch."""
    calendar, device, study_seed = party.shared.calendar, party.shared.device, party.shared.seed

    def read(step: int, what: str) -> tuple[dict[str, Tensor], int]:
        batch = Batch.parse(what)
        rows = calendar.positions(batch)
        own = party.positions.get((batch.split, batch.turn))
        epoch = batch.epoch if batch.split in TRAINED else 0  # an evaluation is the same in every epoch
        seed = stream(study_seed, "data", party.role, batch.split, batch.turn, epoch, batch.number)
        try:
            fields = party.records[batch.split].read(rows if own is None else own.index_select(0, rows), seed)
        except (DataError, NumericsError) as error:
            raise type(error)(
                f"batch {what}: {error.what}",
                party=party.name,
                step=step,
                got=error.got,
                expected=error.expected,
                todo=error.todo,
            ) from (error.__cause__ or error)
        return {name: tensor.to(device) for name, tensor in fields.items()}, len(rows)

    return read


def forward(party: LocalParty, action: Action) -> Runner:
    """Run a segment in training mode, each input of another segment a leaf of its own."""
    shared = party.shared
    work, state = _work(party, action), action.what
    name, inputs_of, outputs = work.name, work.inputs, work.outputs
    seed, cuda = stream(shared.seed, "segment", name), shared.device.type == "cuda"
    randomness = torch.default_generator
    known, count = shared.meter.flops(name, "forward"), shared.meter.compute(party.name, name, "forward")
    first = _counted(party, name, known, count)

    def run(step: int, what: str) -> None:
        flight = party.flight(step)
        live = party.live.get(state) or party.segment(state)
        if not live.training:
            live.mode(True)
        flight.training = True
        flight.leaves[name] = leaves = []
        inputs = []
        for ref, wanted in inputs_of:
            if isinstance(ref, str):
                inputs.append(flight.fields[ref])
                continue
            value = flight.values[ref]
            if wanted:
                value = value.detach().requires_grad_()
                leaves.append((ref, value))
            inputs.append(value)
        randomness.manual_seed(at_step(seed, step))
        if cuda:
            torch.cuda.manual_seed(at_step(seed, step))
        flight.shapes[name] = shapes = tuple([tensor.shape for tensor in inputs])
        flops = known.get(shapes)
        count[0] += 1
        try:
            if flops is None:
                result = first(live, shapes, inputs)
            else:
                count[1] += flops
                result = live.call(*inputs)
        except CutlayerError:
            raise
        except Exception as error:
            raise _explained(error, party.name, name, step, inputs) from error
        _keep(flight, outputs, result)

    return run


def infer(party: LocalParty, action: Action) -> Runner:
    """Run a segment in evaluation mode, without gradients."""
    shared = party.shared
    work, state = _work(party, action), action.what
    name, outputs = work.name, work.outputs
    known, count = shared.meter.flops(name, "infer"), shared.meter.compute(party.name, name, "infer")

    def run(step: int, what: str) -> None:
        flight = party.flight(step)
        live = party.segment(state)
        live.mode(False)
        inputs = [flight.fields[r] if isinstance(r, str) else flight.values[r] for r, _ in work.inputs]
        shapes = tuple([tensor.shape for tensor in inputs])
        count[0] += 1
        try:
            with torch.no_grad():
                if shapes not in known:
                    with counting(known, shapes, count):
                        result = live.evaluate(*inputs)
                else:
                    count[1] += known[shapes]
                    result = live.evaluate(*inputs)
        except CutlayerError:
            raise
        except Exception as error:
            raise _explained(error, party.name, name, step, inputs) from error
        _keep(flight, outputs, result)

    return run


def _counted(party: LocalParty, name: str, known: dict[Hashable, int], count: list[int]) -> First:
    """Return what runs a segment in training on inputs of new shapes and counts the FLOPs."""
    shared, module = party.shared, party.shared.blueprint.graph.segments[name].module
    back = shared.meter.flops(name, "backward")

    def first(live: LiveSegment, shapes: Shapes, inputs: list[Tensor]) -> Any:
        with counting(known, shapes, count):
            return live.call(*inputs)

    def first_compiled(live: LiveSegment, shapes: Shapes, inputs: list[Tensor]) -> Any:
        # PyTorch's counter sees nothing of what is compiled.
        known[shapes], back[shapes] = flops_apart(module, inputs, shared.device)
        count[1] += known[shapes]
        return live.call(*inputs)

    return first_compiled if shared.workshop.compiles(name) else first


def loss(party: LocalParty, action: Action) -> Runner:
    """Compare prediction and label; the loss stays attached to the segment that predicts.

    Where others read the prediction too, its gradient is worked out here, to be added to theirs in order.
    """
    shared = party.shared
    placed = shared.blueprint.graph.losses[action.what]
    segment, ref = shared.blueprint.predictions[placed.name]
    target, weight, name = placed.target, placed.weight, placed.name
    index = shared.blueprint.shared_predictions.get(name)

    def run(step: int, what: str) -> None:
        flight = party.flight(step)
        prediction, label = flight.values[ref], flight.fields[target]
        if index is not None:
            prediction = prediction.detach().requires_grad_()
        try:
            value = placed.compute(prediction, label)
            if index is not None:
                torch.autograd.backward(value, torch.full_like(value, weight))
        except Exception as error:
            raise _explained(error, party.name, f"loss {name}", step, [prediction, label]) from error
        if index is None:
            flight.losses.setdefault(segment, []).append((value, weight))
        elif prediction.grad is not None:
            flight.gradients.setdefault(ref, []).append((index, prediction.grad))
        number = value.item()
        if not math.isfinite(number) and shared.check_finite:
            _blame(party, flight, step, f"loss {name!r} is {number}")
        shared.on_loss(step, name, number, prediction.shape[0])

    return run


def backward(party: LocalParty, action: Action) -> Runner:
    """Back-propagate through a segment from its losses and the gradients of its outputs, in one go."""
    shared = party.shared
    work, state = _work(party, action), action.what
    name, index, outputs = work.name, work.index, work.outputs
    apart = shared.apart and not shared.workshop.compiles(name)  # a compiled backward is done in one go
    known, count = shared.meter.flops(name, "backward"), shared.meter.compute(party.name, name, "backward")
    weights: dict[tuple[float, torch.dtype], Tensor] = {}

    def run(step: int, what: str) -> None:
        flight = party.flight(step)
        roots: list[Tensor] = []
        gradients: list[Tensor] = []
        for value, weight in flight.losses.pop(name, ()):
            roots.append(value)
            key = (weight, value.dtype)
            if key not in weights:
                weights[key] = torch.full_like(value, weight)
            gradients.append(weights[key])
        for ref in outputs:
            value = flight.values.pop(ref)
            gradient = total(flight.gradients.pop(ref, None))
            if gradient is not None and value.requires_grad:
                roots.append(value)
                gradients.append(gradient)
        if roots:
            shapes = flight.shapes[name]
            flops = known.get(shapes)
            count[0] += 1
            try:
                if flops is None:
                    with counting(known, shapes, count):
                        _propagate(roots, gradients)
                else:
                    count[1] += flops
                    leaves = flight.leaves[name]
                    if not (
                        apart
                        and leaves
                        and flops > _WORTH_FLOPS
                        and _put_off(party, state, roots, gradients, leaves)
                    ):
                        _propagate(roots, gradients)
            except Exception as error:
                raise _explained(error, party.name, name, step, roots) from error
        for ref, leaf in reversed(flight.leaves.pop(name)):
            if leaf.grad is not None:
                flight.gradients.setdefault(ref, []).append((index, leaf.grad))

    return run


def _put_off(
    party: LocalParty,
    state: str,
    roots: list[Tensor],
    gradients: list[Tensor],
    leaves: list[tuple[Ref, Tensor]],
) -> bool:
    """Back-propagate to the inputs alone, if the graph allows it: another party waits for their gradient."""
    live = party.live[state]
    owed = inputs_first(roots, gradients, [leaf for _, leaf in leaves], live.parameters)
    if owed is not None:
        live.owed.append(owed)
    return owed is not None


def step(party: LocalParty, action: Action) -> Runner:
    """Do the optimizer step of a segment."""
    name = action.what

    def run(step: int, what: str) -> None:
        party.live[name].step()

    return run


def detach(party: LocalParty, action: Action) -> Runner:
    """Go on without the gradient that will not come over a cut."""
    return _nothing


def _nothing(step: int, what: str) -> None:
    """What is only said for the checker."""


def accumulate(party: LocalParty, action: Action) -> Runner:
    """Keep the gradients of a segment for the step that comes later."""
    name = action.what

    def run(step: int, what: str) -> None:
        party.live[name].accumulate()

    return run


def advance(party: LocalParty, action: Action) -> Runner:
    """Move a segment's learning-rate schedule on by one epoch."""

    def run(step: int, what: str) -> None:
        party.segment(action.what).advance()

    return run


def _work(party: LocalParty, action: Action) -> Work:
    """Return what running the segment touches, which is the same for all of its copies."""
    return party.shared.blueprint.work[action.what.partition("#")[0]]


def total(parts: list[tuple[int, Tensor]] | None) -> Tensor | None:
    """Add gradients as the uncut network does: from the last reader to the first."""
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0][1]
    ordered = [gradient for _, gradient in sorted(parts, key=lambda part: -part[0])]
    added = ordered[0]
    for gradient in ordered[1:]:
        added = added + gradient
    return added


def finite(tensor: Tensor) -> bool:
    """Return whether all values are finite; a sum is quick and tells in almost all cases."""
    return math.isfinite(tensor.sum().item()) or bool(torch.isfinite(tensor).all())


def _propagate(roots: list[Tensor], gradients: list[Tensor]) -> None:
    """Do what ``torch.autograd.backward`` does, without its look at each gradient, which a cut's frames had already."""
    _ENGINE.run_backward(
        tuple(roots), tuple(gradients), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


def _keep(flight: Flight, outputs: tuple[Ref, ...], result: Tensor | tuple[Tensor, ...]) -> None:
    if isinstance(result, Tensor):
        flight.values[outputs[0]] = result
    else:
        flight.values.update(zip(outputs, result, strict=True))


def _blame(party: LocalParty, flight: Flight, step: int, what: str) -> None:
    """Raise, naming the first cut of the graph at which a value known here is not finite."""
    for name, crossing in party.shared.blueprint.crossings.items():
        for ref in crossing.refs:
            value = flight.values.get(ref)
            if value is not None and value.is_floating_point() and not finite(value):
                raise NumericsError(
                    f"{what}: the activation {ref} of role {crossing.cut.source!r} holds NaN or infinity",
                    party=party.name,
                    cut=name,
                    step=step,
                    todo=NUMERICS,
                )
    raise NumericsError(what, party=party.name, step=step, todo=NUMERICS)


def _explained(error: Exception, party: str, place: str, step: int, tensors: list[Tensor]) -> StudyError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    todo = "check shapes and dtypes of the data and of the layers there"
    if "more than 1 value per channel" in text:
        todo = "BatchNorm needs more than one row: choose another batch_size, or drop_last=True"
    elif "in-place operation" in text:
        todo = "the first layer there changes what it is given: use inplace=False, or cut after it"
    elif type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        todo = "leave this segment out of compiled, or see what PyTorch's compiler wants of it"
    elif "out of bounds" in text or "Target" in text:
        todo = "labels must be 0 … classes-1; check the labels and the number of outputs of the last layer"
    shapes = ", ".join(str(TensorSpec.of(t)) if t.ndim else str(t.dtype) for t in tensors)
    rows = f" with a batch of {len(tensors[0])}" if tensors and tensors[0].ndim else ""
    return StudyError(f"{place} failed on {shapes}{rows}: {text}", party=party, step=step, todo=todo)
