"""What came out of a baseline: weights, tables, metrics, report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import StudyError, nearest
from ..graph.split_graph import SplitGraph
from ..metering.events import Event, Measured
from ..metering.run_log import RunLog
from ..metering.tables import Table, merged_metrics, tables

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Outcome"]


class Outcome:
    """What came out of a baseline; what it answers, it answers as a :class:`cutlayer.Run` does.

    Attributes:
        graph: The study's graph, whose network was trained uncut.
    """

    def __init__(self, graph: SplitGraph, log: RunLog, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.graph = graph
        self._log, self._weights = log, weights

    @property
    def events(self) -> list[Event]:
        """The run's log."""
        return self._log.events

    @property
    def folder(self) -> Path | None:
        """The run's folder."""
        return self._log.folder

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Return copies of each segment's parameters and buffers, as the server has them."""
        return {name: {key: t.clone() for key, t in state.items()} for name, state in self._weights.items()}

    def tables(self) -> dict[str, Table]:
        """Return the run's tables by name: metrics, traffic, compute, parameters, time."""
        return tables(self.events)

    def summary(self) -> RenderableType:
        """Return what a study lead wants to know, to print with Rich."""
        from ..report.console import summary

        return summary(self.events)

    def metrics(self, split: str = "test", loss: str | None = None) -> dict[str, float]:
        """Return the last metrics of ``split``, over the rows of all clients.

        Raises:
            StudyError: Nothing was measured on that split, or there is no such loss.
        """
        name = loss or next(iter(self.graph.losses))
        if name not in self.graph.losses:
            raise StudyError(f"there is no loss {name!r}", todo=nearest(name, list(self.graph.losses)))
        splits = {e.split for e in self.events if isinstance(e, Measured) and e.loss == name}
        if split not in splits:
            todo = nearest(split, splits) if splits else "give the parties rows of a split to evaluate on"
            raise StudyError(f"nothing was measured on a split {split!r}", todo=todo)
        return merged_metrics(self.events, split, name)

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw the run's plots as PNG files and return their paths."""
        from ..report.plots import save_plots

        return list(save_plots(self.events, Path(folder)).values())

    def report(self) -> Path:
        """Write the self-contained ``report.html`` and its plots into the run's folder and return its path."""
        from ..report.html import write_report

        if self.folder is None:
            raise StudyError("the run has no folder", todo="train(…, out=…)")
        return write_report(self.folder)
