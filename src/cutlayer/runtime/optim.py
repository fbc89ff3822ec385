"""Optimizers and learning-rate schedules: any of ``torch.optim``, described now and built where a segment lives.

>>> import cutlayer as cl
>>> cl.optim.SGD(lr=0.05, momentum=0.9)
SGD(lr=0.05, momentum=0.9)
>>> cl.optim.Adam(lr=0.01, schedule=cl.optim.StepLR(step_size=10, gamma=0.5))
Adam(lr=0.01, schedule=StepLR(gamma=0.5, step_size=10))
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ..errors import StudyError, nearest

__all__ = ["OptimizerSpec", "ScheduleSpec", "check_optimizer", "optimizer", "optimizer_text"]

_REFUSED = {
    "LBFGS": "it needs to run the whole network several times in one step, over all parties",
    "SparseAdam": "it needs sparse gradients, which do not cross a cut",
    "LambdaLR": "its function cannot be handed over or saved as data",
    "MultiplicativeLR": "its function cannot be handed over or saved as data",
    "ReduceLROnPlateau": "it needs a metric that most parties do not know",
    "SequentialLR": "it holds other schedules; use OneCycleLR or CosineAnnealingWarmRestarts",
    "ChainedScheduler": "it holds other schedules; use OneCycleLR or CosineAnnealingWarmRestarts",
}


@dataclass(frozen=True)
class ScheduleSpec:
    """A learning-rate schedule of ``torch.optim.lr_scheduler`` with its settings."""

    name: str
    settings: tuple[tuple[str, Any], ...]

    def build(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the schedule for ``optimizer``.

        Raises:
            StudyError: PyTorch refuses the settings.
        """
        cls = getattr(torch.optim.lr_scheduler, self.name)
        try:
            made: torch.optim.lr_scheduler.LRScheduler = cls(optimizer, **dict(self.settings))
        except (ValueError, TypeError, RuntimeError, KeyError) as error:
            raise StudyError(
                f"PyTorch refuses {self!r}: {error}", todo="correct the schedule's settings"
            ) from error
        return made

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.settings)})"


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer of ``torch.optim`` with its settings.

    Attributes:
        name: Its class's name.
        settings: Its keyword arguments.
        schedule: How the learning rate changes.
        every: Whether the schedule moves on after each ``"epoch"`` or each ``"step"``.
    """

    name: str
    settings: tuple[tuple[str, Any], ...]
    schedule: ScheduleSpec | None = None
    every: Literal["epoch", "step"] = "epoch"

    def __post_init__(self) -> None:
        if self.every not in ("epoch", "step"):
            raise StudyError(f"every={self.every!r}", todo=nearest(self.every, ["epoch", "step"]))

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer for ``parameters``.

        Raises:
            StudyError: PyTorch refuses the settings.
        """
        try:
            made: torch.optim.Optimizer = getattr(torch.optim, self.name)(
                list(parameters), **dict(self.settings)
            )
        except (ValueError, TypeError, RuntimeError) as error:
            raise StudyError(
                f"PyTorch refuses {self!r}: {error}", todo="correct the optimizer's settings"
            ) from error
        return made

    def __repr__(self) -> str:
        words = [f"{k}={v!r}" for k, v in self.settings]
        if self.schedule is not None:
            words.append(f"schedule={self.schedule!r}")
            if self.every != "epoch":
                words.append(f"every={self.every!r}")
        return f"{self.name}({', '.join(words)})"


def optimizer(name: str, **settings: Any) -> OptimizerSpec:
    """Return the optimizer ``name`` of ``torch.optim``; the words of ``cutlayer.optim.SGD(lr=0.1)`` as a function.

    Args:
        name: For example ``"SGD"``, ``"Adam"``, ``"AdamW"``.
        settings: Its keyword arguments; besides them ``schedule`` (a learning-rate schedule of this
            module) and ``every`` (``"epoch"`` or ``"step"``).

    Raises:
        StudyError: An unknown name or setting, or an optimizer that cannot work over a cut.
    """
    known = _names(torch.optim, torch.optim.Optimizer)
    _refuse(name, known)
    schedule, every = settings.pop("schedule", None), settings.pop("every", "epoch")
    if schedule is not None and not isinstance(schedule, ScheduleSpec):
        raise StudyError(
            "schedule= wants a learning-rate schedule",
            got=repr(schedule),
            expected="e.g. optim.StepLR(step_size=10)",
        )
    _check_settings(
        getattr(torch.optim, name), settings, skip={"params", "differentiable"}, extra={"schedule", "every"}
    )
    spec = OptimizerSpec(name, tuple(sorted(settings.items())), schedule, every)
    _try(spec)
    return spec


