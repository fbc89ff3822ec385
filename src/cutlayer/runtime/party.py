"""One party at work: it performs the actions of its program, whatever the schedule and whatever the transport."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data import Records
from ..errors import CutlayerError, FrameError, NumericsError, StudyError
from ..graph.parts import Ref, TensorSpec
from ..metering.events import Event, Measured
from ..metering.meter import Meter
from ..metering.metrics import measure
from ..schedules.actions import Action, Op
from ..schedules.calendar import Batch, Calendar
from ..seeds import stream
from ..transports import Transport
from ..wire import Kind, Message, Seal, decode, disclose, enclose, encode
from .blueprint import Blueprint, Crossing
from .live import LiveSegment, State, Workshop
from .stopping import Verdict

if TYPE_CHECKING:
    from .stopping import Judge

__all__ = ["Circumstances", "LocalParty"]


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What all parties of a run agree on, or in a simulation share.

    Attributes:
        blueprint: The graph, looked up.
        calendar: Which rows when.
        workshop: Where working copies of segments come from.
        meter: What counts.
        seed: The study's seed.
        device: Where segments run.
        timeout_s: How long to wait for a frame.
        check_finite: Refuse NaN and infinity in what leaves.
        metrics: Names of metrics; all that fit if empty.
        note: Called with each event that a party notes.
        on_loss: Called with step, loss name, value and rows after each loss.
        judge: Decides on stopping early, at the party that holds the labels.
    """

    blueprint: Blueprint
    calendar: Calendar
    workshop: Workshop
    meter: Meter
    seed: int
    device: torch.device
    timeout_s: float
    check_finite: bool
    metrics: tuple[str, ...]
    note: Callable[[Event], None]
    on_loss: Callable[[int, str, float, int], None]
    judge: Judge | None = None


@dataclass(slots=True)
class Flight:
    """What a party keeps of one step while it lasts."""

    fields: dict[str, Tensor] = field(default_factory=dict)
    values: dict[Ref, Tensor] = field(default_factory=dict)
    leaves: dict[str, list[tuple[Ref, Tensor]]] = field(default_factory=dict)
    gradients: dict[Ref, list[tuple[int, Tensor]]] = field(default_factory=dict)
    losses: dict[str, list[tuple[Tensor, float]]] = field(default_factory=dict)
    shapes: dict[str, tuple[torch.Size, ...]] = field(default_factory=dict)
    training: bool = False


