"""Where a study stands, as far as one party may know it: from what its own part does and what the host says."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..metering.events import EpochEnded, Event, Measured
from ..metering.table import human_bytes, human_seconds

if TYPE_CHECKING:
    from ..runtime.training import Progress
    from ..sessions.messages import Status

__all__ = ["Standing", "is_news", "plain"]

_WINDOW_S = 20.0


class Standing:
    """What one party knows of where its study stands.

    Args:
        party: Who it is.
        parties: The role of each party.
        epochs: Epochs of the whole training.

    Attributes:
        connected: The parties that are there, as the host says.
        missing: Since when (`time.monotonic`) the study waits for whom.
        turn: Whose turn it is.
        epoch: The epoch, counted from 0.
        step: The step, counted over the whole training.
        steps: Steps of the whole training; 0 as long as that is not known.
        loss: The last batch's; NaN where it is not computed here.
        sent_bytes: Bytes of the frames that left this process.
        metrics: The last metrics by loss and split, where they are known here.
    """

    def __init__(self, party: str, parties: Mapping[str, str], epochs: int) -> None:
        self.party, self.parties, self.epochs = party, dict(parties), epochs
        self.connected: list[str] = []
        self.missing: dict[str, float] = {}
        self.turn: list[str] = []
        self.epoch = self.step = self.steps = self.sent_bytes = 0
        self.loss = math.nan
        self.metrics: dict[str, dict[str, float]] = {}
        self._seen: deque[tuple[float, int]] = deque()

    def progress(self, now: Progress, sent_bytes: int) -> None:
        """Take in where the party's own part stands; where others are ahead of it, or behind, the host knows better."""
        self.sent_bytes, self.loss, self.steps = sent_bytes, now.loss, now.steps
        if not self.turn or self.party in self.turn:
            self._move(now.epoch, now.step + 1)

    def status(self, now: Status) -> None:
        """Take in what the host says."""
        self.connected, self.turn = list(now.connected), list(now.turn)
        self.missing = {name: self.missing.get(name, time.monotonic()) for name in now.missing}
        if now.steps:
            self.steps = now.steps
            self._move(now.epoch, now.step + 1)

    def event(self, event: Event) -> None:
        """Take in what was measured here."""
        if isinstance(event, Measured):
            self.metrics[f"{event.loss} {event.split}"] = dict(event.metrics)

    @property
    def rate(self) -> float:
        """Steps a second of late; NaN before that is known."""
        if len(self._seen) < 2:
            return math.nan
        (first, begin), (last, end) = self._seen[0], self._seen[-1]
        return (end - begin) / (last - first) if last > first else math.nan

    def headline(self) -> str:
        """Return in one line where the study stands."""
        if not self.steps:
            return "not begun"
        words = [f"epoch {self.epoch + 1} of {self.epochs}", f"step {self.step:,} of {self.steps:,}"]
        if self.turn:
            words.append(f"turn of {', '.join(self.turn[:3])}{' …' if len(self.turn) > 3 else ''}")
        if not math.isnan(self.loss):
            words.append(f"loss {self.loss:.4f}")
        words.append(f"{human_bytes(self.sent_bytes)} sent")
        rate = self.rate
        if rate > 0 and not self.missing and self.step < self.steps:
            left = human_seconds((self.steps - self.step) / rate)
            words += [f"{rate:,.1f} steps a second", f"about {left} left"]
        return ", ".join(words)

    def waiting(self) -> str:
        """Return whom the study waits for; empty if for nobody."""
        now = time.monotonic()
        return ", ".join(f"{plain(name)} ({now - since:.0f} s)" for name, since in self.missing.items())

    def measured(self) -> list[str]:
        """Return a line for each split that was measured here."""
        return [
            f"{what}: {', '.join(f'{name} {value:.4f}' for name, value in metrics.items())}"
            for what, metrics in self.metrics.items()
        ]

    def _move(self, epoch: int, step: int) -> None:
        now = time.monotonic()
        if self._seen and step < self._seen[-1][1]:
            self._seen.clear()
        self.epoch, self.step = epoch, step
        self._seen.append((now, step))
        while now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()


def plain(text: str) -> str:
    """Return ``text`` in one line, without what could play tricks on a terminal: it may come from others."""
    return "".join(
        letter if letter.isprintable() else " " if letter.isspace() else "\ufffd" for letter in text
    )


def is_news(event: Event) -> str:
    """Return a line about an event that people want to read at once; empty for all others."""
    if isinstance(event, EpochEnded):
        losses = "".join(f", {name} {value:.4f}" for name, value in event.losses.items())
        return f"epoch {event.epoch + 1} done after {human_seconds(event.seconds)}{losses}"
    if isinstance(event, Measured):
        figures = ", ".join(f"{name} {value:.4f}" for name, value in event.metrics.items())
        return f"{event.loss} on {event.split} ({event.rows} rows): {figures}"
    return ""
