"""What is measured and not worked out: how quick this machine is, and how much of raw rows shows at each cut."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..graph.flops import flop_counter
from ..privacy.distance import corrected_distance_correlation
from .places import Network

__all__ = ["leakages", "speed"]

FEWEST_ROWS = 8
"""Rows from which on leakage is measured; fewer say nothing."""
_MOST_ROWS = 64
_TRAINED_ROWS = 16
_WITHIN_S = 0.5


def speed(model: nn.Module, rows: Sequence[Tensor]) -> float:
    """Return how many FLOP a second this machine does when it trains ``model``: forward, backward, step.

    Args:
        model: It is copied.
        rows: Rows of its inputs; a few are taken several times.
    """
    times = -(-_TRAINED_ROWS // len(rows[0]))
    rows = [torch.cat([tensor] * times)[:_TRAINED_ROWS] for tensor in rows]
    work = copy.deepcopy(model).train()
    parameters = [p for p in work.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.0) if parameters else None
    with torch.random.fork_rng(devices=[]):
        with flop_counter() as counter:
            _train(work, rows, optimizer)
        best, began = float("inf"), time.perf_counter()
        while time.perf_counter() - began < _WITHIN_S or best == float("inf"):
            before = time.perf_counter()
            _train(work, rows, optimizer)
            best = min(best, time.perf_counter() - before)
    return float(max(counter.get_total_flops(), 1)) / best


def _train(model: nn.Module, rows: Sequence[Tensor], optimizer: torch.optim.Optimizer | None) -> None:
    made = model(*rows)
    outputs = [o for o in (made if isinstance(made, tuple) else (made,)) if o.requires_grad]
    if outputs:
        torch.autograd.backward(outputs, [torch.ones_like(o) for o in outputs])
    if optimizer is not None:
        optimizer.step()
        optimizer.zero_grad()


def leakages(network: Network) -> dict[str, float]:
    """Return the distance correlation of raw rows and what would cross, by cut, at the weights that there are.

    Of up to 64 rows of the example; nothing if it has fewer than 8, or the raw rows are no numbers with fractions.
    Corrected for the bias of wide rows (see `cutlayer.privacy.distance`). It compares cuts, and proves nothing.
    """
    rows = [tensor[:_MOST_ROWS] for tensor in network.rows]
    raw = [tensor.flatten(1) for tensor in rows if tensor.is_floating_point()]
    if len(rows[0]) < FEWEST_ROWS or not raw:
        return {}
    x = torch.cat(raw, dim=1)
    with torch.no_grad():
        return {
            name: float(corrected_distance_correlation(x, z)) for name, z in network.activations(rows).items()
        }