class LocalParty:
    """A party with its records, its segments and its end of the transport.

    Args:
        name: The party.
        role: The role it fills.
        shared: What all parties agree on.
        transport: Its end.
        seal: Its keys for hand-overs.
        records: Its data by split.
        positions: For each (split, turn), its rows in the order of the cohort's common ids; where a
            pair is missing, its rows are in that order already.
    """

    __slots__ = (
        "away", "best", "flights", "heard", "live", "measured", "name", "positions", "records", "role", "scored", "seal",
        "shared", "transport", "verdict",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        role: str,
        shared: Circumstances,
        transport: Transport,
        seal: Seal,
        records: Mapping[str, Records],
        positions: Mapping[tuple[str, int], Tensor],
    ) -> None:
        self.name = name
        self.role = role
        self.shared = shared
        self.transport = transport
        self.seal = seal
        self.records = records
        self.positions = positions
        self.live: dict[str, LiveSegment] = {}
        self.away = False
        self.flights: dict[int, Flight] = {}
        self.scored: dict[str, list[tuple[Tensor, Tensor | None]]] = {}
        self.measured: dict[str, tuple[int, dict[str, float]]] = {}
        self.heard: list[tuple[int, float]] = []
        self.verdict = Verdict()
        self.best: dict[str, State] = {}

    def perform(self, action: Action) -> None:
        """Do one action of the program.

        Raises:
            CutlayerError: Whatever went wrong, with party, place and step.
        """
        began = perf_counter_ns()
        _PERFORM[action.op](self, action)
        self.shared.meter.spent(self.name, action.op, perf_counter_ns() - began)

    # Data

    def _load(self, action: Action) -> None:
        batch = Batch.parse(action.what)
        rows = self.shared.calendar.positions(batch)
        own = self.positions.get((batch.split, batch.turn))
        if own is not None:
            rows = own.index_select(0, rows)
        fields = self.records[batch.split].batch(rows)
        if self.shared.device.type != "cpu":
            fields = {name: tensor.to(self.shared.device) for name, tensor in fields.items()}
        flight = self._flight(action.step)
        flight.fields, flight.training = fields, batch.split == "train"

    # Compute

    def _forward(self, action: Action) -> None:
        shared, work, flight = self.shared, self.shared.blueprint.work[action.what], self._flight(action.step)
        live = self._segment(work.name, action.step)
        live.mode(True)
        inputs, leaves = [], []
        for ref, wanted in work.inputs:
            if isinstance(ref, str):
                inputs.append(flight.fields[ref])
                continue
            value = flight.values[ref]
            if wanted:
                value = value.detach().requires_grad_()
                leaves.append((ref, value))
            inputs.append(value)
        flight.leaves[work.name] = leaves
        flight.training = True
        _seed(stream(shared.seed, "segment", work.name, action.step), shared.device)
        self._run(live, inputs, flight, "forward", action)

    def _infer(self, action: Action) -> None:
        work, flight = self.shared.blueprint.work[action.what], self._flight(action.step)
        live = self._segment(work.name, action.step)
        live.mode(False)
        inputs = [flight.fields[r] if isinstance(r, str) else flight.values[r] for r, _ in work.inputs]
        with torch.no_grad():
            self._run(live, inputs, flight, "infer", action)

    def _run(self, live: LiveSegment, inputs: list[Tensor], flight: Flight, direction: str, action: Action) -> None:
        """Call the module, under the FLOP counter when these shapes are new, and keep its outputs."""
        shapes = tuple([t.shape for t in inputs])
        flight.shapes[live.name] = shapes
        counting = self.shared.meter.compute(self.name, live.name, direction, shapes)
        try:
            if counting is None:
                result = live.module(*inputs)
            else:
                with counting:
                    result = live.module(*inputs)
        except CutlayerError:
            raise
        except Exception as error:
            raise _explained(error, self.name, live.name, action.step, inputs) from error
        outputs = self.shared.blueprint.work[live.name].outputs
        if len(outputs) == 1:
            flight.values[outputs[0]] = result if isinstance(result, Tensor) else result[0]
        else:
            flight.values.update(zip(outputs, result, strict=True))

    def _loss(self, action: Action) -> None:
        shared, flight = self.shared, self._flight(action.step)
        loss = shared.blueprint.graph.losses[action.what]
        segment, ref = shared.blueprint.predictions[loss.name]
        prediction, label = flight.values[ref], flight.fields[loss.target]
        try:
            value = loss.compute(prediction, label)
        except Exception as error:
            raise _explained(error, self.name, f"loss {loss.name}", action.step, [prediction, label]) from error
        flight.losses.setdefault(segment, []).append((value, loss.weight))
        number = value.item()
        if not math.isfinite(number):
            self._blame(action, flight, f"loss {loss.name!r} is {number}")
        shared.on_loss(action.step, loss.name, number, len(prediction))

    def _backward(self, action: Action) -> None:
        shared, flight = self.shared, self._flight(action.step)
        work = shared.blueprint.work[action.what]
        roots: list[Tensor] = []
        gradients: list[Tensor | None] = []
        for value, weight in flight.losses.pop(work.name, ()):
            roots.append(value)
            gradients.append(None if weight == 1.0 else torch.full_like(value, weight))
        for ref in work.outputs:
            value = flight.values.pop(ref)
            gradient = _total(flight.gradients.pop(ref, None))
            if gradient is not None and value.requires_grad:
                roots.append(value)
                gradients.append(gradient)
        if roots:
            counting = shared.meter.compute(self.name, work.name, "backward", flight.shapes[work.name])
            try:
                if counting is None:
                    torch.autograd.backward(roots, gradients)
                else:
                    with counting:
                        torch.autograd.backward(roots, gradients)
            except Exception as error:
                raise _explained(error, self.name, work.name, action.step, roots) from error
        for ref, leaf in flight.leaves.pop(work.name):
            if leaf.grad is not None:
                flight.gradients.setdefault(ref, []).append((work.index, leaf.grad))

    def _step(self, action: Action) -> None:
        self.live[action.what].step()

    def _advance(self, action: Action) -> None:
        self._segment(action.what, action.step).advance()

    # Cuts

    def _send(self, action: Action) -> None:
        shared, flight = self.shared, self._flight(action.step)
        crossing = shared.blueprint.crossings[action.what]
        tensors: list[tuple[str, Tensor | None]]
        if crossing.kind is Kind.ACTIVATION:
            tensors = [(n, flight.values[r].detach()) for n, r in zip(crossing.names, crossing.refs, strict=True)]
        elif crossing.kind is Kind.GRADIENT:
            gradients = flight.gradients
            tensors = [(n, _total(gradients.pop(r, None))) for n, r in zip(crossing.names, crossing.refs, strict=True)]
        else:
            tensors = [(n, flight.fields[n]) for n in crossing.names]
        if shared.check_finite:
            for name, tensor in tensors:
                if tensor is not None and tensor.is_floating_point() and not _finite(tensor):
                    self._refuse(action, crossing, name, tensor)
        frame = encode(Message(crossing.kind, action.what, action.step, tuple(tensors), flight.training))
        self.transport.send(action.peer, frame)
        size = sum([t.nbytes for _, t in tensors if t is not None])
        phase = "training" if flight.training else "evaluation"
        shared.meter.frame(phase, crossing.cut.name, crossing.kind, self.name, action.peer, frame.nbytes, size)

    def _receive(self, action: Action) -> None:
        message = decode(self.transport.receive(action.peer, self.shared.timeout_s))
        crossing = self.shared.blueprint.crossings[action.what]
        if message.name != action.what or message.step != action.step or message.kind is not crossing.kind:
            raise FrameError(
                "a frame arrived that the program does not expect here", party=self.name, cut=action.what, step=action.step,
                got=f"{message.kind.name.lower()} {message.name!r} of step {message.step}",
                todo="all parties must perform the same program; compare the study's digest",
            )  # fmt: skip
        self._check(message, crossing, action)
        flight = self._flight(action.step)
        flight.training = message.training
        device = self.shared.device
        for (name, tensor), index in zip(message.tensors, range(len(message.tensors)), strict=True):
            if tensor is None:
                continue
            if device.type != "cpu":
                tensor = tensor.to(device)
            if crossing.kind is Kind.ACTIVATION:
                flight.values[crossing.refs[index]] = tensor
            elif crossing.kind is Kind.GRADIENT:
                flight.gradients.setdefault(crossing.refs[index], []).append((crossing.index, tensor))
            else:
                flight.fields[name] = tensor

    def _check(self, message: Message, crossing: Crossing, action: Action) -> None:
        """Compare what came with what the graph says about this cut."""
        for (name, tensor), expected, spec in zip(message.tensors, crossing.names, crossing.specs, strict=False):
            if name != expected or (
                tensor is not None
                and spec is not None
                and (tensor.dtype != spec.dtype or tensor.shape[1:] != spec.shape)
            ):
                raise FrameError(
                    "what came is not what the graph says", party=self.name, cut=action.what, step=action.step,
                    got=f"{name} {'nothing' if tensor is None else TensorSpec.of(tensor)}",
                    expected=f"{expected} {spec}",
                    todo="both sides must load the same study; compare its digest",
                )  # fmt: skip
        if len(message.tensors) != len(crossing.names):
            raise FrameError(
                "what came is not what the graph says", party=self.name, cut=action.what, step=action.step,
                got=f"{len(message.tensors)} tensors", expected=f"{len(crossing.names)}",
                todo="both sides must load the same study; compare its digest",
            )  # fmt: skip

    # Hand-over

    def _give(self, action: Action) -> None:
        state: list[tuple[str, Tensor | None]] = []
        segments = self.shared.blueprint.graph.segments_of(self.role)
        for segment in segments:
            live = self._segment(segment.name, action.step)
            state += [(f"{segment.name}/{name}", tensor.cpu()) for name, tensor in live.state().items()]
        inner = encode(Message(Kind.HANDOVER, action.what, action.step, tuple(state)))
        frame = encode(enclose(inner, self.seal, to=action.peer, step=action.step))
        self.transport.send(action.via or action.peer, frame)
        self._count_hand_over(action.what, action.via or action.peer, frame.nbytes, sum(t.nbytes for _, t in state if t is not None))
        for segment in segments:
            self.shared.workshop.bring_back(self.live.pop(segment.name))
        self.away = True

    def _relay(self, action: Action) -> None:
        frame = self.transport.receive(action.peer, self.shared.timeout_s)
        self.transport.send(action.via, frame)
        self._count_hand_over(action.what, action.via, frame.nbytes, frame.nbytes)

    def _take(self, action: Action) -> None:
        sealed = decode(self.transport.receive(action.via or action.peer, self.shared.timeout_s))
        message = decode(disclose(sealed, self.seal, sender=action.peer))
        if message.kind is not Kind.HANDOVER or message.name != action.what:
            raise FrameError(
                "not the hand-over that the program expects", party=self.name, step=action.step,
                got=f"{message.kind.name.lower()} {message.name!r}", expected=f"handover {action.what!r}",
            )  # fmt: skip
        states: dict[str, State] = {}
        for name, tensor in message.tensors:
            segment, _, rest = name.partition("/")
            if tensor is not None:
                states.setdefault(segment, {})[rest] = tensor
        for placed in self.shared.blueprint.graph.segments_of(self.role):
            live = self.live.get(placed.name) or self.shared.workshop.blank(placed.name)
            live.restore(states.get(placed.name, {}))
            self.live[placed.name] = live
        self.away = False

    def _count_hand_over(self, role: str, to: str, frame_bytes: int, tensor_bytes: int) -> None:
        self.shared.meter.frame("hand-over", f"hand-over of {role}", Kind.HANDOVER, self.name, to, frame_bytes, tensor_bytes)

    # Evaluation

    def _score(self, action: Action) -> None:
        flight = self._flight(action.step)
        loss = self.shared.blueprint.graph.losses[action.what]
        _, ref = self.shared.blueprint.predictions[loss.name]
        self.scored.setdefault(loss.name, []).append((flight.values[ref].detach(), flight.fields.get(loss.target)))

    def _evaluate(self, action: Action) -> None:
        split, _, epoch = action.what.partition("/")
        for name in list(self.scored):
            prediction, label = self.take_scores(name)
            if label is None:
                raise StudyError(f"no labels to evaluate loss {name!r} with", party=self.name)
            metrics = measure(self.shared.blueprint.graph.losses[name], prediction, label, self.shared.metrics)
            self.measured[f"{split}/{name}"] = (len(prediction), metrics)
            self.shared.note(
                Measured(epoch=int(epoch), split=split, loss=name, party=self.name, rows=len(prediction), metrics=metrics)
            )

    def take_scores(self, loss: str) -> tuple[Tensor, Tensor | None]:
        """Return all predictions [N, ...] noted for ``loss``, with their labels if there were any, and forget them."""
        pairs = self.scored.pop(loss)
        labels = [label for _, label in pairs if label is not None]
        return torch.cat([p for p, _ in pairs]), torch.cat(labels) if len(labels) == len(pairs) else None

    def _tell(self, action: Action) -> None:
        what = action.what.partition("/")[0]
        if what == "metrics":
            if self.shared.judge is None:
                raise StudyError("metrics are told, and nobody judges them", party=self.name)
            rows, metrics = self.measured[self.shared.judge.key]
            numbers = torch.tensor([float(rows), metrics[self.shared.judge.metric]], dtype=torch.float64)
        else:
            if not self.verdict.of(action.what):
                self._judge(action)
            numbers = torch.tensor([float(self.verdict.stop), float(self.verdict.best)], dtype=torch.float64)
        kind = Kind.STATISTICS if what == "metrics" else Kind.VERDICT
        frame = encode(Message(kind, action.what, action.step, (("numbers", numbers),), False))
        self.transport.send(action.peer, frame)
        self.shared.meter.frame("evaluation", what, kind, self.name, action.peer, frame.nbytes, numbers.nbytes)

    def _hear(self, action: Action) -> None:
        message = decode(self.transport.receive(action.peer, self.shared.timeout_s))
        tensor = message.tensors[0][1] if message.tensors else None
        if message.name != action.what or tensor is None or tensor.shape != (2,):
            raise FrameError("not the numbers that the program expects", party=self.name, got=repr(message.name), expected=repr(action.what))
        first, second = tensor.tolist()
        if message.kind is Kind.STATISTICS:
            self.heard.append((int(first), second))
        else:
            self.verdict = Verdict(action.what, stop=bool(first), best=bool(second))

    def _judge(self, action: Action) -> None:
        """Decide, from one's own numbers and those heard, whether this epoch is the best and whether to stop."""
        judge = self.shared.judge
        if judge is None:
            raise StudyError("a verdict is due, and nobody judges", party=self.name)
        rows, metrics = self.measured[judge.key]
        if judge.metric not in metrics:
            raise StudyError(f"the metric {judge.metric!r} to judge by was not measured", party=self.name, got=", ".join(metrics))
        self.verdict = judge.decide(action.what, [(rows, metrics[judge.metric]), *self.heard])
        self.heard.clear()

    def _snapshot(self, action: Action) -> None:
        if self.shared.judge is not None and not self.verdict.of(f"verdict/{action.what}"):
            self._judge(Action(action.step, self.name, Op.TELL, f"verdict/{action.what}"))
        if self.verdict.best:
            self.best = {name: _copied(live.state()) for name, live in self.live.items()}

    # What stays with the party

    def _flight(self, step: int) -> Flight:
        flight = self.flights.get(step)
        if flight is None:
            # A step is over when nothing waits for its backward any more.
            for old in [s for s, f in self.flights.items() if not f.leaves and not f.losses]:
                del self.flights[old]
            flight = self.flights[step] = Flight()
        return flight

    def _segment(self, name: str, step: int) -> LiveSegment:
        live = self.live.get(name)
        if live is None:
            if self.away:
                raise StudyError(f"segment {name!r} was handed over and not taken back", party=self.name, step=step)
            live = self.live[name] = self.shared.workshop.fresh(name)
        return live

    def _blame(self, action: Action, flight: Flight, what: str) -> None:
        """Raise, naming the cut over which the first value that is not finite came, if one did."""
        for name, crossing in self.shared.blueprint.crossings.items():
            for ref in crossing.refs:
                value = flight.values.get(ref)
                if crossing.cut.target == self.role and value is not None and not _finite(value):
                    raise NumericsError(f"{what}: the activation {ref} holds NaN or infinity", party=self.name, cut=name, step=action.step, todo=_NUMERICS)
        raise NumericsError(what, party=self.name, step=action.step, todo=_NUMERICS)

    def _refuse(self, action: Action, crossing: Crossing, name: str, tensor: Tensor) -> None:
        bad = int((~torch.isfinite(tensor)).sum())
        raise NumericsError(
            f"the {crossing.kind.name.lower()} {name!r} holds NaN or infinity in {bad} of {tensor.numel()} values and was not sent",
            party=self.name, cut=action.what, step=action.step, todo=_NUMERICS,
        )  # fmt: skip


