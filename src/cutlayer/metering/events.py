"""What a run notes down: typed events, each one line of JSON in the run's log."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import LogError
from .merging import Figures, Sums, fits

if TYPE_CHECKING:
    from ..graph.parts import Segment

__all__ = [
    "Began", "Computed", "Defended", "Ended", "EpochEnded", "Event", "Measured", "Noted", "Placed", "Traffic", "Worked",
    "decode_event", "encode_event",
]  # fmt: skip

MOST = 10**30
"""Whole numbers in a log are smaller, so that sums of them are numbers of a machine."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events."""

    kind: ClassVar[str] = "event"


@dataclass(frozen=True, kw_only=True)
class Began(Event):
    """A run began: what was agreed on.

    The log is that of ``party``, of its own part only; of everybody's in a simulation, where it is empty.
    """

    kind: ClassVar[str] = "began"
    name: str
    study: str
    digest: str
    seed: int
    epochs: int
    batch_size: int
    schedule: str
    optimizer: str
    parties: Mapping[str, str]
    graph: str
    mermaid: str
    svg: str
    disclosures: Mapping[str, str]
    holdings: str
    versions: Mapping[str, str]
    started: str
    data: str = ""
    party: str = ""


@dataclass(frozen=True, kw_only=True)
class Placed(Event):
    """A segment's size and place, which all parties know from the study."""

    kind: ClassVar[str] = "placed"
    segment: str
    role: str
    parameters: int
    trainable: int
    state_bytes: int

    @classmethod
    def of(cls, segment: Segment) -> Placed:
        """Return size and place of ``segment``."""
        parameters = list(segment.module.parameters())
        state = [*parameters, *segment.module.buffers()]
        return cls(
            segment=segment.name,
            role=segment.role,
            parameters=sum(p.numel() for p in parameters),
            trainable=sum(p.numel() for p in parameters if p.requires_grad),
            state_bytes=sum(t.nbytes for t in state),
        )


@dataclass(frozen=True, kw_only=True)
class Traffic(Event):
    """Frames that went over one cut in one direction since the last such event, counted where they were made."""

    kind: ClassVar[str] = "traffic"
    epoch: int
    phase: str
    cut: str
    content: str
    sender: str
    receiver: str
    frames: int
    frame_bytes: int
    tensor_bytes: int


@dataclass(frozen=True, kw_only=True)
class Computed(Event):
    """FLOPs of one segment at one party since the last such event, by PyTorch's own counter."""

    kind: ClassVar[str] = "computed"
    epoch: int
    phase: str
    party: str
    segment: str
    direction: str
    calls: int
    flops: int


@dataclass(frozen=True, kw_only=True)
class Worked(Event):
    """Time that a party spent in one kind of action since the last such event."""

    kind: ClassVar[str] = "worked"
    epoch: int
    party: str
    op: str
    calls: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Defended(Event):
    """What a defence did, or what was measured of a leak, at one party and cut in one epoch."""

    kind: ClassVar[str] = "defended"
    epoch: int
    party: str
    cut: str
    defence: str
    facts: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class EpochEnded(Event):
    """An epoch of training is done."""

    kind: ClassVar[str] = "epoch_ended"
    epoch: int
    steps: int
    rows: int
    losses: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Measured(Event):
    """Metrics over all of one label holder's rows of a split.

    Its sums, from which the metrics of several holders are merged, come with :class:`.merging.Figures` if
    none are given; logs of earlier versions have none.
    """

    kind: ClassVar[str] = "measured"
    epoch: int
    split: str
    loss: str
    party: str
    rows: int
    metrics: Mapping[str, float]
    sums: Sums = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.sums and isinstance(self.metrics, Figures):
            object.__setattr__(self, "sums", self.metrics.sums)
        if not fits(self.sums):
            raise ValueError("sums that do not fit their metrics")


@dataclass(frozen=True, kw_only=True)
class Noted(Event):
    """Something a reader of the run should know, e.g. a comparison with the central twin."""

    kind: ClassVar[str] = "noted"
    subject: str
    text: str
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Ended(Event):
    """The run ended."""

    kind: ClassVar[str] = "ended"
    reason: str
    epochs: int
    best_epoch: int
    seconds: float
    peak_memory_bytes: int


_KINDS: dict[str, type[Event]] = {
    cls.kind: cls
    for cls in (Began, Placed, Traffic, Computed, Worked, Defended, EpochEnded, Measured, Noted, Ended)
}


def encode_event(event: Event) -> str:
    """Return ``event`` as one line of JSON."""
    fields = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
    return json.dumps({"event": event.kind, **fields}, default=dict, ensure_ascii=False)


def decode_event(line: str) -> Event:
    """Return the event in ``line``.

    Raises:
        LogError: The line is not JSON, not an event that this version knows, or a field is not of its type.
    """
    try:
        fields: dict[str, Any] = json.loads(line)
        kind = _KINDS[fields.pop("event")]
        _check(kind, fields)
        return kind(**fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f" ({error})" if isinstance(error, _FieldError) else ""
        raise LogError(
            f"not an event of a run log{why}: {line[:80]!r}",
            todo="the line was damaged, or written by a newer version",
        ) from error


class _FieldError(ValueError):
    """A field's value is not of its type."""


def _check(kind: type[Event], fields: Mapping[str, object]) -> None:
    """Raise if a field holds what its annotation does not allow: the log may have been damaged."""
    for field_ in dataclasses.fields(kind):
        if field_.name in fields and not _CHECKS[str(field_.type)](fields[field_.name]):
            raise _FieldError(f"its {field_.name} should be {_WORDS[str(field_.type)]}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MOST


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_count(value)


def _is_mapping_of(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(_is_text(k) and check(v) for k, v in value.items())


def _is_list_of(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(check, value))


_CHECKS: dict[str, Callable[[object], bool]] = {
    "str": _is_text,
    "int": _is_count,
    "float": _is_number,
    "Mapping[str, str]": _is_mapping_of(_is_text),
    "Mapping[str, float]": _is_mapping_of(_is_number),
    "Sums": _is_mapping_of(_is_list_of(_is_list_of(_is_number))),
}
_WORDS = {
    "str": "text", "int": "a whole number", "float": "a number", "Mapping[str, str]": "texts by name",
    "Mapping[str, float]": "numbers by name", "Sums": "lists of numbers by metric",
}  # fmt: skip
