"""From a run's events to its tables: what crossed each cut, what it cost whom, how well it learned.

All functions are pure: the same events give the same tables, whether they come from a run that is going
on or from its log years later.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from .events import Began, Computed, Ended, Event, Placed, Traffic, Worked
from .learned import averaged_metrics, losses, measured, merged_metrics, metrics
from .protection import protection
from .reading import Kind, all_of, ended_epochs, finished, last, viewer
from .table import UNKNOWN, Cell, Table, human_bytes, human_flops, human_seconds

__all__ = [
    "Table", "averaged_metrics", "compute", "finished", "human_bytes", "human_flops", "human_seconds", "last", "losses",
    "merged_metrics", "metrics", "parameters", "parties", "phase_of", "summary", "tables", "time", "traffic",
]  # fmt: skip

SHOWN_PARTIES = 8
PHASES = ("training", "evaluation", "hand-over", "prediction")

Row = tuple[Cell, ...]


def tables(events: Sequence[Event], *, every_party: bool = False) -> dict[str, Table]:
    """Return all tables of a run by name.

    Args:
        events: The run's log, whole or as far as it got.
        every_party: List each party, also where more than eight fill one role; otherwise such a role is
            one row with its total and the most by one party.
    """
    return {
        "summary": summary(events),
        "metrics": metrics(events),
        "losses": losses(events),
        "protection": protection(events),
        "traffic": traffic(events, every_party=every_party),
        "parties": parties(events, every_party=every_party),
        "compute": compute(events, every_party=every_party),
        "parameters": parameters(events),
        "time": time(events, every_party=every_party),
    }


def phase_of(event: Traffic) -> str:
    """Return what a frame was for: training, evaluation or hand-over."""
    return "hand-over" if event.content == "handover" else event.phase


class _Crowds:
    """Knows which parties are too many to be listed, and what to call them together."""

    def __init__(self, events: Sequence[Event], every_party: bool) -> None:
        began = last(events, Began)
        self.roles = dict(began.parties) if began else {}
        self.viewer = viewer(events)
        self.sizes = Counter(role for party, role in self.roles.items() if party != self.viewer)
        self.every_party = every_party

    def name(self, party: str) -> str:
        """Return the party's name, or its role's with the number of parties."""
        role = self.roles.get(party, "")
        listed = self.every_party or self.sizes[role] <= SHOWN_PARTIES
        if listed or not role or party == self.viewer:
            return party
        return f"{role} ({self.sizes[role]} parties)"

    def order(self, name: str) -> int:
        """Return where a name stands: parties as the study lists them, others last."""
        return self._places.get(name, len(self._places))

    @cached_property
    def _places(self) -> dict[str, int]:
        names = dict.fromkeys(self.name(party) for party in self.roles)
        return {name: place for place, name in enumerate(names)}


class _Sums:
    """Adds up numbers by key, and within each key by party, to know the most by one."""

    def __init__(self) -> None:
        self.totals: dict[tuple[str, ...], defaultdict[str, Any]] = {}
        self.single: dict[tuple[str, ...], defaultdict[str, Any]] = {}

    def add(self, key: tuple[str, ...], who: str, single: float, **amounts: float) -> None:
        """Add ``amounts`` to ``key``, of which ``single`` counts for ``who``."""
        total = self.totals.setdefault(key, defaultdict(int))
        for name, amount in amounts.items():
            total[name] += amount
        self.single.setdefault(key, defaultdict(int))[who] += single

    def most(self, key: tuple[str, ...]) -> Cell:
        """Return the most by one, if the key stands for several."""
        return max(self.single[key].values()) if len(self.single[key]) > 1 else None


def _table(title: str, columns: tuple[str, ...], rows: list[Row], unit: str, note: str = "") -> Table:
    """Build a table whose rows end with the most by one party, a column that goes where no row needs it."""
    if any(row[-1] is not None for row in rows):
        columns = (*columns, f"most by one ({unit})")
    else:
        rows = [row[:-1] for row in rows]
    return Table(title=title, columns=columns, rows=tuple(rows), note=note)


# Tables


def traffic(events: Sequence[Event], *, every_party: bool = False) -> Table:
    """Return frames and bytes by phase, cut and direction, from whom to whom."""
    crowds, sums = _Crowds(events, every_party), _Sums()
    for e in all_of(events, Traffic):
        cut = re.sub(r"/\d+$", "", e.cut)  # metrics/3 of each epoch together
        key = (phase_of(e), cut, e.content, crowds.name(e.sender), crowds.name(e.receiver))
        sums.add(
            key, f"{e.sender} {e.receiver}", e.frame_bytes,
            frames=e.frames, frame_bytes=e.frame_bytes, tensor_bytes=e.tensor_bytes,
        )  # fmt: skip
    rows: list[Row] = []
    for group in sorted(sums.totals, key=lambda group: (*PHASES, group[0]).index(group[0])):
        total = sums.totals[group]
        sealed = group[0] == "hand-over" and not total["tensor_bytes"]
        overhead = UNKNOWN if sealed else _overhead(total["frame_bytes"], total["tensor_bytes"])
        counts = total["frames"], total["frame_bytes"], total["tensor_bytes"]
        rows.append((*group, *counts, overhead, sums.most(group)))
    places = ("phase", "cut", "content", "from", "to")
    columns = (*places, "frames", "frame bytes", "tensor bytes", "overhead (%)")
    note = (
        "Counted where frames are made. Overhead: bytes of a frame that are no tensor, by its tensor bytes."
    )
    if any(row[columns.index("overhead (%)")] == UNKNOWN for row in rows):
        note += (
            f" {UNKNOWN}: a relay passes sealed hand-overs on and cannot tell how much in them is tensors."
        )
    return _table("Traffic by cut", columns, rows, "frame bytes", note)


def _overhead(frame_bytes: int, tensor_bytes: int) -> float | None:
    return 100 * (frame_bytes - tensor_bytes) / tensor_bytes if tensor_bytes else None


def parties(events: Sequence[Event], *, every_party: bool = False) -> Table:
    """Return what left each party and what came in, in frame bytes by phase; of a party's own log, what left it."""
    crowds, sums = _Crowds(events, every_party), _Sums()
    predicted = any(e.phase == "prediction" for e in all_of(events, Traffic))
    phases = PHASES if predicted else PHASES[:-1]
    if crowds.viewer:
        return _sent(events, crowds, phases)
    for party in crowds.roles:
        sums.add((crowds.name(party),), party, 0)
    for e in all_of(events, Traffic):
        amounts = {f"sent {phase_of(e)}": e.frame_bytes, "sent": e.frame_bytes}
        sums.add((crowds.name(e.sender),), e.sender, e.frame_bytes, **amounts)
        sums.add((crowds.name(e.receiver),), e.receiver, 0, received=e.frame_bytes)
    rows: list[Row] = []
    for key in sorted(sums.totals, key=lambda key: crowds.order(key[0])):
        total = sums.totals[key]
        sent = [total[f"sent {phase}"] for phase in phases]
        rows.append((*key, *sent, total["sent"], total["received"], sums.most(key)))
    columns = ("party", *(f"sent in {phase} (bytes)" for phase in phases), "sent (bytes)", "received (bytes)")
    note = "Whole frames, counted where they are made."
    return _table("Traffic by party", columns, rows, "bytes sent", note)


