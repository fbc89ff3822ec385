"""What a party is shown while a study runs: a table that lives on a terminal, lines in a pipe, JSON for programs."""

from __future__ import annotations

import _thread
import contextlib
import datetime
import json
import math
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..metering.events import EpochEnded, Event, Measured
from .screen import console
from .standing import Standing, is_news, plain

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ..runtime.training import Progress
    from ..sessions.messages import Status
    from ..sessions.part import Watcher
    from ..study import Study

__all__ = ["shown"]

_SELDOM_S = 10.0
_FEED_S = 0.5


@contextlib.contextmanager
def shown(study: Study, party: str, *, as_json: bool) -> Iterator[Watcher]:
    """Show what happens until the block ends."""
    standing = Standing(party, {p.name: p.role for p in study.graph.parties}, study.epochs)
    screen = console()
    if as_json:
        feed = _Feed(standing)
        yield feed
        feed.last()
    elif not screen.is_terminal:
        yield _Lines(standing, screen)
    else:
        yield from _on_terminal(standing, screen)


def _on_terminal(standing: Standing, screen: Console) -> Iterator[Watcher]:
    from rich.live import Live

    view = _View(standing, screen)
    with Live(view, console=screen, refresh_per_second=4, transient=True):
        yield view


class _Watching(ABC):
    """Keeps where the study stands, from whatever thread it is told."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self._lock = threading.RLock()
        self._said: dict[str, float] = {}
        self._unreachable: set[str] = set()
        self._over = False

    def progress(self, now: Progress, sent_bytes: int) -> None:
        with self._lock, contextlib.suppress(OSError):
            self.standing.progress(now, sent_bytes)
            self._moved()

    def status(self, now: Status) -> None:
        with self._lock, contextlib.suppress(OSError):
            before = (self.standing.connected, list(self.standing.missing))
            self.standing.status(now)
            if before != (self.standing.connected, list(self.standing.missing)):
                self._present()
            self._moved()

    def event(self, event: Event) -> None:
        with self._lock, contextlib.suppress(OSError):
            self.standing.event(event)
            self._happened(event)

    def note(self, what: str) -> None:
        with self._lock, contextlib.suppress(OSError):  # whoever read the output may have gone
            if self._is_new(what):
                self._say(plain(what))

    def _is_new(self, what: str) -> bool:
        """Say each thing once in a while, and why nobody is reached once only until somebody is."""
        if what == "connected":
            self._unreachable.clear()
        if what.startswith("disclosure log closed"):
            self._over = True
        if what.startswith("not connected"):
            known = what in self._unreachable or self._over
            self._unreachable.add(what)
            return not known
        now = time.monotonic()
        self._said = {said: at for said, at in self._said.items() if now - at < _SELDOM_S}
        return self._said.setdefault(what, now) == now

    @abstractmethod
    def _say(self, text: str) -> None:
        """Show a line that stays."""

    def _happened(self, event: Event) -> None:
        news = is_news(event)
        if news:
            self._say(plain(news))

    @abstractmethod
    def _moved(self) -> None:
        """Show where it stands now, if it is time."""

    @abstractmethod
    def _present(self) -> None:
        """Show who is there: somebody came or went."""


class _Lines(_Watching):
    """Lines with a time stamp: what happens, and every ten seconds where it stands."""

    def __init__(self, standing: Standing, screen: Console) -> None:
        super().__init__(standing)
        self._screen, self._shown, self._epoch = screen, time.monotonic(), -1

    def _say(self, text: str) -> None:
        from rich.text import Text

        now = datetime.datetime.now()
        self._screen.print(Text(f"{now:%H:%M:%S} {text}", style=_style(text)), soft_wrap=True)
        sys.stdout.flush()

    def _present(self) -> None:
        waiting = self.standing.waiting()
        self._say(f"waiting for {waiting}" if waiting else "all are there")

    def _moved(self) -> None:
        standing, now = self.standing, time.monotonic()
        if not standing.steps or (standing.epoch == self._epoch and now - self._shown < _SELDOM_S):
            return
        self._shown, self._epoch = now, standing.epoch
        waiting = standing.waiting()
        self._say(standing.headline() + (f"; waiting for {waiting}" if waiting else ""))


class _View(_Watching):
    """A picture that is drawn anew four times a second, and lines above it that stay."""

    def __init__(self, standing: Standing, screen: Console) -> None:
        super().__init__(standing)
        self._screen = screen

    def _say(self, text: str) -> None:
        from rich.text import Text

        now = datetime.datetime.now()
        self._screen.print(Text(f"{now:%H:%M:%S} {text}", style=_style(text)))

    def _moved(self) -> None:
        """It is drawn anew anyway."""

    def _present(self) -> None:
        """It is drawn anew anyway."""

    def __rich__(self) -> RenderableType:
        with self._lock:
            return _picture(self.standing)


class _Feed(_Watching):
    """One line of JSON for each thing that happens; where it stands at most twice a second."""

    def __init__(self, standing: Standing) -> None:
        super().__init__(standing)
        self._shown = 0.0

    def _say(self, text: str) -> None:
        self._write("note", text=text)

    def _happened(self, event: Event) -> None:
        if isinstance(event, Measured):
            self._write(
                "metrics", epoch=event.epoch, split=event.split, loss=event.loss, rows=event.rows,
                metrics={name: _number(value) for name, value in event.metrics.items()},
            )  # fmt: skip
        elif isinstance(event, EpochEnded):
            losses = {name: _number(value) for name, value in event.losses.items()}
            self._write("epoch", epoch=event.epoch, losses=losses, seconds=event.seconds)

    def _moved(self) -> None:
        now = time.monotonic()
        if now - self._shown > _FEED_S:
            self._shown = now
            self._present()

    def _present(self) -> None:
        s = self.standing
        self._write(
            "standing", epoch=s.epoch, epochs=s.epochs, step=s.step, steps=s.steps, turn=s.turn,
            loss=_number(s.loss), sent_bytes=s.sent_bytes, connected=s.connected, missing=list(s.missing),
        )  # fmt: skip

    def last(self) -> None:
        """Say where it stands in the end."""
        with self._lock:
            self._present()

    def _write(self, kind: str, **more: Any) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat("T", "milliseconds")
        try:
            sys.stdout.write(json.dumps({"time": now, "kind": kind, **more}) + "\n")
            sys.stdout.flush()
        except OSError:  # whoever read this is gone
            _thread.interrupt_main()


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _style(text: str) -> str:
    return "red" if text.startswith("!!") else ""


def _picture(standing: Standing) -> RenderableType:
    """Draw who is there, and where the study stands."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    now, table = time.monotonic(), Table.grid(padding=(0, 2))
    few = len(standing.parties) <= 12
    for name, role in standing.parties.items():
        if name in standing.missing:
            state, style = f"missing for {now - standing.missing[name]:.0f} s", "red"
        elif name in standing.connected:
            state, style = ("its turn", "bold green") if name in standing.turn else ("connected", "green")
        else:
            state, style = ("not there" if standing.connected else "not known yet"), "dim"
        if few or style in ("red", "bold green"):
            you = " (you)" if name == standing.party else ""
            table.add_row(
                Text(f"{name}{you}", style=style), Text(role, style="dim"), Text(state, style=style)
            )
    parts: list[RenderableType] = [table]
    if not few:
        parts.append(Text(f"{len(standing.connected)} of {len(standing.parties)} parties are connected"))
    if standing.steps:
        bar = Table.grid()  # a bar alone does not end its line
        bar.add_row(ProgressBar(total=standing.steps, completed=standing.step, width=60))
        parts.append(bar)
    parts.append(Text(standing.headline()))
    parts += [Text(line, style="cyan") for line in standing.measured()]
    return Group(*parts)
