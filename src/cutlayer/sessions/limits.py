"""What a study's parties may send at most, read off its graph."""

from __future__ import annotations

from ..study import Study
from ..transports.network import NetworkSettings

__all__ = ["settings_for"]

_UNKNOWN_BYTES = 1 << 30
_ROOM = 1 << 20
_SLOTS = 4  # a weight, its two moments with Adam, and AMSGrad's third


def settings_for(study: Study, max_frame_mb: int | None = None, *, carrier: str = "tls") -> NetworkSettings:
    """Return the network's settings for ``study``: no frame is longer than its cuts and hand-overs need.

    Args:
        study: What is trained.
        max_frame_mb: The longest frame in MiB, where the study says it; otherwise it is worked out from the shapes
            at the cuts, and is 1 GiB where these are not known.
        carrier: How parties connect.
    """
    longest = max_frame_mb << 20 if max_frame_mb is not None else _longest_frame(study)
    return NetworkSettings(max_frame_bytes=longest, carrier=carrier)


def _longest_frame(study: Study) -> int:
    """Return how many bytes a frame of ``study`` may have."""
    graph = study.graph
    rows = max(study.batch_size, study.course([]).calendar.evaluation_batch_size)
    longest = 0
    for cut in graph.cuts:
        if any(spec is None for spec in cut.specs):
            return _UNKNOWN_BYTES
        # Labels may ride along with activations that go the same way.
        longest = max(longest, 2 * rows * sum(spec.sample_bytes for spec in cut.specs if spec is not None))
    for role in graph.roles.values():
        state = [
            t for s in graph.segments_of(role.name) for t in (*s.module.parameters(), *s.module.buffers())
        ]
        if len(role.parties) > 1:
            longest = max(longest, _SLOTS * sum(tensor.nbytes for tensor in state))
    return longest + _ROOM
