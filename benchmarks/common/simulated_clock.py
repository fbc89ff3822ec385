"""How long a schedule would take between hosts: its program, walked through with a clock for each party.

Each action takes what it takes on that party: arithmetic by its FLOPs, a frame by its bytes on the sender's own link
and the link's delay. A party does one thing at a time; frames travel meanwhile. What an action needs is the mean of
what the same action needed in a simulated run, by its log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cutlayer.metering.events import Computed, Event, Traffic
from cutlayer.schedules import Op, Program

__all__ = ["Hosts", "Needs", "walk"]

_DIRECTIONS = {Op.FORWARD: "forward", Op.BACKWARD: "backward", Op.INFER: "infer"}
_SENT = (Op.SEND, Op.GIVE, Op.COPY, Op.REPORT, Op.TELL)
_RECEIVED = (Op.RECEIVE, Op.TAKE, Op.NOTE, Op.HEAR)


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """What hosts and links are like.

    Attributes:
        client_flops: FLOPs a second of a client.
        server_flops: FLOPs a second of everybody else.
        delay_s: One way, seconds.
        mbit: Mbit/s of each party's link to each other.
    """

    client_flops: float = 20e9
    server_flops: float = 200e9
    delay_s: float = 0.02
    mbit: float = 100.0


class Needs:
    """What actions needed in a run, in the mean of each kind.

    Args:
        events: The run's log.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        self._flops: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
        self._bytes: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
        for event in events:
            if isinstance(event, Computed):
                one = self._flops[event.party, event.segment, event.direction]
                one[0], one[1] = one[0] + event.flops, one[1] + event.calls
            elif isinstance(event, Traffic) and event.phase != "evaluation":
                kind = "state" if event.content == "handover" else event.content
                for where in ((kind, event.cut, event.sender, event.receiver), (kind, event.cut)):
                    one = self._bytes[where]
                    one[0], one[1] = one[0] + event.frame_bytes, one[1] + event.frames

    def flops(self, party: str, segment: str, direction: str) -> float:
        """Return the FLOPs of one call."""
        total, calls = self._flops[party, segment, direction]
        return total / max(calls, 1)

    def frame_bytes(self, what: str, sender: str, receiver: str) -> float:
        """Return the bytes of a frame over the cuts ``what``, or of a state of the role ``what``."""
        total = 0.0
        for part in what.split("+"):
            kinds = (("gradient", part.replace("<-", "->")),) if "<-" in part else (
                ("activation", part), ("label", part), ("state", f"hand-over of {part}")
            )  # fmt: skip
            for kind in kinds:
                size, frames = self._bytes[*kind, sender, receiver]
                if not frames:
                    size, frames = self._bytes[kind]
                total += size / max(frames, 1)
        return total


def walk(program: Program, needs: Needs, hosts: Hosts, clients: Sequence[str]) -> float:
    """Return when everybody is done, in seconds."""
    clock: defaultdict[str, float] = defaultdict(float)
    link_free: defaultdict[tuple[str, str], float] = defaultdict(float)
    arrivals: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for action in program:
        party, what = action.party, action.what.partition("#")[0].partition("*")[0]
        if direction := _DIRECTIONS.get(action.op):
            speed = hosts.client_flops if party in clients else hosts.server_flops
            clock[party] += needs.flops(party, what, direction) / speed
        elif action.op in _SENT:
            way = (party, action.peer)
            size = needs.frame_bytes(what, *way)
            link_free[way] = max(link_free[way], clock[party]) + size * 8e-6 / hosts.mbit
            arrivals[way].append(link_free[way] + hosts.delay_s)
        elif action.op in _RECEIVED:
            clock[party] = max(clock[party], arrivals[action.peer, party].pop(0))
    return max(clock.values(), default=0.0)
