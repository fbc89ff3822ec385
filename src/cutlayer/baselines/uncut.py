"""The uncut network of a study at work: its segments on one machine, each with the study's optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter_ns

import torch
from torch import Tensor

from ..errors import NumericsError, StudyError
from ..graph.joined import Joined
from ..graph.parts import Loss, Ref
from ..metering.merging import Figures
from ..metering.meter import Meter, counting
from ..metering.metrics import measure
from ..runtime.compute import NUMERICS, finite
from ..runtime.live import LiveSegment, State
from ..runtime.optim import OptimizerSpec
from ..seeds import at_step, stream
from ..study import Study

__all__ = ["NETWORK", "Fields", "Uncut", "numbers_of"]

NETWORK = "network"
"""What logs call the whole network, in the place of a segment."""

Fields = Mapping[str, Mapping[str, Tensor]]
"""Rows by role and field."""

_RATES = ("max_lr", "base_lr", "eta_min", "min_lr")
"""Settings of learning-rate schedules that are rates themselves."""


class Uncut:
    """A study's network before it was cut; one copy of it, which all clients of a simulation use in turn.

    Args:
        study: Its graph, optimizers and seed.
        meter: Where FLOPs and time are counted.
        rate: Learning rates are multiplied by this.

    Attributes:
        live: The segments by name, each with its optimizer and learning-rate schedule.
    """

    def __init__(self, study: Study, meter: Meter, rate: float = 1.0) -> None:
        self.graph, self.seed, self.metrics = study.graph, study.seed, tuple(study.metrics)
        self.check_finite = study.check_finite
        device = torch.device(study.settings.device)
        self.live = {
            name: LiveSegment(study.graph.segments[name], _times(spec, rate), device)
            for name, spec in study.optimizers.items()
        }
        self._device, self._meter = device, meter
        self._joined = Joined(study.graph)
        for name, live in self.live.items():
            self._joined.segments[name] = live.module
            live.module.register_forward_pre_hook(lambda module, args, name=name: self._draw(name))
        self._step = 0

    @property
    def parameters(self) -> list[Tensor]:
        """All parameters that are trained."""
        return [p for live in self.live.values() for p in live.parameters]

    @property
    def buffers(self) -> dict[str, Tensor]:
        """All buffers by ``segment/weight/name``."""
        return {f"{n}/weight/{k}": b for n, live in self.live.items() for k, b in live.module.named_buffers()}

    def state(self, *, memory: bool = True) -> dict[str, State]:
        """Return the state of each segment; its tensors are not copied."""
        return {name: live.state(memory=memory) for name, live in self.live.items()}

    def restore(self, state: Mapping[str, State]) -> None:
        """Take over copies of a state."""
        for name, live in self.live.items():
            live.restore({key: tensor.clone() for key, tensor in state[name].items()})

    def learn(self, party: str, fields: Fields, step: int) -> tuple[float, dict[str, float]]:
        """Work out the gradients of one batch, on top of none; return the total loss and that of each loss.

        Args:
            party: Who does it.
            fields: The batch.
            step: Its number over the whole training, from which dropout draws.
        """
        fields = self._moved(fields)
        shapes = tuple(tensor.shape for rows in fields.values() for tensor in rows.values())
        self._step = step
        self._mode(True)
        time = self._meter.time(party, "train")
        began = perf_counter_ns()
        with self._counted(party, "forward", shapes):
            total, each = self._losses(fields)
        with self._counted(party, "backward", shapes):
            torch.autograd.backward(total)
        time[0] += 1
        time[1] += perf_counter_ns() - began
        if self.check_finite and not torch.isfinite(total):
            raise NumericsError(f"the loss is {total.item()}", party=party, step=step, todo=NUMERICS)
        return total.item(), each

    def step(self) -> None:
        """Do the optimizers' steps; learning-rate schedules that go by steps move on."""
        for live in self.live.values():
            live.step()

    def advance(self) -> None:
        """Move on the learning-rate schedules that go by epochs."""
        for live in self.live.values():
            live.advance()

    def scores(self, party: str, fields: Fields) -> dict[str, tuple[Tensor, Tensor]]:
        """Return prediction and label of each loss for a batch, in evaluation mode."""
        fields = self._moved(fields)
        shapes = tuple(tensor.shape for rows in fields.values() for tensor in rows.values())
        self._mode(False)
        with torch.no_grad(), self._counted(party, "infer", shapes):
            values = self._joined(fields)
        return {
            loss.name: (values[self._prediction(loss)], self._label(loss, fields))
            for loss in self.graph.losses.values()
        }

    def measure(self, party: str, scored: Mapping[str, list[tuple[Tensor, Tensor]]]) -> dict[str, Figures]:
        """Return the metrics of each loss over all batches of a party."""
        found = {}
        for name, pairs in scored.items():
            prediction, label = (torch.cat(part) for part in zip(*pairs, strict=True))
            if not finite(prediction):
                raise NumericsError("predictions hold NaN or infinity", party=party, todo=NUMERICS)
            found[name] = measure(self.graph.losses[name], prediction, label, self.metrics)
        return found

    def _moved(self, fields: Fields) -> dict[str, dict[str, Tensor]]:
        return {r: {n: t.to(self._device) for n, t in rows.items()} for r, rows in fields.items()}

    def _mode(self, training: bool) -> None:
        for live in self.live.values():
            live.mode(training)

    def _losses(self, fields: Fields) -> tuple[Tensor, dict[str, float]]:
        values = self._joined(fields)
        terms: list[Tensor] = []
        each = {}
        for loss in self.graph.losses.values():
            prediction = values[self._prediction(loss)]
            term = loss.compute(prediction.view_as(prediction), self._label(loss, fields))
            each[loss.name] = term.item()
            terms.append(term if loss.weight == 1.0 else term * loss.weight)
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total, each

    def _prediction(self, loss: Loss) -> Ref:
        segment, _, output = loss.prediction.partition(":")
        return Ref(segment, output or self.graph.segments[segment].outputs[0])

    def _label(self, loss: Loss, fields: Fields) -> Tensor:
        (rows,) = fields.values()
        return rows[loss.target]

    def _draw(self, name: str) -> None:
        if self.live[name].training:
            seed = at_step(stream(self.seed, "segment", name), self._step)
            torch.default_generator.manual_seed(seed)
            if self._device.type == "cuda":
                torch.cuda.manual_seed(seed)

    @contextmanager
    def _counted(self, party: str, direction: str, shapes: Hashable) -> Iterator[None]:
        """Count the FLOPs of what is done inside, by PyTorch's own counter the first time."""
        known, count = self._meter.flops(NETWORK, direction), self._meter.compute(party, NETWORK, direction)
        count[0] += 1
        if shapes in known:
            count[1] += known[shapes]
            yield
        else:
            with counting(known, shapes, count):
                yield


def numbers_of(state: Mapping[str, State]) -> tuple[tuple[str, Tensor], ...]:
    """Return the weights and buffers in a state, as ``segment/weight/name``: what crosses between client and server."""
    return tuple(
        (f"{segment}/{key}", tensor.cpu())
        for segment, tensors in state.items()
        for key, tensor in tensors.items()
        if key.startswith("weight/")
    )


def _times(spec: OptimizerSpec, rate: float) -> OptimizerSpec:
    """Return an optimizer with its learning rate multiplied."""
    if rate == 1.0:
        return spec
    settings = dict(spec.settings)
    cycles = [name for name, _ in (spec.schedule.settings if spec.schedule else ()) if name in _RATES]
    if "lr" not in settings or cycles:
        raise StudyError(
            "rate= multiplies the optimizer's lr, and this one's is not stated there",
            got=repr(spec),
            expected="an optimizer with lr, and no schedule with rates of its own",
        )
    return dataclasses.replace(
        spec, settings=tuple(sorted({**settings, "lr": settings["lr"] * rate}.items()))
    )
