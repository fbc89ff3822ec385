"""Which way of training is best within limits, and why, in words for somebody who has to decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from ..errors import StudyError, nearest
from ..metering.table import human_bytes, human_flops, human_seconds
from .offers import Offer

__all__ = ["GOALS", "Limits", "choose", "promising", "why"]

GOALS = {
    "time": ("seconds", "takes the least time"),
    "bytes": ("client_bytes", "has the least traffic at a client"),
    "flops": ("client_flops", "asks the least computing of a client"),
    "memory": ("client_memory_bytes", "needs the least memory at a client"),
    "leakage": ("leakage", "leaks the least of the raw rows at the cut"),
}
"""What may be wanted least: the number, and how it is said."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one client may be asked at most, over the whole training; None for no limit.

    Attributes:
        client_flops: Forwards and backwards.
        client_memory_bytes: At a time.
        client_bytes: Sent and received.
        seconds: From beginning to end.
        leakage: Distance correlation of raw rows and what crosses at the first cut, at initial weights.
    """

    client_flops: float | None = None
    client_memory_bytes: float | None = None
    client_bytes: float | None = None
    seconds: float | None = None
    leakage: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.given.items():
            if not value > 0:
                raise StudyError(f"the limit of {name} is a number above 0", got=str(value))

    @property
    def given(self) -> dict[str, float]:
        """The limits that there are."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}

    def broken(self, offer: Offer) -> list[str]:
        """Return the limits that ``offer`` is beyond; what was not measured is not known to hold."""
        return [name for name, most in self.given.items() if not getattr(offer, name) <= most]


def choose(offers: Sequence[Offer], limits: Limits, goal: str) -> Offer | None:
    """Return the offer within ``limits`` that has the least of what is wanted; None if there is none.

    Raises:
        StudyError: Nothing of that name can be wanted, or it was not measured.
    """
    if goal not in GOALS:
        raise StudyError(f"a plan cannot go for {goal!r}", todo=nearest(goal, list(GOALS)))
    number = GOALS[goal][0]
    if all(math.isnan(getattr(o, number)) for o in offers):
        raise StudyError(f"{number} was not measured", todo="give an example of at least 8 rows")
    fitting = [o for o in offers if not limits.broken(o) and not math.isnan(getattr(o, number))]
    return min(fitting, key=lambda o: (getattr(o, number), o.client_flops, o.client_bytes), default=None)


def promising(offers: Sequence[Offer], limits: Limits, goal: str) -> Offer:
    """Return what `choose` does; where nothing keeps the limits, the offer that it would choose without them.

    Raises:
        StudyError: As `choose` does.
    """
    found = choose(offers, limits, goal) or choose(offers, Limits(), goal)
    assert found is not None, "there are offers, and what is wanted was measured in one"
    return found


_WORDS = {
    "client_flops": ("computing of a client", human_flops),
    "client_memory_bytes": ("memory of a client", human_bytes),
    "client_bytes": ("traffic of a client", human_bytes),
    "seconds": ("time", human_seconds),
    "leakage": ("leakage at the cut", "{:.2f}".format),
}


def why(
    best: Offer | None, offers: Sequence[Offer], rivals: Sequence[Offer], limits: Limits, goal: str
) -> str:
    """Return a paragraph that says what was chosen and what it means."""
    if best is None:
        return _nothing(offers, limits)
    held = [_bound(name, most) for name, most in limits.given.items()]
    fitting = sum(not limits.broken(offer) for offer in offers)
    said = f"Of {len(offers)} ways of splitting that were worked out, {fitting} keep within {_list(held)}. "
    said = said if held else f"{len(offers)} ways of splitting were worked out. "
    weights = best.client_parameters + best.server_parameters
    lines = [
        f"{said}We advise {best.name}: it {GOALS[goal][1]}{' of these' if held else ''}.",
        f"A client then holds {best.client_parameters:,} of {weights:,} weights, computes "
        f"{human_flops(best.client_flops)} in the whole training, sends {human_bytes(best.client_sent_bytes)} and "
        f"receives {human_bytes(best.client_received_bytes)}, and needs about "
        f"{human_bytes(best.client_memory_bytes)} of memory; the training takes about {human_seconds(best.seconds)}.",
    ]
    if not math.isnan(best.leakage):
        lines.append(
            f"Before any training, what crosses at the cut has a distance correlation of {best.leakage:.2f} with "
            "the raw rows (0: independent of them, 1: their pattern shows whole); training and defences change that, "
            "and `cutlayer audit` measures what attackers get."
        )
    lines += [_beside(best, other) for other in rivals]
    return " ".join(lines)


def _beside(best: Offer, other: Offer) -> str:
    names = {"fedavg": "Federated averaging", "large_batch": "Large-batch synchronous SGD"}
    computing = _times(other.client_flops, best.client_flops)
    traffic = _times(other.client_bytes, best.client_bytes)
    return (
        f"{names[other.method]} for as many epochs would ask of a client {computing} the computing and {traffic} the "
        f"traffic, and take {human_seconds(other.seconds)}."
    )


def _times(theirs: float, ours: float) -> str:
    if not ours:
        return "any number of times"
    ratio = theirs / ours
    return f"{ratio:.1f} times" if ratio >= 0.1 else f"{ratio:.1%} of"


def _nothing(offers: Sequence[Offer], limits: Limits) -> str:
    """Say that no offer keeps the limits, and how near one comes to each."""
    near = []
    for name, most in limits.given.items():
        known = [getattr(offer, name) for offer in offers if not math.isnan(getattr(offer, name))]
        words, text = _WORDS[name]
        near.append(
            f"{words}: at most {text(most)} is allowed, the least is {text(min(known))}" if known
            else f"{words}: it was not measured, which takes an example of at least 8 rows"
        )  # fmt: skip
    codec = ", or write what crosses with a codec" if {"client_bytes", "seconds"} & set(limits.given) else ""
    return (
        f"None of {len(offers)} ways of splitting keeps within all limits. One by one: {'; '.join(near)}. "
        f"Allow more, or choose another network{codec}."
    )


def _bound(name: str, most: float) -> str:
    words, text = _WORDS[name]
    return f"{text(most)} ({words})"


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
