"""A segment at work: module, optimizer and learning-rate schedule, and their state as plain tensors and numbers."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..errors import FrameError, StudyError
from ..graph.parts import Segment
from .optim import OptimizerSpec

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
    """

    def __init__(self, segment: Segment, spec: OptimizerSpec, device: torch.device) -> None:
        self.name = segment.name
        self.spec = spec
        self.module = copy.deepcopy(segment.module).to(device)
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer = spec.build(self.parameters) if self.parameters else None
        self.schedule = spec.schedule.build(self.optimizer) if self.optimizer and spec.schedule else None
        self._weights: State = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
        self.training = self.module.training

    def mode(self, training: bool) -> None:
        """Put the module in training or evaluation mode."""
        if self.training is not training:
            self.module.train(training)
            self.training = training

    def step(self) -> None:
        """Do the optimizer's step and forget the gradients."""
        if self.optimizer is None:
            return
        self.optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None
        if self.schedule is not None and self.spec.every == "step":
            self.schedule.step()

    def advance(self) -> None:
        """Move the learning-rate schedule on by one epoch."""
        if self.schedule is not None and self.spec.every == "epoch":
            self.schedule.step()

    def weights(self) -> State:
        """Return copies of parameters and buffers by their names in the module."""
        return {name: tensor.detach().clone() for name, tensor in self._weights.items()}

    def state(self) -> State:
        """Return weights, buffers, optimizer slots and counters; the tensors are not copied."""
        state: State = {f"weight/{name}": tensor.detach() for name, tensor in self._weights.items()}
        scalars: dict[str, object] = {}
        if self.optimizer is not None:
            scalars["groups"] = [
                {k: v for k, v in g.items() if k != "params"} for g in self.optimizer.param_groups
            ]
            slots: dict[str, object] = {}
            for index, parameter in enumerate(self.parameters):
                for slot, value in self.optimizer.state.get(parameter, {}).items():
                    if isinstance(value, Tensor):
                        state[f"slot/{index}/{slot}"] = value
                    else:
                        slots[f"{index}/{slot}"] = value
            scalars["slots"] = slots
        if self.schedule is not None:
            scalars["schedule"] = {
                k: v for k, v in self.schedule.state_dict().items() if not k.startswith("_get_")
            }
        state[_SCALARS] = _to_bytes(scalars, self.name)
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over ``state``, which :meth:`state` of the same segment returned; the tensors become this one's own.

        Raises:
            FrameError: Names, shapes or dtypes differ from this segment's.
        """
        weights = {name.removeprefix("weight/"): t for name, t in state.items() if name.startswith("weight/")}
        self._check(weights)
        for name, tensor in weights.items():
            self._weights[name].data = tensor.to(self._weights[name].device)
        scalars = json.loads(bytes(state[_SCALARS].cpu().numpy()))
        if self.optimizer is not None:
            for group, saved in zip(self.optimizer.param_groups, scalars["groups"], strict=True):
                group.update({k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()})
            self.optimizer.state.clear()
            for key, value in scalars["slots"].items():
                self._slot(key)[key.partition("/")[2]] = value
            for name, tensor in state.items():
                if name.startswith("slot/"):
                    key = name.removeprefix("slot/")
                    self._slot(key)[key.partition("/")[2]] = tensor
        if self.schedule is not None:
            self.schedule.load_state_dict(scalars["schedule"])

    def _slot(self, key: str) -> dict[str, object]:
        """Return the optimizer's slots of the parameter that ``index/slot`` names."""
        index = int(key.partition("/")[0])
        if not 0 <= index < len(self.parameters) or self.optimizer is None:
            raise FrameError(f"segment {self.name!r} has no parameter number {index}")
        slots: dict[str, object] = self.optimizer.state[self.parameters[index]]
        return slots

    def _check(self, weights: Mapping[str, Tensor]) -> None:
        if weights.keys() != self._weights.keys():
            wrong = sorted(weights.keys() ^ self._weights.keys())
            raise FrameError(
                f"the state is not one of segment {self.name!r}",
                got=f"differing names {wrong[:5]}",
                todo="both sides must load the same study",
            )
        for name, tensor in weights.items():
            own = self._weights[name]
            if (tensor.shape, tensor.dtype) != (own.shape, own.dtype):
                raise FrameError(
                    f"the state of segment {self.name!r} does not fit at {name!r}",
                    got=f"{tensor.dtype} {tuple(tensor.shape)}",
                    expected=f"{own.dtype} {tuple(own.shape)}",
                    todo="both sides must load the same study",
                )


class Workshop:
    """Where parties get working copies of segments and bring back those they handed over.

    In a simulation all parties share one, so a client that is not on turn keeps no copy of the network.

    Args:
        segments: The graph's segments; their modules hold the initial weights.
        specs: Optimizer by segment.
        device: Where copies run.
    """

    def __init__(
        self, segments: Iterable[Segment], specs: Mapping[str, OptimizerSpec], device: torch.device
    ) -> None:
        self._segments = {segment.name: segment for segment in segments}
        self._specs = specs
        self._device = device
        self._free: dict[str, list[LiveSegment]] = {}

    def fresh(self, name: str) -> LiveSegment:
        """Return a copy with the initial weights."""
        return LiveSegment(self._segments[name], self._specs[name], self._device)

    def blank(self, name: str) -> LiveSegment:
        """Return a copy whose state is about to be restored."""
        free = self._free.get(name)
        return free.pop() if free else self.fresh(name)

    def bring_back(self, live: LiveSegment) -> None:
        """Give back a copy whose state was handed over."""
        self._free.setdefault(live.name, []).append(live)


def _to_bytes(scalars: Mapping[str, object], segment: str) -> Tensor:
    try:
        text = json.dumps(scalars)
    except TypeError as error:
        raise StudyError(
            f"the optimizer or learning-rate schedule of segment {segment!r} keeps more than numbers: {error}",
            todo="use one whose state is tensors and numbers",
        ) from error
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
