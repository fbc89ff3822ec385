"""Feature-space hijacking: a dishonest server steers the client into a feature space that the server can invert.

Pasquini, Ateniese and Bernaschi 2021, "Unleashing the tiger: inference attacks on split learning" (CCS, section 3;
arXiv 2012.02670). The server has rows of its own that look like the client's. With them it trains an autoencoder, a
*pilot* and its *inverse*, and a *discriminator* that tells the pilot's features from the client's. What it sends back
is not the gradient of the task but that of the discriminator: the client, honest as it is, learns to be mistaken for
the pilot, and then the pilot's inverse opens what the client sends.

The server goes on with its own part as if nothing were: it learns what it can from features that are not made for the
task, so losses and predictions look fair. What it sends back is all that is replaced.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import DataError, GraphError, StudyError, nearest
from ..graph.parts import Cut
from ..graph.split_graph import SplitGraph
from ..runtime.compute import total
from ..runtime.party import LocalParty, Runner
from ..schedules.actions import Action, Op
from ..seeds import stream
from ..wire import Kind

__all__ = ["Hijacker", "Hijacking", "discriminator_of", "inverse_of", "pilot_of"]


@dataclass(frozen=True, kw_only=True)
class Hijacking:
    """How the server goes about it.

    Attributes:
        cut: The cut, ``"head->server"``; the first at which the server receives unless given.
        wasserstein: The discriminator is a critic with a gradient penalty (WGAN-GP), as in the paper's experiments;
            otherwise it is the classifier of the paper's equations 2 to 4.
        penalty: Weight of the critic's gradient penalty.
        rate: Learning rate of pilot and inverse (Adam).
        critic_rate: Learning rate of the discriminator (Adam).
        critic_steps: Steps of the discriminator for each batch.
        strength: By what the gradient is multiplied that the client gets.
        task: Share of the honest gradient in what the client gets, both brought to one length: a server that hides.
        warm_up: Steps of pilot and inverse on the public rows before the first batch.
        batch_size: Public rows in a step.
        width: Channels or units of the three networks.
        seed: Of their weights and of the draws of rows.

    Raises:
        StudyError: A setting that cannot be.
    """

    cut: str = ""
    wasserstein: bool = True
    penalty: float = 10.0
    rate: float = 1e-3
    critic_rate: float = 1e-3
    critic_steps: int = 1
    strength: float = 1.0
    task: float = 0.0
    warm_up: int = 0
    batch_size: int = 64
    width: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        least: dict[str, float] = {"critic_steps": 1, "warm_up": 0, "batch_size": 2, "width": 1, "penalty": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise StudyError(f"hijacking: {name} must be at least {bound}", got=str(getattr(self, name)))
        if not 0 <= self.task < 1:
            raise StudyError("hijacking: task must be at least 0 and below 1", got=str(self.task))
        for name in ("rate", "critic_rate", "strength"):
            if not getattr(self, name) > 0:
                raise StudyError(f"hijacking: {name} must be above 0", got=str(getattr(self, name)))


class Hijacker:
    """A dishonest server: give it to :meth:`cutlayer.Study.simulate` as ``instead``.

    Args:
        public: Rows of its own, float [N, ...], of the shape and range of the client's.
        how: How it goes about it.

    Attributes:
        steps: Batches for which it sent a gradient of its own.
        error: Mean squared error of the inverse on its own rows, in the last batch.

    Raises:
        DataError: The public rows will not do.
    """

    def __init__(self, public: Tensor, how: Hijacking | None = None) -> None:
        if not public.is_floating_point() or public.ndim < 2 or len(public) < 2:
            raise DataError(
                "a hijacker needs rows of its own", got=f"{public.dtype} {list(public.shape)}",
                expected="float [N, ...] with at least 2 rows",
            )  # fmt: skip
        self.public, self.how = public.detach(), how or Hijacking()
        self.steps, self.error = 0, math.nan
        self._draws = torch.Generator().manual_seed(stream(self.how.seed, "hijacking", "rows"))
        self._networks: _Networks | None = None
        self._cut: Cut | None = None

    def __call__(self, party: LocalParty, action: Action, honest: Runner) -> Runner:
        """Return what sends another gradient over the cut in place of the honest one; any other action as it is."""
        if action.op is not Op.SEND:
            return honest
        graph = party.shared.blueprint.graph
        cut = self._cut = self._cut or _cut_of(graph, self.how.cut)
        crossing = party.shared.blueprint.parcel(action.what)[0]
        if crossing.kind is not Kind.GRADIENT or crossing.cut.name != cut.name:
            return honest
        ref, index = crossing.refs[0], crossing.indices[0]

        def run(step: int, what: str) -> None:
            flight = party.flight(step)
            own = self.gradient(flight.values[ref])
            if self.how.task and (right := total(flight.gradients.get(ref))) is not None:
                length = own.norm() / right.norm().clamp_min(torch.finfo(right.dtype).tiny)
                own = (1 - self.how.task) * own + self.how.task * length * right
            flight.gradients[ref] = [(index, own)]
            honest(step, what)

        return run

    def gradient(self, activation: Tensor) -> Tensor:
        """Learn from a batch's ``activation`` [B, ...]; return the gradient that the client is to get for it."""
        with torch.enable_grad():
            received = activation.detach()
            if self._networks is None:
                self.public = self.public.to(received.device)
                self._networks = _Networks(self.public, received, self.how)
                for _ in range(self.how.warm_up):
                    self._networks.learn_to_invert(self._rows(self.how.batch_size))
            rows = self._rows(max(self.how.batch_size, len(received)))
            for _ in range(self.how.critic_steps):
                self._networks.learn_to_tell(rows, received, self._draws)
            self.error = self._networks.learn_to_invert(rows)
            self.steps += 1
            return self.how.strength * self._networks.lure(received)

    def reconstruct(self, activation: Tensor) -> Tensor:
        """Return what the rows [N, ...] may be of which the client made ``activation`` [N, ...].

        Raises:
            StudyError: The hijacker has not seen a batch yet.
        """
        if self._networks is None:
            raise StudyError(
                "the hijacker has seen no batch", todo="give it to study.simulate(instead=…) first"
            )
        with torch.no_grad():
            found: Tensor = self._networks.inverse(activation.detach().to(self.public.device))
        low, high = self.public.min(), self.public.max()
        return found.reshape(-1, *self.public.shape[1:]).clamp(low, high)

    def _rows(self, count: int) -> Tensor:
        drawn = torch.randint(len(self.public), (count,), generator=self._draws)
        return self.public[drawn.to(self.public.device)]


