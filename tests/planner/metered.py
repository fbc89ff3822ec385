"""What meters counted, summed up so that two accounts can be compared event by event."""

from __future__ import annotations

from collections import Counter

from cutlayer.metering.events import Computed, Placed, Traffic


def counted(events):
    """Return the sums of traffic, compute and places by everything that tells them apart."""
    sums = Counter()
    for e in events:
        if isinstance(e, Traffic):
            key = (e.epoch, e.phase, e.cut, e.content, e.sender, e.receiver)
            sums.update(
                {(*key, "frames"): e.frames, (*key, "bytes"): e.frame_bytes, (*key, "in"): e.tensor_bytes}
            )
        elif isinstance(e, Computed):
            key = (e.epoch, e.phase, e.party, e.segment, e.direction)
            sums.update({(*key, "calls"): e.calls, (*key, "flops"): e.flops})
        elif isinstance(e, Placed):
            sums[e.segment, "state"] += e.state_bytes
    return sums
