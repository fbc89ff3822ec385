"""A network in as many pieces as there are places to cut: each is counted once, and a segment is a few in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..graph.parts import TensorSpec
from .counting import Counted, measure

__all__ = ["Chain", "Stretches"]


class Chain:
    """Pieces that run one after the other.

    Args:
        modules: The pieces.
        inputs: For each, names of the values that it reads.
        outputs: For each, names of those it makes.
        given: Names of the network's inputs, and one row of each.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        inputs: Sequence[tuple[str, ...]],
        outputs: Sequence[tuple[str, ...]],
        given: Mapping[str, TensorSpec],
    ) -> None:
        self._steps = list(zip(modules, inputs, outputs, strict=True))
        self._given = given
        self._known: dict[int, list[Counted]] = {}

    def __len__(self) -> int:
        return len(self._steps)

    def counted(self, rows: int) -> list[Counted]:
        """Return what a batch of ``rows`` costs in each piece."""
        if rows not in self._known:
            self._known[rows] = self._count(rows)
        return self._known[rows]

    def _count(self, rows: int) -> list[Counted]:
        everything = [t for module, _, _ in self._steps for t in (*module.parameters(), *module.buffers())]
        device = everything[0].device if everything else torch.device("cpu")
        values = {
            name: torch.zeros((rows, *spec.shape), dtype=spec.dtype, device=device)
            for name, spec in self._given.items()
        }
        found, taught, kept = [], False, dict[int, Tensor]()
        for module, inputs, outputs in self._steps:
            read = [
                values[name].detach().requires_grad_(taught and values[name].is_floating_point())
                for name in inputs
            ]
            taught = taught or any(p.requires_grad for p in module.parameters())
            counted, made = measure(module, read, [True] * len(outputs), kept)
            values.update(zip(outputs, made, strict=True))
            found.append(counted)
        return found


class Stretches:
    """Counts segments that are stretches of a chain; see `counting.Counter`.

    Args:
        chain: The chain.
        ends: By segment, its first piece and the one behind its last.
    """

    def __init__(self, chain: Chain, ends: Mapping[str, tuple[int, int]]) -> None:
        self._chain, self._ends = chain, ends
        self._known: dict[tuple[str, int], Counted] = {}

    def of(self, segment: str, rows: int) -> Counted:
        """Return what a batch of ``rows`` costs at ``segment``."""
        if (segment, rows) not in self._known:
            first, end = self._ends[segment]
            pieces = self._chain.counted(rows)[first:end]
            names = ("forward", "backward", "infer", "kept_bytes")
            self._known[segment, rows] = Counted(
                **{name: sum(getattr(piece, name) for piece in pieces) for name in names}
            )
        return self._known[segment, rows]
