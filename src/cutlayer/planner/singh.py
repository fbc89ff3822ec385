"""The formulas of Singh, Vepakomma, Gupta and Raskar 2019 (arXiv 1909.09145), in numbers that cross, for an epoch.

K clients, N weights of the network, p rows of all clients together, q numbers at the cut for a row, eta the share of
the weights that a client holds. A round of federated averaging goes with each epoch::

                                   a client             all
    split, weights handed on       2pq/K + eta N        2pq + eta N K
    split, each its own weights    2pq/K                2pq
    federated averaging            2N                   2 K N
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from ..errors import StudyError
from ..graph import networks
from ..metering.table import Cell, Table

__all__ = ["Case", "singh_lines", "singh_table"]

ETA = 0.1
"""The share of the weights at a client that the printed bars fit."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison.

    Attributes:
        clients: K.
        weights: N.
        rows: p.
        width: q.
        share: Eta.
    """

    clients: float
    weights: float
    rows: float
    width: float
    share: float

    def __post_init__(self) -> None:
        if not (
            self.clients >= 1
            and self.weights > 0
            and self.rows > 0
            and self.width > 0
            and 0 <= self.share < 2
        ):
            raise StudyError(
                "clients, weights, rows and width are above 0, a share is from 0 to 1", got=str(self)
            )

    @property
    def split(self) -> float:
        """Numbers that cross in split learning with weights handed on, all clients together."""
        return self.split_alone + self.share * self.weights * self.clients

    @property
    def split_alone(self) -> float:
        """The same where each client keeps its own weights."""
        return 2 * self.rows * self.width

    @property
    def federated(self) -> float:
        """The same in federated averaging."""
        return 2 * self.clients * self.weights

    @property
    def break_even(self) -> float:
        """From how many clients on split learning sends less: K = 2pq / ((2 - eta) N)."""
        return 2 * self.rows * self.width / ((2 - self.share) * self.weights)


_BARS: Sequence[tuple[str, float, float, float]] = (
    ("smart watches", 4e7, 2e8, 2.02e8),
    ("hospitals", 4e9, 2e9, 2.2e9),
    ("hospitals", 4e9, 2e8, 4e8),
    ("hospitals", 4e9, 2e10, 2.02e10),
    ("biobank", 2e10, 4e9, 5e9),
    ("biobank", 2e10, 2e10, 2.1e10),
)
"""Read off the paper's bars: scene, 2KN of federated averaging, the 2pq that fits, and the bar of split learning."""


def singh_lines() -> list[str]:
    """Return formulas and derivation line by line."""
    lines = [
        "K clients, N weights, p rows of all clients, q numbers at the cut for a row, eta = a client's share of N",
        "  numbers that cross in an epoch, all clients together:",
        "    split learning, weights handed on:        2pq + eta N K",
        "    split learning, each its own weights:     2pq",
        "    federated averaging, a round an epoch:    2 K N",
        "  they are equal at K N = 2pq / (2 - eta): more clients or a larger network speak for split learning,",
        "  more rows for federated averaging",
        "",
        f"The bars of the paper, with eta = {ETA:g} and 2pq as calibration constants (the paper prints neither)",
    ]
    for scene, federated, activations, printed in _BARS:
        handed = ETA * federated / 2
        lines.append(
            f"  {scene}: 2KN = {federated:g}, so eta N K = {handed:g}; 2pq = {activations:g}: "
            f"{activations + handed:.4g} (bar: {printed:g})"
        )
    lines.append(
        "  left out: smart watches 4e8 beside 2e7, and 4e7 beside 1e6 to 2e6, where 2pq is too small to be read; "
        "biobank 2e10 beside 5e9 stands there twice"
    )
    lines += ["", "Networks of this package, cut behind the first convolution, 50,000 rows of 32x32 pixels"]
    for name, cut, case in _own():
        lines.append(
            f"  {name} after {cut}: N = {case.weights:,.0f}, q = {case.width:,.0f}, eta = {case.share:.3g}; "
            f"equal at K = 2 x 50,000 x {case.width:,.0f} / ({2 - case.share:.4g} x {case.weights:,.0f}) "
            f"= {case.break_even:.1f} clients"
        )
    return [
        *lines,
        "",
        "Counted in full, frames, labels and optimizer slots come on top: `cutlayer plan` has them.",
    ]


def singh_table() -> tuple[Table, dict[str, float]]:
    """Return bars and own networks as a table, and the figures by name."""
    rows: list[tuple[Cell, ...]] = []
    figures: dict[str, float] = {}
    for number, (scene, federated, activations, printed) in enumerate(_BARS):
        split = activations + ETA * federated / 2
        figures[f"{scene} {number}"] = split
        rows.append((scene, None, f"{federated:g}", f"{split:.4g}", f"{printed:g}"))
    for name, _, case in _own():
        figures[f"{name} break-even clients"] = case.break_even
        for clients in (100, 500):
            at = Case(
                clients=clients, weights=case.weights, rows=case.rows, width=case.width, share=case.share
            )
            rows.append((name, clients, f"{at.federated:.4g}", f"{at.split:.4g}", None))
    columns = ("scene", "clients", "federated averaging", "split learning", "the paper's bar")
    title = "Numbers that cross in an epoch, all clients together"
    return Table(title=title, columns=columns, rows=tuple(rows)), figures


@cache
def _own() -> tuple[tuple[str, str, Case], ...]:
    """Return networks of this package with their first convolution, and the numbers of the formulas."""
    with torch.device("meta"):  # shapes alone
        made = (
            ("VGG-16", networks.vgg16(10), "features.0"),
            ("ResNet-50", networks.resnet50(100, stem="imagenet"), "conv1"),
        )
        found = []
        for name, model, cut in made:
            first = model.get_submodule(cut)
            weights = _parameters(model)
            case = Case(
                clients=1,
                weights=weights,
                rows=50_000,
                width=first(torch.zeros(1, 3, 32, 32)).numel(),
                share=_parameters(first) / weights,
            )
            found.append((name, cut, case))
    return tuple(found)


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