class _Networks:
    """Pilot, inverse and discriminator with their optimizers, of the shapes and ranges that were seen."""

    def __init__(self, public: Tensor, received: Tensor, how: Hijacking) -> None:
        self.how = how
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream(how.seed, "hijacking", "weights"))
            self.pilot = pilot_of(public.shape[1:], received, how.width).to(public.device)
            self.inverse = inverse_of(received.shape[1:], public.shape[1:], how.width).to(public.device)
            self.critic = discriminator_of(received.shape[1:], how.width).to(public.device)
        both = [*self.pilot.parameters(), *self.inverse.parameters()]
        self._inverts = torch.optim.Adam(both, lr=how.rate)
        self._tells = torch.optim.Adam(self.critic.parameters(), lr=how.critic_rate, betas=(0.5, 0.9))

    def learn_to_invert(self, rows: Tensor) -> float:
        """Do a step of pilot and inverse on public ``rows``; return their mean squared error (equation 2)."""
        self._inverts.zero_grad()
        error = functional.mse_loss(self.inverse(self.pilot(rows)).reshape(rows.shape), rows)
        error.backward()  # type: ignore[no-untyped-call]
        self._inverts.step()
        return float(error.detach())

    def learn_to_tell(self, rows: Tensor, received: Tensor, draws: torch.Generator) -> None:
        """Do a step of the discriminator: high for the pilot's features, low for the client's (equation 3)."""
        with torch.no_grad():
            own = self.pilot(rows)
        self._tells.zero_grad()
        on_own, on_received = self.critic(own), self.critic(received)
        if self.how.wasserstein:
            few = min(len(own), len(received))
            loss = on_received.mean() - on_own.mean()
            loss = loss + self.how.penalty * self._roughness(own[:few], received[:few], draws)
        else:
            loss = functional.softplus(-on_own).mean() + functional.softplus(on_received).mean()
        loss.backward()
        self._tells.step()

    def lure(self, received: Tensor) -> Tensor:
        """Return the gradient that makes the client's features look like the pilot's [B, ...] (equation 4)."""
        leaf = received.clone().requires_grad_()
        on_received = self.critic(leaf)
        loss = -on_received.mean() if self.how.wasserstein else functional.softplus(-on_received).mean()
        gradient: Tensor = torch.autograd.grad(loss, leaf)[0]
        return gradient

    def _roughness(self, own: Tensor, received: Tensor, draws: torch.Generator) -> Tensor:
        """Return how far the critic's slope between the two kinds of features is from 1 (Gulrajani et al. 2017)."""
        share = torch.rand(len(own), *[1] * (own.ndim - 1), generator=draws).to(own.device)
        between = (share * own + (1 - share) * received).requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        roughness: Tensor = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        return roughness


