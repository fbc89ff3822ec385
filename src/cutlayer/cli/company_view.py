"""What ``cutlayer local`` shows: one table of all parties, what happens above it; lines in a pipe."""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..metering.table import human_bytes, human_seconds
from .screen import console
from .standing import plain

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from .company import Member

__all__ = ["CompanyView", "ending", "watched"]

_SELDOM_S = 10.0


@contextlib.contextmanager
def watched(members: Sequence[Member], screen: Console) -> Iterator[CompanyView]:
    """Show the parties until the block ends."""
    view = CompanyView(members, screen)
    if not screen.is_terminal:
        yield view
        return
    from rich.live import Live

    with Live(view, console=screen, refresh_per_second=4, transient=True):
        yield view


class CompanyView:
    """What the parties said.

    Args:
        members: The parties, the host first.
        screen: Where it is shown.

    Attributes:
        metrics: The last metrics of each party that measures, by party and what was measured.
    """

    def __init__(self, members: Sequence[Member], screen: Console) -> None:
        self.metrics: dict[str, dict[str, dict[str, float | None]]] = {}
        self._members, self._screen = members, screen
        self._lock = threading.Lock()
        self._began, self._shown, self._epoch = time.monotonic(), time.monotonic(), -1

    def heard(self, member: Member, said: dict[str, Any]) -> None:
        """Take in what a party said."""
        with self._lock:
            match said.get("kind"):
                case "metrics":
                    own = self.metrics.setdefault(member.party, {})
                    of = "" if said["loss"] == "loss" else f"{said['loss']}, "
                    own[f"{of}{said['split']}"] = said["metrics"]
                case "note" if _matters(member, said["text"]):
                    self._say(f"{member.party}: {said['text']}", "!!" in said["text"])
                case "standing":
                    self._moved()

    def note(self, what: str) -> None:
        """Show what happened to a party."""
        with self._lock:
            self._say(what, what.startswith("!!"))

    def __rich__(self) -> RenderableType:
        """Draw the table."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        host = self._members[0].standing
        table = Table("party", "role", "state")
        for name in ("step", "loss", "sent"):
            table.add_column(name, justify="right")
        for member in self._members:
            now = member.standing
            state = member.state
            if state == "taking part" and member.party in now.get("turn", ()):
                state = "its turn"
            if member.party in host.get("missing", ()):
                state = f"{member.state}, missed"
            loss = now.get("loss")
            table.add_row(
                Text(member.party), Text(member.role),
                Text(state, style="red" if "missed" in state else "bold green" if state == "its turn" else ""),
                f"{now.get('step', 0):,}", "" if loss is None else f"{loss:.4f}",
                human_bytes(now.get("sent_bytes", 0)),
            )  # fmt: skip
        bar = Table.grid()  # a bar alone does not end its line
        bar.add_row(ProgressBar(total=host.get("steps") or 1, completed=host.get("step", 0), width=60))
        return Group(table, bar, Text(self._headline()))

    def _headline(self) -> str:
        host, took = self._members[0].standing, time.monotonic() - self._began
        if not host.get("steps"):
            return f"the parties are starting, {took:.0f} s"
        return (
            f"epoch {host['epoch'] + 1} of {host['epochs']}, step {host['step']:,} of {host['steps']:,}, "
            f"{human_seconds(took)}"
        )

    def _moved(self) -> None:
        """In a pipe, say now and then where it stands."""
        host, now = self._members[0].standing, time.monotonic()
        if self._screen.is_terminal or not host.get("steps"):
            return
        if now - self._shown > _SELDOM_S or host["epoch"] != self._epoch:
            self._shown, self._epoch = now, host["epoch"]
            self._say(self._headline(), False)

    def _say(self, text: str, alarm: bool) -> None:
        from rich.text import Text

        now = datetime.datetime.now()
        self._screen.print(
            Text(f"{now:%H:%M:%S} {plain(text)}", style="red" if alarm else ""), soft_wrap=True
        )
        self._screen.file.flush()


def ending(members: Sequence[Member], folders: dict[str, Path], view: CompanyView) -> None:
    """Print what left each party, by its own disclosure log, and what was measured where."""
    from rich.table import Table
    from rich.text import Text

    from ..metering.disclosures import read_disclosures
    from ..metering.events import EpochEnded
    from ..metering.run_log import read_log

    table = Table("party", "role", title="What left each party, by its own log", title_justify="left")
    for name in ("frames", "bytes", "steps", "started"):
        table.add_column(name, justify="right")
    table.add_column("metrics that it knows")
    for member in members:
        folder = folders[member.party]
        flows = read_disclosures(folder).flows
        steps = sum(event.steps for event in read_log(folder) if isinstance(event, EpochEnded))
        known = [
            f"{what}: "
            + ", ".join(f"{name} {value:.4f}" for name, value in found.items() if value is not None)
            for what, found in view.metrics.get(member.party, {}).items()
        ]
        frames, size = sum(flow.frames for flow in flows), sum(flow.frame_bytes for flow in flows)
        table.add_row(
            Text(member.party), Text(member.role), f"{frames:,}", f"{size:,}", f"{steps:,}", f"{member.starts}",
            Text("\n".join(known)),
        )  # fmt: skip
    console().print(table)


def _matters(member: Member, text: str) -> bool:
    """Return whether what a party notes is worth a line, where all parties are at hand."""
    return "!!" in text or not text.startswith(("approved", "roll call: welcome", "connected", "begin at"))