def _sent(events: Sequence[Event], crowds: _Crowds, phases: Sequence[str]) -> Table:
    """Return what left the one party whose log this is, by receiver."""
    sums = _Sums()
    for e in all_of(events, Traffic):
        amounts = {phase_of(e): e.frame_bytes, "all": e.frame_bytes}
        sums.add((crowds.name(e.receiver),), e.receiver, e.frame_bytes, **amounts)
    rows: list[Row] = []
    for key in sorted(sums.totals, key=lambda key: crowds.order(key[0])):
        total = sums.totals[key]
        rows.append((*key, *(total[phase] for phase in phases), total["all"], sums.most(key)))
    columns = ("to", *(f"sent in {phase} (bytes)" for phase in phases), "sent (bytes)")
    note = (
        f"Whole frames that {crowds.viewer} made, counted there. What others sent stands in their own logs, "
        "also where it passed through a host."
    )
    return _table(f"What {crowds.viewer} sent, by receiver", columns, rows, "bytes sent", note)


def compute(events: Sequence[Event], *, every_party: bool = False) -> Table:
    """Return FLOPs by party and segment: forward, backward, in evaluation."""
    crowds, sums = _Crowds(events, every_party), _Sums()
    for e in all_of(events, Computed):
        sums.add(
            (crowds.name(e.party), e.segment), e.party, e.flops, **{e.direction: e.flops, "all": e.flops}
        )
    rows: list[Row] = []
    for key in sorted(sums.totals, key=lambda key: crowds.order(key[0])):
        total = sums.totals[key]
        rows.append((*key, total["forward"], total["backward"], total["infer"], total["all"], sums.most(key)))
    columns = ("party", "segment", "forward (FLOP)", "backward (FLOP)", "evaluation (FLOP)", "all (FLOP)")
    note = "By PyTorch's own counter: matrix products and convolutions; a multiply-add is two."
    return _table("Compute by party and segment", columns, rows, "FLOP", note)


