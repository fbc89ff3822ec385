"""What another party's state may hold: the settings of the study, where its schedule stands, the optimizer's slots."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from ..errors import FrameError
from .optim import OptimizerSpec

__all__ = ["check_groups", "check_schedule", "check_slots", "read_scalars"]

_NAMES = {"groups", "slots", "schedule"}
_MOST_BYTES = 2**20
_MOST = 2.0**53
_MOVED = {"lr": _MOST, "momentum": 1.0, "betas": 1.0}
"""Settings of an optimizer that a learning-rate schedule changes: from 0 to below this."""
_MOVING = dict.fromkeys(("last_epoch", "_step_count", "_last_lr", "T_cur", "T_i"), _MOST)
"""What a learning-rate schedule keeps of where it stands; all else it was built with."""


def read_scalars(raw: bytes, segment: str) -> dict[str, Any]:
    """Return the counters and settings in ``raw``: JSON, one object, of finite numbers.

    Raises:
        FrameError: They are something else.
    """
    try:
        if len(raw) > _MOST_BYTES:
            raise ValueError(f"{len(raw)} bytes")
        scalars = json.loads(raw, parse_constant=_refuse)
        if not isinstance(scalars, dict) or scalars.keys() - _NAMES:
            raise ValueError("not an object with these names alone: groups, slots, schedule")
    except (ValueError, RecursionError) as error:
        raise FrameError(
            f"the counters of segment {segment!r} cannot be read",
            got=f"{type(error).__name__}: {str(error)[:100]}",
        ) from error
    return scalars


def check_groups(groups: object, own: Sequence[Mapping[str, Any]], scheduled: bool, segment: str) -> None:
    """Refuse settings that are not this study's; a schedule changes those that it is there to change.

    Raises:
        FrameError: They differ.
    """
    moved = _MOVED if scheduled else {}
    if not isinstance(groups, list) or len(groups) != len(own):
        raise _other_settings(segment)
    if not all(_agree(came, mine, moved) for came, mine in zip(groups, own, strict=True)):
        raise _other_settings(segment)


def check_schedule(schedule: object, own: Mapping[str, Any] | None, segment: str) -> None:
    """Refuse a schedule that is not this study's; it may stand elsewhere.

    Raises:
        FrameError: They differ.
    """
    if (schedule is None) != (own is None) or (own is not None and not _agree(schedule, own, _MOVING)):
        raise _other_settings(segment)


def check_slots(
    slots: Iterable[tuple[int, str, object]],
    spec: OptimizerSpec,
    parameters: Sequence[nn.Parameter],
    segment: str,
    tried: dict[tuple[torch.Size, torch.dtype], dict[str, object]],
) -> None:
    """Refuse slots other than those that a step with ``spec`` leaves: for each parameter all, or none yet.

    Args:
        slots: Parameter's number, slot's name and value.
        spec: The optimizer.
        parameters: The segment's.
        segment: Its name.
        tried: What a step leaves by shape and dtype; filled here, to be given again.

    Raises:
        FrameError: One is missing, unknown, or of another shape or dtype.
    """
    came: dict[int, dict[str, object]] = {}
    for index, name, value in slots:
        if (not isinstance(value, Tensor) and not _number(value)) or name in came.get(index, ()):
            raise _other_settings(segment)
        came.setdefault(index, {})[name] = value
    for index, found in came.items():
        parameter = parameters[index]
        key = parameter.shape, parameter.dtype
        if key not in tried:
            tried[key] = _slots_of(spec, parameter)
        expected = tried[key]
        wrong = [n for n in found.keys() | expected.keys() if not _fits(n, found.get(n), expected.get(n))]
        if wrong:
            raise FrameError(
                f"the optimizer's {min(wrong)!r} of parameter {index} of segment {segment!r} does not fit",
                got=_said(found.get(min(wrong))),
                expected=_said(expected.get(min(wrong))),
                todo="both sides must load the same study",
            )


def _slots_of(spec: OptimizerSpec, parameter: nn.Parameter) -> dict[str, object]:
    """Return what the optimizer keeps for such a parameter, found by a step on zeros."""
    trial = nn.Parameter(torch.zeros_like(parameter, device="cpu"))
    trial.grad = torch.zeros_like(trial)
    optimizer = spec.build([trial])
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)
    return dict(optimizer.state.get(trial, {}))


def _fits(name: str, came: object, expected: object) -> bool:
    if isinstance(came, Tensor) and isinstance(expected, Tensor):
        alike = came.shape == expected.shape and came.dtype == expected.dtype
        return alike and (name != "step" or 0 <= came.item() < _MOST)
    return _number(came) and _number(expected) and (name != "step" or came >= 0)


def _agree(came: object, own: Mapping[str, Any], moving: Mapping[str, float]) -> bool:
    """Whether two objects of JSON are the same but for numbers that move."""
    if not isinstance(came, dict) or came.keys() != own.keys():
        return False
    return all(_alike(came[name], value, moving.get(name)) for name, value in own.items())


def _alike(came: object, own: object, most: float | None) -> bool:
    """Whether a value of JSON is one's own; one that moves, from 0 to below ``most``, need not be."""
    if isinstance(own, list | tuple):
        return (
            isinstance(came, list)
            and len(came) == len(own)
            and all(_alike(a, b, most) for a, b in zip(came, own, strict=True))
        )
    if _number(own):
        return _number(came) and (came == own or (most is not None and 0 <= came < most))
    return type(came) is type(own) and came == own


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _said(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return "nothing" if value is None else "a number"


def _other_settings(segment: str) -> FrameError:
    return FrameError(
        f"the optimizer's settings are not those of segment {segment!r}",
        todo="both sides must load the same study",
    )
