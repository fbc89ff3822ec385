"""Faults for a party's process, put around the program from outside: ``"send:after:3"`` dies after its third send."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cutlayer.runtime import compute, handover, performing, snapshots, training
from cutlayer.runtime.positions import Position
from cutlayer.schedules.actions import Op
from cutlayer.schedules.calendar import Leave
from cutlayer.sessions import hosting, participant
from cutlayer.transports.network import end
from cutlayer.transports.network.carriers.tls_line import TlsLine


def install(specs: list[str]) -> None:
    """Put these faults around the program of this process."""
    for spec in specs:
        what, where, number = spec.split(":")
        if what in {op.name.lower() for op in Op}:
            _around_action(Op[what.upper()], where, int(number))
        else:
            _OTHERS[what](where, int(number))


def die() -> None:
    """End this process as a power cut does."""
    os.kill(os.getpid(), signal.SIGKILL)


def _around_action(op: Op, where: str, number: int) -> None:
    make, count = performing.MAKERS[op], _Count(number)

    def maker(party: Any, action: Any) -> Any:
        run = make(party, action)

        def runner(step: int, what: str) -> None:
            if where == "before" and count.reached():
                die()
            run(step, what)
            if where == "after" and count.reached():
                die()

        return runner

    performing.MAKERS[op] = maker  # type: ignore[index]


class _Count:
    """Counts up to a number, once."""

    def __init__(self, number: int) -> None:
        self._number, self._lock = number, threading.Lock()

    def reached(self) -> bool:
        with self._lock:
            self._number -= 1
            return self._number == 0


def _wrap(owner: Any, name: str, where: str, number: int) -> None:
    """Die before or after the ``number``-th call of ``owner.name``."""
    inner, count = getattr(owner, name), _Count(number)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if where == "before" and count.reached():
            die()
        result = inner(*args, **kwargs)
        if where == "after" and count.reached():
            die()
        return result

    setattr(owner, name, wrapped)


def _in_backward(where: str, number: int) -> None:
    """Die within the engine, when the first gradient of a backward is there."""
    inner, count = compute._propagate, _Count(number)

    def propagate(roots: Any, gradients: Any) -> None:
        if count.reached():
            roots[0].register_hook(lambda gradient: die())
        inner(roots, gradients)

    compute._propagate = propagate


def _in_snapshot(where: str, number: int) -> None:
    """Die with half a file written, with all written but not in its place, or in its place but not told."""
    if where == "told":
        _once_safe(number, lambda folder: die())
    elif where == "filled":
        _wrap(snapshots, "_fill", "after", number)
    else:
        save, count = snapshots.save_file, _Count(number)

        def half(tensors: Any, path: Path) -> None:
            save(tensors, path)
            if count.reached():
                os.truncate(path, path.stat().st_size // 2)
                die()

        snapshots.save_file = half


def _in_saying(where: str, number: int) -> None:
    """Die before or after the party says that it is done."""
    say = participant.Participant._say

    def saying(self: Any, message: Any) -> None:
        done = message.kind == "done"
        if done and where == "before":
            die()
        say(self, message)
        if done and where == "after":
            time.sleep(0.05 * (number - 1))
            die()

    participant.Participant._say = saying  # type: ignore[method-assign]


def _in_leaves(where: str, number: int) -> None:
    """Die when it is written down that a turn does not take place, or again does, before anybody else hears of it."""
    write = hosting.write_roster

    def writing(folder: Path, roster: Any) -> None:
        write(folder, roster)
        ended = any(leave.until < Leave(0, 0, 0).until for leave in roster.leaves)
        if ended if where == "ended" else roster.leaves:
            die()

    hosting.write_roster = writing


def _gate(epoch: str, item: int) -> None:
    """Go no further than the first snapshot at or after ``epoch/item`` until somebody opens the gate.

    The gate is a file beside the party's folder: there while the party stands at it, and open once it is removed.
    """
    keep, place = training.Trainer._keep, Position(int(epoch), item)
    passed = threading.Event()

    def keeping(self: Any, position: Position) -> None:
        keep(self, position)
        if position < place or passed.is_set():
            return
        passed.set()
        self.snapshots.wait()
        folder = self.snapshots.folder.parent
        gate = folder.with_name(f"{folder.name}.gate")
        gate.touch()
        while gate.exists():
            time.sleep(0.01)

    training.Trainer._keep = keeping  # type: ignore[method-assign]


def _full_disk(where: str, number: int) -> None:
    """From the ``number``-th snapshot on, let no file grow beyond the size that the largest log has then."""

    def fill(folder: Path) -> None:
        most = max((folder / name).stat().st_size for name in ("log.jsonl", "disclosure.log"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _once_safe(number, fill)


def _once_safe(number: int, then: Callable[[Path], None]) -> None:
    """Call ``then`` with the party's folder once the ``number``-th snapshot is safe, before anybody is told of it."""
    begin, count = snapshots.Snapshots.__init__, _Count(number)

    def beginning(self: Any, folder: Path, *, on_disk: Callable[[Position], None], **more: Any) -> None:
        def safe(position: Position) -> None:
            if count.reached():
                then(folder)
            on_disk(position)

        begin(self, folder, on_disk=safe, **more)

    snapshots.Snapshots.__init__ = beginning  # type: ignore[method-assign]


