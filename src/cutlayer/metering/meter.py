"""Counters next to the work: frames where they are made, FLOPs by PyTorch's own counter, time by action."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..graph.flops import flop_counter
from ..wire import Kind
from .events import Computed, Defended, Event, Traffic, Worked

__all__ = ["Meter", "counting"]


class Meter:
    """Counts while a run goes on; :meth:`drain` turns the counts into events and sets them back to zero.

    Whoever counts asks once for the place to count in, a list of integers, and adds to it: that costs
    next to nothing in a training step.
    """

    def __init__(self) -> None:
        self._traffic: dict[tuple[str, str, str, str, str], list[int]] = {}
        self._time: dict[tuple[str, str], list[int]] = {}
        self._compute: dict[tuple[str, str, str], list[int]] = {}
        self._facts: dict[tuple[str, str, str], dict[str, list[float]]] = {}
        self._flops: dict[tuple[str, str], dict[Hashable, int]] = {}

    def traffic(self, phase: str, cut: str, content: Kind, sender: str, receiver: str) -> list[int]:
        """Return the count of frames made, their bytes, and the bytes of the tensors in them."""
        return self._traffic.setdefault((phase, cut, content.name.lower(), sender, receiver), [0, 0, 0])

    def time(self, party: str, op: str) -> list[int]:
        """Return the count of calls and nanoseconds of one kind of action."""
        return self._time.setdefault((party, op), [0, 0])

    def compute(self, party: str, segment: str, direction: str) -> list[int]:
        """Return the count of calls and FLOPs of a segment in one direction."""
        return self._compute.setdefault((party, segment, direction), [0, 0])

    def flops(self, segment: str, direction: str) -> dict[Hashable, int]:
        """Return the FLOPs of one call by the shapes of its inputs, as far as they were counted yet."""
        return self._flops.setdefault((segment, direction), {})

    def facts(self, party: str, cut: str, defence: str) -> dict[str, list[float]]:
        """Return where it is noted what a defence did: by name, a sum and its weight (0 of a count)."""
        return self._facts.setdefault((party, cut, defence), {})

    def drain(self, epoch: int) -> Iterator[Event]:
        """Yield what was counted since the last time."""
        for (phase, cut, content, sender, receiver), count in self._traffic.items():
            if count[0]:
                yield Traffic(
                    epoch=epoch, phase=phase, cut=cut, content=content, sender=sender, receiver=receiver,
                    frames=count[0], frame_bytes=count[1], tensor_bytes=count[2],
                )  # fmt: skip
        for (party, segment, direction), count in self._compute.items():
            if count[0]:
                phase = "evaluation" if direction == "infer" else "training"
                yield Computed(
                    epoch=epoch, phase=phase, party=party, segment=segment, direction=direction,
                    calls=count[0], flops=count[1],
                )  # fmt: skip
        for (party, op), count in self._time.items():
            if count[0]:
                yield Worked(epoch=epoch, party=party, op=op, calls=count[0], seconds=count[1] / 1e9)
        for (party, cut, defence), facts in self._facts.items():
            if facts:
                means = {name: total / weight if weight else total for name, (total, weight) in facts.items()}
                yield Defended(epoch=epoch, party=party, cut=cut, defence=defence, facts=means)
                facts.clear()
        for counts in (self._traffic, self._compute, self._time):
            for count in counts.values():
                count[:] = [0] * len(count)

    def counts(self) -> list[list[object]]:
        """Return what was counted since the last :meth:`drain`, to be written down as JSON."""
        tables: list[tuple[str, Any]] = [
            ("traffic", self._traffic), ("time", self._time), ("compute", self._compute),
        ]  # fmt: skip
        noted = [
            ["facts", *key, name, *pair] for key, facts in self._facts.items() for name, pair in facts.items()
        ]
        return noted + [
            [table, *key, *count] for table, counts in tables for key, count in counts.items() if any(count)
        ]

    def restore(self, counts: Iterable[Sequence[Any]]) -> None:
        """Take up what :meth:`counts` returned."""
        tables: dict[str, tuple[Any, int]] = {
            "traffic": (self._traffic, 5), "time": (self._time, 2), "compute": (self._compute, 3),
        }  # fmt: skip
        for table, *row in counts:
            if table == "facts":
                party, cut, defence, name, *pair = row
                self.facts(party, cut, defence)[name] = pair
                continue
            found, names = tables[table]
            found.setdefault(tuple(row[:names]), [0] * len(row[names:]))[:] = row[names:]


@contextmanager
def counting(known: dict[Hashable, int], shapes: Hashable, count: list[int]) -> Iterator[None]:
    """Count the FLOPs of the work done inside by PyTorch's own counter, and remember them for inputs of ``shapes``."""
    with flop_counter() as counter:
        yield
    known[shapes] = counter.get_total_flops()
    count[1] += known[shapes]
