"""Early stopping and the best snapshot: one label holder judges, all parties hear the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import StudyError, nearest
from ..metering.metrics import HIGHER_IS_BETTER, KNOWN

__all__ = ["EarlyStopping", "Judge", "Verdict"]


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Keep the best epoch's weights, and stop when no epoch was better for a while.

    Attributes:
        metric: What to judge by; losses and errors want to be low, the others high.
        patience: Epochs without improvement before stopping.
        split: The split that is measured.
        loss: Which loss's metric, where the graph has several.
        min_delta: An improvement smaller than this counts as none.
    """

    metric: str = "loss"
    patience: int = 5
    split: str = "valid"
    loss: str | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise StudyError("patience must be at least 1 epoch", got=str(self.patience))
        if self.metric not in KNOWN:
            raise StudyError(f"no metric is named {self.metric!r}", todo=nearest(self.metric, KNOWN))
        if not self.min_delta >= 0:
            raise StudyError("min_delta is 0 or more", got=str(self.min_delta))


@dataclass(frozen=True)
class Verdict:
    """What was decided after an epoch."""

    name: str = ""
    stop: bool = False
    best: bool = False

    def of(self, name: str) -> bool:
        """Return whether this is the verdict called ``name``."""
        return self.name == name


class Judge:
    """Remembers the best epoch so far.

    Args:
        settings: What to judge by.
        loss: The loss whose metrics count.
    """

    def __init__(self, settings: EarlyStopping, loss: str) -> None:
        self.settings = settings
        self.metric = settings.metric
        self.key = f"{settings.split}/{loss}"
        self.best = -math.inf
        self.waited = 0

    def memory(self) -> dict[str, float]:
        """Return what the judge remembers, as numbers."""
        return {"best": self.best, "waited": self.waited}

    def remember(self, memory: Mapping[str, float]) -> None:
        """Take up what :meth:`memory` returned."""
        self.best, self.waited = float(memory["best"]), int(memory["waited"])

    def decide(self, name: str, numbers: Sequence[tuple[int, float]]) -> Verdict:
        """Return the verdict on (rows, metric) of every label holder; they are averaged by rows."""
        rows = sum(count for count, _ in numbers)
        value = sum(count * number for count, number in numbers) / rows
        score = value if self.metric in HIGHER_IS_BETTER else -value
        best = score > self.best + (self.settings.min_delta if math.isfinite(self.best) else 0.0)
        self.best = score if best else self.best
        self.waited = 0 if best else self.waited + 1
        return Verdict(name, stop=self.waited >= self.settings.patience, best=best)
