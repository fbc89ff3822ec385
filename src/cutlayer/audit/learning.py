"""What attacks learn with: small networks that follow from shapes alone, and one plain loop that trains them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..seeds import stream
from .base import OnProgress

__all__ = ["applied", "batches", "classifier", "decoder", "encoder", "fit", "frozen", "seeded"]

_WIDTH = 32
_HIDDEN = 256
_BATCH = 64


@contextmanager
def seeded(seed: int, *place: str | int) -> Iterator[None]:
    """Let all random numbers inside follow from ``seed`` and ``place``, and leave those outside as they were."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(stream(seed, "audit", *place))
        yield


def frozen(module: nn.Module) -> nn.Module:
    """Return ``module`` in evaluation mode, its weights as they are from now on."""
    return module.eval().requires_grad_(False)


def applied(module: nn.Module, rows: Tensor) -> Tensor:
    """Return what ``module`` makes of ``rows`` [N, ...], piece by piece and without gradients."""
    with torch.no_grad():
        return torch.cat([module(piece) for piece in torch.split(rows, 256)])


def batches(count: int, steps: int, size: int = _BATCH) -> Iterator[Tensor]:
    """Yield ``steps`` batches of row numbers [<= size]: all of ``count`` rows, in a new order each time."""
    order = torch.randperm(count)
    for _ in range(steps):
        if not len(order):
            order = torch.randperm(count)
        yield order[:size]
        order = order[size:]


def fit(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    steps: int,
    lr: float = 1e-3,
    on_progress: OnProgress = None,
) -> nn.Module:
    """Train ``module`` to make ``y`` [N, ...] of ``x`` [N, ...] by Adam, and return it in evaluation mode.

    Parts without weights to train, frozen ones among them, stay in evaluation mode.
    """
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=lr)
    for part in module.modules():
        part.training = any(p.requires_grad for p in part.parameters())
    for step, rows in enumerate(batches(len(x), steps)):
        optimizer.zero_grad()
        loss(module(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if on_progress is not None:
            on_progress((step + 1) / steps)
    return module.eval()


def classifier(shape: Sequence[int], classes: int) -> nn.Module:
    """Return a small network from [B, *shape] to scores of classes [B, classes]."""
    if len(shape) == 3 and min(shape[1:]) >= 4:
        return nn.Sequential(
            nn.Conv2d(shape[0], _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(_WIDTH, 2 * _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * _WIDTH * (shape[1] // 4) * (shape[2] // 4), classes),
        )
    return _mlp(math.prod(shape), classes)


def encoder(shape: Sequence[int], out: Sequence[int], positive: bool = False) -> nn.Module:
    """Return a small network from inputs [B, *shape] to activations [B, *out], none negative if ``positive``."""
    last: list[nn.Module] = [nn.ReLU()] if positive else []
    if len(shape) == len(out) == 3:
        return nn.Sequential(
            nn.Conv2d(shape[0], _WIDTH // 2, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d((out[1], out[2])),
            nn.Conv2d(_WIDTH // 2, out[0], 3, padding=1),
            *last,
        )
    return nn.Sequential(_mlp(math.prod(shape), math.prod(out)), nn.Unflatten(1, tuple(out)), *last)


def decoder(shape: Sequence[int], out: Sequence[int], low: float, high: float) -> nn.Module:
    """Return a small network from activations [B, *shape] to inputs [B, *out] between ``low`` and ``high``.

    Images are grown by transposed convolutions, from the activation's size or from a quarter of the image's. Groups of
    channels are normalised, so that it does not end at one image for all where most pixels are alike.
    """
    last: list[nn.Module] = [_Between(low, high)] if math.isfinite(low) and math.isfinite(high) else []
    if len(out) != 3:
        mlp = _mlp(math.prod(shape), math.prod(out))
        return nn.Sequential(mlp, nn.Unflatten(1, tuple(out)), *last)
    layers: list[nn.Module] = []
    if len(shape) == 3:
        channels, height, width = shape
    else:
        channels, height, width = _WIDTH, -(-out[1] // 4), -(-out[2] // 4)
        layers = [nn.Flatten(), nn.Linear(math.prod(shape), channels * height * width)]
        layers += [nn.Unflatten(1, (channels, height, width)), *_normed(channels)]
    layers += [nn.Conv2d(channels, _WIDTH, 3, padding=1), *_normed(_WIDTH)]
    while 2 * height <= out[1] and 2 * width <= out[2]:
        layers += [nn.ConvTranspose2d(_WIDTH, _WIDTH, 4, stride=2, padding=1), *_normed(_WIDTH)]
        height, width = 2 * height, 2 * width
    if (height, width) != tuple(out[1:]):
        layers += [nn.Upsample(size=tuple(out[1:]), mode="bilinear")]
    layers += [nn.Conv2d(_WIDTH, _WIDTH // 2, 3, padding=1), *_normed(_WIDTH // 2)]
    return nn.Sequential(*layers, nn.Conv2d(_WIDTH // 2, out[0], 3, padding=1), *last)


def _normed(channels: int) -> list[nn.Module]:
    return [nn.GroupNorm(4, channels), nn.LeakyReLU(0.1)]


class _Between(nn.Module):
    """Brings numbers smoothly between two bounds."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self._low, self._high = low, high

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, ...] between the bounds."""
        return self._low + (self._high - self._low) * F.sigmoid(x)


def _mlp(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, _HIDDEN),
        nn.ReLU(),
        nn.Linear(_HIDDEN, _HIDDEN),
        nn.ReLU(),
        nn.Linear(_HIDDEN, outputs),
    )