def _clock(where: str, number: int) -> None:
    """Let the wall clock jump ``number`` seconds, forward or back, every tenth of a second."""
    real, began = time.time, time.monotonic()

    def jumping() -> float:
        there = int((time.monotonic() - began) * 10) % 2
        return real() + (number if where == "forward" else -number) * there

    time.time = jumping


def _resend(where: str, number: int) -> None:
    """Give the network every ``number``-th frame twice, or swap it with the next one."""
    inner, count = end.NetworkTransport.send, [0]

    def twice(self: Any, party: str, frame: Any) -> None:
        inner(self, party, frame)
        count[0] += 1
        if count[0] == number:
            inner(self, party, frame)

    held: list[Any] = []

    def swapped(self: Any, party: str, frame: Any) -> None:
        count[0] += 1
        if count[0] == number:
            held.append((party, bytes(frame)))
            threading.Timer(0.3, lambda: [inner(self, *one) for one in held if not held.clear()]).start()
            return
        inner(self, party, frame)

    end.NetworkTransport.send = twice if where == "twice" else swapped  # type: ignore[method-assign]


def _envelopes(where: str, number: int) -> None:
    """Put every ``number``-th envelope of a stream into it twice, or before the one ahead of it."""
    inner = TlsLine.put
    counts: dict[int, int] = {}
    held: dict[int, Any] = {}

    def put(self: Any, parcel: Any) -> None:
        if self._beat is None or parcel is None:  # greetings and the end
            inner(self, parcel)
            return
        line = id(self)
        counts[line] = counts.get(line, 0) + 1
        due = counts[line] % number == 0
        if due and where == "swapped":
            held[line] = parcel
            return
        inner(self, parcel)
        if line in held:
            inner(self, held.pop(line))
        if due and where == "twice":
            inner(self, parcel)

    TlsLine.put = put  # type: ignore[method-assign]


_OTHERS: dict[str, Callable[[str, int], None]] = {
    "gradient": _in_backward,
    "saving": _in_snapshot,
    "restore": lambda where, number: _wrap(handover, "_restore", where, number),
    "go": lambda where, number: _wrap(training.Trainer, "restore", where, number),
    "rewind": lambda where, number: _wrap(snapshots.Snapshots, "rewind", where, number),
    "answer": lambda where, number: _wrap(participant.Participant, "_report", where, number),
    "epoch": lambda where, number: _wrap(training.Trainer, "_check_weights", where, number),
    "done": _in_saying,
    "leaves": _in_leaves,
    "finish": lambda where, number: _wrap(participant.Participant, "_close", where, number),
    "disk": _full_disk,
    "gate": _gate,
    "clock": _clock,
    "frame": _resend,
    "envelope": _envelopes,
}