def pilot_of(row: torch.Size, received: Tensor, width: int) -> nn.Module:
    """Return a network from rows of shape ``row`` to features like ``received`` [B, ...], in its range."""
    shape, last = received.shape[1:], _ending(received)
    if len(row) != 3 or len(shape) != 3:
        dense = _dense(math.prod(row), math.prod(shape), 8 * width)
        return nn.Sequential(nn.Flatten(), *dense, nn.Unflatten(1, shape), last)
    strides = [2] * _halvings(row, shape) or [1]
    channels = [row[0], *[width] * (len(strides) - 1), shape[0]]
    layers: list[nn.Module] = []
    for stride, before, after in zip(strides, channels, channels[1:], strict=False):
        layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1], _Fitted(shape[1:]), last)


def inverse_of(shape: torch.Size, row: torch.Size, width: int) -> nn.Module:
    """Return a network from features of ``shape`` to rows of shape ``row``.

    Its range is not bounded: mostly dark images would be learnt as all dark by what saturates.
    """
    if len(row) != 3 or len(shape) != 3:
        dense = _dense(math.prod(shape), math.prod(row), 8 * width)
        return nn.Sequential(nn.Flatten(), *dense, nn.Unflatten(1, row))
    doublings = _halvings(row, shape)
    channels = [shape[0], *[width] * max(1, doublings), row[0]]
    layers: list[nn.Module] = []
    for place, (before, after) in enumerate(itertools.pairwise(channels)):
        doubles = place >= len(channels) - 1 - doublings
        layers += [_doubled(before, after) if doubles else nn.Conv2d(before, after, 3, padding=1)]
        layers += [nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1], _Fitted(row[1:]))


def discriminator_of(shape: torch.Size, width: int) -> nn.Module:
    """Return a network from features of ``shape`` to one number a row."""
    if len(shape) != 3:
        return nn.Sequential(nn.Flatten(), *_dense(math.prod(shape), 1, 8 * width))
    layers: list[nn.Module] = []
    before, side = shape[0], tuple(shape[1:])
    strides = [1, 2] + [2] * max(0, math.ceil(math.log2(max(shape[1:]) / 8)))
    for stride in strides:
        layers += [nn.Conv2d(before, width, 3, stride=stride, padding=1), nn.LeakyReLU(0.2)]
        before, side = width, tuple((n + stride - 1) // stride for n in side)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * math.prod(side), 1))


class _Fitted(nn.Module):
    """Images in another size, where they are not of it yet."""

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = tuple(size)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``images`` [B, C, H, W] in the size."""
        if tuple(images.shape[2:]) == self.size:
            return images
        return functional.interpolate(images, self.size, mode="bilinear", align_corners=False)


def _doubled(before: int, after: int) -> nn.Module:
    """Return a layer from images of ``before`` channels to such of ``after`` channels, twice as high and wide."""
    return nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)


def _dense(inputs: int, outputs: int, width: int) -> list[nn.Module]:
    return [
        nn.Linear(inputs, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, outputs),
    ]


def _halvings(row: torch.Size, shape: torch.Size) -> int:
    return max(0, round(math.log2(row[-1] / shape[-1])))


def _ending(features: Tensor) -> nn.Module:
    """Return the function that ends in the range of ``features``: known from having seen some."""
    low, high = float(features.min()), float(features.max())
    if low >= 0:
        return nn.ReLU()
    return nn.Tanh() if low >= -1 and high <= 1 else nn.Identity()


def _cut_of(graph: SplitGraph, name: str) -> Cut:
    """Return the cut to hijack.

    Raises:
        GraphError: No such cut, or no gradient goes back over it.
    """
    cuts = {cut.name: cut for cut in graph.cuts if cut.kind == "activation" and cut.has_gradient}
    if name and name not in cuts:
        raise GraphError(f"no gradient can be replaced at {name!r}", todo=nearest(name, list(cuts)))
    if not cuts:
        raise GraphError("no gradient goes back over any cut, so there is none to replace")
    return cuts[name] if name else next(iter(cuts.values()))
