"""A segment at work: module, optimizer and learning-rate schedule, and their state as plain tensors and numbers."""

from __future__ import annotations

import copy
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import FrameError, StudyError
from ..graph.parts import Segment
from .early import Owed
from .optim import OptimizerSpec
from .precision import Form
from .private_step import Private, PrivateStep
from .restoring import check_groups, check_schedule, check_slots, read_scalars

__all__ = ["LiveSegment", "State", "Workshop"]

State = dict[str, Tensor]
"""A segment's state by name: ``weight/…``, ``slot/index/…`` and ``scalars`` (JSON as bytes)."""

_SCALARS = "scalars"


class LiveSegment:
    """One party's working copy of a segment.

    Args:
        segment: The segment; its module is copied and stays as it is.
        spec: The optimizer to build.
        device: Where it runs.
        form: How its module is called, if it is not just called.
        private: How it learns by DP-SGD, if it does.

    Attributes:
        call: What to call in the module's place in training: the module itself, unless there is a form.
        evaluate: What to call in its place in evaluation.
    """

    def __init__(
        self,
        segment: Segment,
        spec: OptimizerSpec,
        device: torch.device,
        form: Form | None = None,
        private: Private | None = None,
    ) -> None:
        self.name = segment.name
        self.spec = spec
        self.module = copy.deepcopy(segment.module).to(device)
        self.call: Callable[..., Any] = self.module
        self.evaluate: Callable[..., Any] = self.module
        if form is not None:
            self.call = form.of(self.module, device, training=True)
            self.evaluate = form.of(self.module, device, training=False)
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.private: PrivateStep | None = None
        if private is not None and self.parameters:
            self.private = PrivateStep(self.module, self.parameters, self.call, private)
            self.call = self.private.forward
        self.optimizer = spec.build(self.parameters) if self.parameters else None
        self.schedule = spec.schedule.build(self.optimizer) if self.optimizer and spec.schedule else None
        # On a CPU PyTorch takes one parameter after the other, but spends a third of a small step on finding that out.
        self._told = {"foreach": False} if device.type == "cpu" and _leaves_open(self.optimizer) else {}
        self._tell()
        # The optimizer's own arithmetic, without the marks for profilers and the hooks that PyTorch wraps
        # around it: nobody can register one here, and for a small layer they cost as much as the step.
        self._bare_step = inspect.unwrap(type(self.optimizer).step) if self.optimizer else None
        self.training = self.module.training
        self._batches = 1
        self.owed: list[Owed] = []
        """What gives the weights the gradients that were put off."""
        self._tried: dict[tuple[torch.Size, torch.dtype], dict[str, object]] = {}

    def _tell(self) -> None:
        """Tell the optimizer what it would find out in every step."""
        for group in self.optimizer.param_groups if self.optimizer is not None else ():
            group.update(self._told)

    def mode(self, training: bool) -> None:
        """Put the module in training or evaluation mode."""
        if self.training is not training:
            self.module.train(training)
            self.training = training

    def settle(self) -> None:
        """Have the gradients as the step will take them: those that were put off, and the mean of several batches."""
        self._pay()
        if self.private is not None:
            self.private.settle()
            self._batches = 1
        if self._batches > 1:
            torch._foreach_div_(self._gradients(), self._batches)
            self._batches = 1

    def _pay(self) -> None:
        """Work out the gradients that were put off."""
        for owed in self.owed:
            owed()
        self.owed.clear()

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.parameters if p.grad is not None]

    def squares(self) -> float:
        """Return the sum of squares of the gradients."""
        self.settle()
        return math.fsum(norm.item() ** 2 for norm in torch._foreach_norm(self._gradients()))

    def scale(self, factor: float) -> None:
        """Scale the gradients."""
        if gradients := self._gradients():
            torch._foreach_mul_(gradients, factor)

    def step(self) -> None:
        """Do the optimizer's step and forget the gradients."""
        if self.owed or self._batches > 1 or self.private is not None:
            self.settle()
        if self.optimizer is None or self._bare_step is None:
            return
        with torch.no_grad():
            self._bare_step(self.optimizer)
        for parameter in self.parameters:
            parameter.grad = None
        if self.schedule is not None and self.spec.every == "step":
            self._move_on(self.schedule)

    def accumulate(self) -> None:
        """Keep the gradients: the next step is with the mean of these and those to come."""
        if self.private is not None:
            self._pay()
            self.private.gather()
        self._batches += 1

    def _move_on(self, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
        schedule.optimizer._opt_called = True  # type: ignore[attr-defined]  # it did step, which the schedule asks
        schedule.step()

    def advance(self) -> None:
        """Move the learning-rate schedule on by one epoch."""
        if self.schedule is not None and self.spec.every == "epoch":
            self._move_on(self.schedule)

    def weights(self) -> State:
        """Return copies of parameters and buffers by their names in the module."""
        return {name: tensor.detach().clone() for name, tensor in self._weights().items()}

    def state(self, *, memory: bool = True) -> State:
        """Return weights, buffers, optimizer slots and counters; the tensors are not copied.

        Args:
            memory: Whether to return the optimizer's slots; without, an optimizer begins anew from this state.
        """
        state: State = {f"weight/{name}": tensor.detach() for name, tensor in self._weights().items()}
        slots: dict[str, object] = {}
        if self.optimizer is not None and memory:
            for index, parameter in enumerate(self.parameters):
                for slot, value in self.optimizer.state.get(parameter, {}).items():
                    if isinstance(value, Tensor):
                        state[f"slot/{index}/{slot}"] = value
                    else:
                        slots[f"{index}/{slot}"] = value
        scalars: dict[str, object] = {"groups": self._groups(), "slots": slots} if self.optimizer else {}
        if self.schedule is not None:
            scalars["schedule"] = self._position()
        state[_SCALARS] = _to_bytes(scalars, self.name)
        return state

    def _groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's settings, without what it was told here."""
        groups, unsaid = (
            self.optimizer.param_groups if self.optimizer is not None else [],
            dict.fromkeys(self._told),
        )
        return [{k: v for k, v in group.items() if k != "params"} | unsaid for group in groups]

    def _position(self) -> dict[str, Any] | None:
        """Return where the learning-rate schedule stands, and what it was built with."""
        if self.schedule is None:
            return None
        # Mappings (MultiStepLR's milestones) stay as they were built: JSON has no numbers as keys.
        return {
            name: value
            for name, value in self.schedule.state_dict().items()
            if not name.startswith("_get_") and not isinstance(value, Mapping)
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over ``state``, which :meth:`state` of the same segment returned; the tensors become this one's own.

        Raises:
            FrameError: Names, shapes, dtypes or settings differ from this segment's; nothing was taken over.
        """
        weights = {name.removeprefix("weight/"): t for name, t in state.items() if name.startswith("weight/")}
        own = self._weights()
        self._check(weights, own)
        groups, schedule, counted = self._scalars(state)
        slots: list[tuple[int, str, Any]] = [(*self._slot(key), value) for key, value in counted.items()]
        for name, tensor in state.items():
            if name.startswith("slot/"):
                index, slot = self._slot(name.removeprefix("slot/"), tensor)
                # PyTorch's optimizers count steps on the CPU.
                slots.append(
                    (index, slot, tensor if slot == "step" else tensor.to(self.parameters[index].device))
                )
        check_slots(slots, self.spec, self.parameters, self.name, self._tried)
        for name, tensor in weights.items():
            own[name].data = tensor.to(own[name].device)
        if self.optimizer is not None:
            for group, saved in zip(self.optimizer.param_groups, groups, strict=True):
                group.update({k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()})
            self._tell()
            self.optimizer.state.clear()
            for index, slot, value in slots:
                self.optimizer.state[self.parameters[index]][slot] = value
        if self.schedule is not None:
            self.schedule.load_state_dict(schedule)

    def become(self, other: LiveSegment) -> None:
        """Take over copies of another working copy's weights and buffers and its learning rate, no optimizer slots."""
        theirs, own = other._weights(), self._weights()
        for name, tensor in theirs.items():
            own[name].data.copy_(tensor.detach())
        if self.optimizer is not None and other.optimizer is not None:
            self.optimizer.state.clear()
            for group, settings in zip(self.optimizer.param_groups, other._groups(), strict=True):
                group.update(settings)
            self._tell()
        if self.schedule is not None and other.schedule is not None:
            self.schedule.load_state_dict(other.schedule.state_dict())

    def _weights(self) -> State:
        """Parameters and buffers by name, as they are now: a forward may put another tensor in a buffer's place."""
        return dict(self.module.named_parameters()) | dict(self.module.named_buffers())

    def _scalars(self, state: Mapping[str, Tensor]) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
        """Return settings, schedule and counters in ``state``, found to be this segment's."""
        raw = state.get(_SCALARS)
        if raw is None or raw.dtype is not torch.uint8:
            raise FrameError(
                f"the counters of segment {self.name!r} cannot be read", expected="JSON as bytes"
            )
        scalars = read_scalars(raw.cpu().numpy().tobytes(), self.name)
        groups, slots, schedule = scalars.get("groups", []), scalars.get("slots", {}), scalars.get("schedule")
        check_groups(groups, self._groups(), self.schedule is not None, self.name)
        check_schedule(schedule, self._position(), self.name)
        if not isinstance(slots, dict):
            raise FrameError(
                f"the counters of segment {self.name!r} cannot be read", got=type(slots).__name__
            )
        return groups, schedule or {}, slots

    def _slot(self, key: str, tensor: Tensor | None = None) -> tuple[int, str]:
        """Return index of the parameter and name of the slot, by ``index/slot``; the tensor must fit the parameter."""
        number, _, slot = key.partition("/")
        index = int(number) if number.isdecimal() and len(number) < 9 else -1
        if not 0 <= index < len(self.parameters):
            raise FrameError(f"segment {self.name!r} has no parameter number {ascii(number[:40])[1:-1]}")
        shape = self.parameters[index].shape
        fits = tensor is None or (
            tensor.ndim in (0, len(shape))
            and all(a in (1, b) for a, b in zip(tensor.shape, shape, strict=False))
        )
        if tensor is not None and not fits:
            raise FrameError(
                f"the optimizer's {slot!r} of parameter {number} of segment {self.name!r} does not fit",
                got=str(tuple(tensor.shape)),
                expected=str(tuple(shape)),
                todo="both sides must load the same study",
            )
        return index, slot

    def _check(self, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
        if weights.keys() != own.keys():
            wrong = sorted(weights.keys() ^ own.keys())
            raise FrameError(
                f"the state is not one of segment {self.name!r}",
                got=f"differing names {wrong[:5]}",
                todo="both sides must load the same study",
            )
        for name, tensor in weights.items():
            if (tensor.shape, tensor.dtype) != (own[name].shape, own[name].dtype):
                raise FrameError(
                    f"the state of segment {self.name!r} does not fit at {name!r}",
                    got=f"{tensor.dtype} {tuple(tensor.shape)}",
                    expected=f"{own[name].dtype} {tuple(own[name].shape)}",
                    todo="both sides must load the same study",
                )


class Workshop:
    """Where parties get working copies of segments and bring back those they handed over.

    In a simulation all parties share one, so a client that is not on turn keeps no copy of the network.

    Args:
        segments: The graph's segments; their modules hold the initial weights.
        specs: Optimizer by segment.
        device: Where copies run.
        forms: How the modules of some are called.
        privates: How some learn by DP-SGD; such a workshop is one party's own.
    """

    def __init__(
        self,
        segments: Iterable[Segment],
        specs: Mapping[str, OptimizerSpec],
        device: torch.device,
        forms: Mapping[str, Form] | None = None,
        privates: Mapping[str, Private] | None = None,
    ) -> None:
        self._segments = {segment.name: segment for segment in segments}
        self._specs = specs
        self._device = device
        self._forms = forms or {}
        self._privates = privates or {}
        self._free: dict[str, list[LiveSegment]] = {}

    def fresh(self, name: str) -> LiveSegment:
        """Return a copy with the initial weights."""
        return LiveSegment(
            self._segments[name],
            self._specs[name],
            self._device,
            self._forms.get(name),
            self._privates.get(name),
        )

    def compiles(self, name: str) -> bool:
        """Return whether a segment's module is compiled in training."""
        form = self._forms.get(name)
        return form is not None and form.compiled is not None

    def blank(self, name: str) -> LiveSegment:
        """Return a copy whose state is about to be restored."""
        free = self._free.get(name)
        return free.pop() if free else self.fresh(name)

    def bring_back(self, live: LiveSegment) -> None:
        """Give back a copy whose state was handed over; one in a party's own workshop would lie there till its turn."""
        if live.private is None:
            self._free.setdefault(live.name, []).append(live)


def _leaves_open(optimizer: torch.optim.Optimizer | None) -> bool:
    """Return whether PyTorch is to choose how a step runs over several parameters."""
    groups = optimizer.param_groups if optimizer is not None else []
    return all("foreach" in group and group["foreach"] is None and not group.get("fused") for group in groups)


def _to_bytes(scalars: Mapping[str, object], segment: str) -> Tensor:
    try:
        text = json.dumps(scalars)
    except TypeError as error:
        raise StudyError(
            f"the optimizer or learning-rate schedule of segment {segment!r} keeps more than numbers: {error}",
            todo="use one whose state is tensors and numbers",
        ) from error
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
