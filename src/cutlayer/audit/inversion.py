"""Inversion with the sender's segment at hand: the input whose activation is the one that was seen.

He, Zhang and Lee 2019, "Model inversion attacks against collaborative inference" (ACSAC; section 4, white box):
minimise ||f(x) - z||^2 + lambda TV(x) over x. Here the first term is divided by the mean square of z, so that lambda is
of one scale at all depths, and an image's pixels are kept in their range after each step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .base import Attack, Guess, Knowledge, OnProgress
from .learning import frozen, seeded
from .transcript import Transcript

__all__ = ["InputAttack", "Inversion", "total_variation"]


@dataclass(frozen=True)
class InputAttack(Attack):
    """Base of attacks that are after inputs: their blind guess is the mean of what is public, for every row."""

    after: ClassVar[str] = "inputs"

    def blind(self, guess: Guess, known: Knowledge, seed: int) -> Guess:
        """Return the mean of known rows, or the middle of the range, for every row."""
        expected = known.blind_input().expand(len(guess.at), *known.shape).clone()
        return Guess(at=guess.at, inputs=expected, note="the mean of rows that it knows, for every row")


@dataclass(frozen=True)
class Inversion(InputAttack):
    """White-box inversion: gradient descent on the input.

    Attributes:
        steps: Steps of Adam.
        lr: Their size, in shares of the inputs' range; of 1 where they have none.
        tv: Weight of the total variation, for images. He et al. have 0 after convolutions and .1 after a linear layer,
            where errors are not relative.
        rows: How many rows are inverted, the last that were seen.
    """

    word: ClassVar[str] = "inversion"
    adversary: ClassVar[str] = (
        "the party that receives activations, if it gets hold of the sender's trained segment"
    )
    needs: ClassVar[str] = "activations, and the sender's segment with its trained weights"
    source: ClassVar[str] = "He, Zhang and Lee 2019 (ACSAC), white box"
    steps: int = 500
    lr: float = 0.05
    tv: float = 0.01
    rows: int = 64

    def __post_init__(self) -> None:
        self._check_whole("steps", "rows")
        self._check_positive("lr")
        self._check_not_negative("tv")

    def misfit(self, seen: Transcript, known: Knowledge) -> str | None:
        """Return why not: no activations, or no trained segment."""
        if not seen.sights("activation"):
            return "no activations were seen"
        return None if known.has("client") else "the sender's trained segment is not known"

    def guess(self, seen: Transcript, known: Knowledge, seed: int, on_progress: OnProgress = None) -> Guess:
        """Return the inputs whose activations are nearest to those seen."""
        self._refuse(seen, known)
        activations = seen.rows("activation")
        at = torch.arange(len(activations))[-self.rows :]
        client = frozen(known.module("client"))
        with seeded(seed, self.word):
            x = invert(
                client,
                activations[at],
                known,
                steps=self.steps,
                lr=self.lr,
                tv=self.tv,
                on_progress=on_progress,
            )
        return Guess(at=at, inputs=x)


def invert(
    client: nn.Module,
    z: Tensor,
    known: Knowledge,
    *,
    steps: int,
    lr: float,
    tv: float,
    start: Tensor | None = None,
    on_progress: OnProgress = None,
) -> Tensor:
    """Return the inputs [N, *shape] whose activations by ``client`` are nearest to ``z`` [N, ...].

    Args:
        client: The segment, frozen.
        z: Activations; rows are independent of each other.
        known: Shape and range of inputs.
        steps: Steps of Adam.
        lr: Their size, in shares of the range.
        tv: Weight of the total variation.
        start: Where to begin [N, *shape]; unless given, at what is expected blindly.
        on_progress: Called with how much is done.
    """
    begin = known.blind_input().expand(len(z), *known.shape) if start is None else start
    x = begin.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=lr * (known.high - known.low if known.bounded else 1.0))
    scale = z.square().mean().clamp_min(torch.finfo(z.dtype).tiny)
    for step in range(steps):
        optimizer.zero_grad()
        distance = (client(x) - z).square().flatten(1).mean(1).sum() / scale
        smooth = tv * total_variation(x) if tv and x.dim() == 4 else 0.0
        (distance + smooth).backward()
        optimizer.step()
        if known.bounded:
            with torch.no_grad():
                x.clamp_(known.low, known.high)
        if on_progress is not None:
            on_progress((step + 1) / steps)
    return x.detach()


def total_variation(x: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels of each image [N, C, H, W], summed over images."""
    down = (x[:, :, 1:] - x[:, :, :-1]).abs().flatten(1).mean(1)
    right = (x[:, :, :, 1:] - x[:, :, :, :-1]).abs().flatten(1).mean(1)
    return (down + right).sum()
