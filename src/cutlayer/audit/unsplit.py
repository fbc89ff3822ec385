"""UnSplit: inputs and the sender's weights found together, from activations and the architecture alone.

Erdogan, Küpçü and Çiçek 2022, "UnSplit: data-oblivious model inversion, model stealing, and label inference attacks
against split learning" (WPES; arXiv 2108.09033, algorithm 1): steps on the inputs and steps on a clone's weights take
turns, both to make the activations that were seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .base import Guess, Knowledge, OnProgress
from .inversion import InputAttack, total_variation
from .learning import seeded
from .transcript import Transcript

__all__ = ["UnSplit"]


@dataclass(frozen=True)
class UnSplit(InputAttack):
    """Alternating steps on inputs and on a clone of the sender's segment.

    Attributes:
        rounds: How often the two take turns; 1000 in the paper.
        steps: Steps of each in a turn; 100 in the paper.
        lr: Adam's step size on inputs, in shares of their range.
        clone_lr: Adam's step size on weights; both are 0.001 in the paper.
        tv: Weight of the inputs' total variation, for images; 0.1 in the paper, where errors are not relative.
        l2: Weight of the inputs' mean square.
        rows: How many rows are reconstructed, the last that were seen.
    """

    word: ClassVar[str] = "unsplit"
    adversary: ClassVar[str] = "the party that receives activations and knows the sender's architecture"
    needs: ClassVar[str] = "activations, and the architecture of the sender's segment"
    source: ClassVar[str] = "Erdogan, Küpçü and Çiçek 2022 (WPES), algorithm 1"
    rounds: int = 100
    steps: int = 20
    lr: float = 2e-2
    clone_lr: float = 3e-3
    tv: float = 0.02
    l2: float = 0.0
    rows: int = 64

    def __post_init__(self) -> None:
        self._check_whole("rounds", "steps", "rows")
        self._check_positive("lr", "clone_lr")
        self._check_not_negative("tv", "l2")

    def misfit(self, seen: Transcript, known: Knowledge) -> str | None:
        """Return why not: no activations, or no architecture."""
        if not seen.sights("activation"):
            return "no activations were seen"
        return None if known.has("architecture") else "the architecture of the sender's segment is not known"

    def guess(self, seen: Transcript, known: Knowledge, seed: int, on_progress: OnProgress = None) -> Guess:
        """Return inputs that, with weights found beside, make the activations seen."""
        self._refuse(seen, known)
        activations = seen.rows("activation").float()
        at = torch.arange(len(activations))[-self.rows :]
        z, clone = activations[at], known.module("architecture").train().requires_grad_()
        with seeded(seed, self.word):
            x = known.blind_input().expand(len(z), *known.shape).clone().requires_grad_()
            left = self._alternate(clone, x, z, known, on_progress)
        note = f"its clone makes what was seen up to a share {left:.3f} of its mean square"
        return Guess(at=at, inputs=x.detach(), note=note)

    def _alternate(
        self, clone: nn.Module, x: Tensor, z: Tensor, known: Knowledge, on_progress: OnProgress
    ) -> float:
        """Move ``x`` and the clone's weights in turns; return the relative error that is left."""
        range_ = known.high - known.low if known.bounded else 1.0
        scale = z.square().mean().clamp_min(torch.finfo(z.dtype).tiny)
        moves = (
            torch.optim.Adam([x], lr=self.lr * range_, amsgrad=True),
            torch.optim.Adam(clone.parameters(), lr=self.clone_lr, amsgrad=True),
        )
        error = torch.tensor(1.0)
        for turn in range(self.rounds):
            for optimizer in moves:
                for _ in range(self.steps):
                    x.grad = None
                    clone.zero_grad()
                    error = (clone(x) - z).square().mean() / scale
                    (error + self._prior(x)).backward()
                    optimizer.step()
                    if known.bounded:
                        with torch.no_grad():
                            x.clamp_(known.low, known.high)
            if on_progress is not None:
                on_progress((turn + 1) / self.rounds)
        return float(error.detach())

    def _prior(self, x: Tensor) -> Tensor:
        """Return what inputs are expected to keep small."""
        smooth = self.tv * total_variation(x) / len(x) if x.dim() == 4 else x.new_zeros(())
        return smooth + self.l2 * x.square().mean()