def parameters(events: Sequence[Event]) -> Table:
    """Return the size of each segment and where it is."""
    began = last(events, Began)
    sizes = Counter(began.parties.values()) if began else Counter()
    placed = list({e.segment: e for e in all_of(events, Placed)}.values())
    rows: list[Row] = [
        (e.segment, e.role, sizes[e.role] or None, e.parameters, e.trainable, e.state_bytes) for e in placed
    ]
    if len(placed) > 1:
        totals = [
            sum(getattr(e, name) for e in placed) for name in ("parameters", "trainable", "state_bytes")
        ]
        rows.append(("all", None, None, *totals))
    return Table(
        title="Parameters by segment",
        columns=("segment", "role", "parties", "parameters", "trained", "state (bytes)"),
        rows=tuple(rows),
        note="State: parameters and buffers, without the optimizer's memory.",
    )


def time(events: Sequence[Event], *, every_party: bool = False) -> Table:
    """Return the time spent by party and action, most first."""
    crowds, sums = _Crowds(events, every_party), _Sums()
    for e in all_of(events, Worked):
        sums.add((crowds.name(e.party), e.op), e.party, e.seconds, calls=e.calls, seconds=e.seconds)
    keys = sorted(sums.totals, key=lambda key: (crowds.order(key[0]), -sums.totals[key]["seconds"]))
    rows: list[Row] = [
        (*key, sums.totals[key]["calls"], float(sums.totals[key]["seconds"]), sums.most(key)) for key in keys
    ]
    return _table("Time by party and action", ("party", "action", "calls", "time (s)"), rows, "s")


def summary(events: Sequence[Event]) -> Table:
    """Return what a study lead asks first, as pairs of a question and its answer."""
    rows: list[Row] = []
    began, ended, epochs = last(events, Began), last(events, Ended), ended_epochs(events)
    if party := viewer(events):
        rows.append(("log of", f"{party}, about its own part only"))
    if began is not None:
        roles = Counter(began.parties.values())
        rows += [
            ("study", f"{began.name} ({began.study})"),
            ("parties", ", ".join(f"{role} ({n})" if n > 1 else role for role, n in roles.items())),
            ("schedule", began.schedule),
            ("optimizer", began.optimizer),
            ("batch size, seed", f"{began.batch_size}, {began.seed}"),
        ]
    asked = f" of {began.epochs}" if began is not None else ""
    rows.append(("epochs", f"{len(epochs)}{asked}"))
    if ended is not None and finished(events):
        rows += [
            ("ended", ended.reason),
            ("time", human_seconds(ended.seconds)),
            ("peak memory", human_bytes(ended.peak_memory_bytes)),
        ]
    else:
        rows.append(("ended", "not yet, or cut off"))
    rows += _costs(events)
    for split, loss in dict.fromkeys((split, loss) for _, split, loss in measured(events)):
        figures = merged_metrics(events, split, loss)
        means = averaged_metrics(events, split, loss)
        told = ", ".join(
            f"{name} {value:.4g}{' (row-weighted mean)' if name in means else ''}"
            for name, value in figures.items()
        )
        rows.append((f"{split}: {loss}" if loss != "loss" else split, told))
    return Table(title="Summary", columns=("what", "value"), rows=tuple(rows))


def _costs(events: Sequence[Event]) -> list[Row]:
    rows: list[Row] = []
    what = "sent" if viewer(events) else "traffic"
    sent = _added(all_of(events, Traffic), phase_of, lambda e: e.frame_bytes)
    for phase in sorted(sent, key=lambda phase: (*PHASES, phase).index(phase)):
        rows.append((f"{what} in {phase}", human_bytes(sent[phase])))
    flops = _added(all_of(events, Computed), lambda e: e.phase, lambda e: e.flops)
    for phase in sorted(flops, key=lambda phase: (*PHASES, phase).index(phase)):
        rows.append((f"compute in {phase}", human_flops(flops[phase])))
    return rows


def _added(events: Iterable[Kind], key: Callable[[Kind], str], amount: Callable[[Kind], int]) -> Counter[str]:
    total: Counter[str] = Counter()
    for event in events:
        total[key(event)] += amount(event)
    return total
