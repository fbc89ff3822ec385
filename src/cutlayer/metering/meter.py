"""Counters next to the work: frames where they are made, FLOPs by PyTorch's own counter, time by action."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager

from torch.utils.flop_counter import FlopCounterMode

from ..wire import Kind
from .events import Computed, Event, Traffic, Worked

__all__ = ["Meter"]


class Meter:
    """Counts while a run goes on; :meth:`drain` turns the counts into events and starts again at zero.

    FLOPs are counted by running an action under ``torch.utils.flop_counter`` the first time that a
    segment sees inputs of some shape; the same action later on has the same count.
    """

    def __init__(self) -> None:
        self._traffic: dict[tuple[str, str, Kind, str, str], list[int]] = {}
        self._time: dict[tuple[str, str], list[int]] = {}
        self._compute: dict[tuple[str, str, str], list[int]] = {}
        self._flops: dict[Hashable, int] = {}

    def frame(
        self, phase: str, cut: str, content: Kind, sender: str, receiver: str, frame_bytes: int, tensor_bytes: int
    ) -> None:
        """Count a frame that was made."""
        key = (phase, cut, content, sender, receiver)
        count = self._traffic.get(key)
        if count is None:
            count = self._traffic[key] = [0, 0, 0]
        count[0] += 1
        count[1] += frame_bytes
        count[2] += tensor_bytes

    def spent(self, party: str, op: str, nanoseconds: int) -> None:
        """Count time spent by ``party`` in one action."""
        count = self._time.get((party, op))
        if count is None:
            count = self._time[(party, op)] = [0, 0]
        count[0] += 1
        count[1] += nanoseconds

    def compute(
        self, party: str, segment: str, direction: str, shapes: Hashable
    ) -> AbstractContextManager[object] | None:
        """Count the FLOPs of work that is about to be done on inputs of ``shapes``.

        Returns:
            None where the count is known; otherwise the counter, under which the work must be done.
        """
        key = (segment, direction, shapes)
        flops = self._flops.get(key)
        total = self._compute.get((party, segment, direction))
        if total is None:
            total = self._compute[(party, segment, direction)] = [0, 0]
        total[0] += 1
        if flops is None:
            return self._count(key, total)
        total[1] += flops
        return None

    @contextmanager
    def _count(self, key: Hashable, total: list[int]) -> Iterator[None]:
        with FlopCounterMode(display=False) as counter:
            yield
        self._flops[key] = counter.get_total_flops()
        total[1] += self._flops[key]

    def drain(self, epoch: int) -> Iterator[Event]:
        """Yield what was counted since the last time."""
        traffic, self._traffic = self._traffic, {}
        time, self._time = self._time, {}
        compute, self._compute = self._compute, {}
        for (phase, cut, content, sender, receiver), (frames, frame_bytes, tensor_bytes) in traffic.items():
            yield Traffic(
                epoch=epoch, phase=phase, cut=cut, content=content.name.lower(), sender=sender, receiver=receiver,
                frames=frames, frame_bytes=frame_bytes, tensor_bytes=tensor_bytes,
            )  # fmt: skip
        for (party, segment, direction), (calls, flops) in compute.items():
            phase = "evaluation" if direction == "infer" else "training"
            yield Computed(
                epoch=epoch, phase=phase, party=party, segment=segment, direction=direction, calls=calls, flops=flops
            )
        for (party, op), (calls, nanoseconds) in time.items():
            yield Worked(epoch=epoch, party=party, op=op, calls=calls, seconds=nanoseconds / 1e9)