def check_optimizer(given: object, segment: str | None = None) -> None:
    """Refuse what is no optimizer of this module.

    Args:
        given: What somebody gave as an optimizer.
        segment: The segment it is for, or none for all.

    Raises:
        StudyError: It is one of ``torch.optim``, a name, or something else.
    """
    if isinstance(given, OptimizerSpec):
        return
    cls = given if inspect.isclass(given) else type(given)
    theirs = issubclass(cls, torch.optim.Optimizer)
    raise StudyError(
        f"that is no optimizer for segment {segment!r}" if segment else "that is no optimizer",
        got=f"torch.optim.{cls.__name__}" if theirs else repr(given),
        expected=f"e.g. cutlayer.optim.{cls.__name__ if theirs else 'Adam'}(lr=0.01)",
        todo="give settings, not parameters: each party builds its own optimizer",
    )


def lr_schedule(name: str, **settings: Any) -> ScheduleSpec:
    """Return the learning-rate schedule ``name`` of ``torch.optim.lr_scheduler``.

    Raises:
        StudyError: An unknown name or setting, or a schedule that cannot be handed over as data.
    """
    known = _names(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler)
    _refuse(name, known)
    _check_settings(getattr(torch.optim.lr_scheduler, name), settings, skip={"optimizer"}, extra=set())
    spec = ScheduleSpec(name, tuple(sorted(settings.items())))
    _try(OptimizerSpec("SGD", (("lr", 0.1), ("momentum", 0.9)), spec))
    return spec


def __getattr__(name: str) -> Any:  # an OptimizerSpec or a ScheduleSpec, by the name asked for
    import functools

    if name.startswith("_"):
        raise AttributeError(name)
    if name in _names(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler):
        return functools.partial(lr_schedule, name)
    known = _names(torch.optim, torch.optim.Optimizer)
    if name not in known:
        raise AttributeError(f"torch.optim has no {name!r}; {nearest(name, known)}")
    return functools.partial(optimizer, name)


def _names(module: Any, base: type) -> list[str]:
    return [
        n for n, c in vars(module).items() if inspect.isclass(c) and issubclass(c, base) and c is not base
    ]


def _refuse(name: str, known: list[str]) -> None:
    if name in _REFUSED:
        raise StudyError(f"{name} does not work in split learning: {_REFUSED[name]}")
    if name not in known:
        raise StudyError(f"torch.optim has no {name!r}", todo=nearest(name, known))


def _check_settings(cls: type, settings: dict[str, Any], *, skip: set[str], extra: set[str]) -> None:
    theirs = inspect.signature(cls).parameters
    known = (set(theirs) - skip) | extra
    for name, value in settings.items():
        if name not in known:
            raise StudyError(f"{cls.__name__} has no setting {name!r}", todo=nearest(name, known))
        if isinstance(value, str) and name in theirs and isinstance(theirs[name].default, int | float):
            raise StudyError(
                f"{name} of {cls.__name__} is a number",
                got=repr(value),
                expected=f"for example {theirs[name].default}",
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise StudyError(f"{cls.__name__} needs numbers", got=f"{name}={value}")


def _try(spec: OptimizerSpec) -> None:
    """Build it once for a parameter of no meaning, so that wrong settings are found where they are written."""
    built = spec.build([nn.Parameter(torch.zeros(1, 1))])
    if spec.schedule is not None:
        spec.schedule.build(built)


def optimizer_text(optimizer: OptimizerSpec | Mapping[str, OptimizerSpec]) -> str:
    """Return one optimizer, or that of each segment, in words."""
    if isinstance(optimizer, OptimizerSpec):
        return repr(optimizer)
    return ", ".join(f"{name}: {spec!r}" for name, spec in optimizer.items())
