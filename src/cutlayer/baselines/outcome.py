"""What came out of a baseline: weights, and what any run's log answers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..graph.split_graph import SplitGraph
from ..metering.run_log import RunLog
from ..run import Logged

__all__ = ["Outcome"]


class Outcome(Logged):
    """What came out of a baseline; what its log answers, it answers as a :class:`cutlayer.Run` does.

    Attributes:
        graph: The study's graph, whose network was trained uncut.
    """

    def __init__(self, graph: SplitGraph, log: RunLog, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        super().__init__(graph, log)
        self._weights = weights

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Return copies of each segment's parameters and buffers, as the server has them."""
        return {name: {key: t.clone() for key, t in state.items()} for name, state in self._weights.items()}