_NUMERICS = "lower the learning rate, look for NaN in this party's data, or for a division or logarithm of zero in its segment"

_PERFORM: Mapping[Op, Callable[[LocalParty, Action], None]] = {
    op: getattr(LocalParty, f"_{op.value}") for op in Op
}


def _finite(tensor: Tensor) -> bool:
    """Return whether all values are finite; a sum is quick and tells in almost all cases."""
    return math.isfinite(tensor.sum().item()) or bool(torch.isfinite(tensor).all())


def _total(parts: list[tuple[int, Tensor]] | None) -> Tensor | None:
    """Add gradients as the uncut network does: from the last reader to the first."""
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0][1]
    ordered = [gradient for _, gradient in sorted(parts, key=lambda part: -part[0])]
    total = ordered[0]
    for gradient in ordered[1:]:
        total = total + gradient
    return total


def _seed(seed: int, device: torch.device) -> None:
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _copied(state: State) -> State:
    return {name: tensor.clone() for name, tensor in state.items()}


def _explained(error: Exception, party: str, place: str, step: int, tensors: list[Tensor]) -> StudyError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    todo = "check shapes and dtypes of the data and of the layers there"
    if "more than 1 value per channel" in text:
        todo = "BatchNorm needs more than one row: choose another batch_size, or drop_last=True"
    elif "out of bounds" in text or "Target" in text:
        todo = "labels must be 0 … classes-1; check the labels and the number of outputs of the last layer"
    shapes = ", ".join(str(TensorSpec.of(t)) if t.ndim else str(t.dtype) for t in tensors)
    rows = f" with a batch of {len(tensors[0])}" if tensors and tensors[0].ndim else ""
    return StudyError(f"{place} failed on {shapes}{rows}: {text}", party=party, step=step, todo=todo)
