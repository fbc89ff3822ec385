"""What a run's differential privacy is worth: epsilon and delta, of what, against whom, and under which conditions.

Two data sets are neighbours if one row differs (replace-one), so a row clipped to ``clip`` changes what is released by
at most ``2 * clip``. A row is released once in each epoch in which it is trained on or measured. Which rows are in a
batch is no secret in split learning, so no amplification by sampling is counted. The figures are worked out by the
library dp-accounting (Google): Gaussian releases compose to one, of which epsilon is known exactly (Balle and
Wang 2018; Dong, Roth and Su 2022, corollary 3.3); others by privacy loss distributions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ..errors import StudyError
from .base import Defence
from .dp_sgd import DPSGD, mixing_layer
from .label_dp import LabelDP
from .noising import GaussianNoise, LaplaceNoise

if TYPE_CHECKING:
    from ..graph.parts import Cut, Role
    from ..graph.split_graph import SplitGraph

__all__ = ["Guarantee", "Release", "epsilon_of", "guarantees", "sampled_epsilon"]

Law = Literal["gaussian", "laplace"]

_GETS = "whoever gets that segment's weights alone"
_FINEST, _STEPS = 1e-4, 50_000
"""Privacy loss is counted in steps of at least the first, and about the second number of them at most."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """What is released of a row, some number of times.

    Attributes:
        law: The noise's: ``"gaussian"`` or ``"laplace"``.
        multiplier: Its deviation (Laplace: its scale) over what a row can change, in the norm that fits.
        times: How often.
    """

    law: Law
    multiplier: float
    times: int


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """What is promised about one unit.

    Attributes:
        epsilon: How much more likely anything released can become; infinity where nothing is promised.
        delta: With which probability the promise does not hold.
        unit: What is protected.
        adversary: From whom.
        mechanism: By what.
        releases: How often something of the unit is released.
        supposes: What the promise supposes, or why there is none; empty where it holds as it stands.
    """

    epsilon: float
    delta: float
    unit: str
    adversary: str
    mechanism: str
    releases: int
    supposes: str = ""

    def __str__(self) -> str:
        times = "1 release" if self.releases == 1 else f"{self.releases} releases"
        if math.isinf(self.epsilon):
            text = f"no differential privacy by {self.mechanism}"
            return f"{text}: {self.supposes}" if self.supposes else text
        promise = f"epsilon {self.epsilon:.3g}" + (f" at delta {self.delta:g}" if self.delta else "")
        text = f"{promise} for {self.unit}, against {self.adversary}, by {self.mechanism}, {times}"
        return f"{text}; supposes that {self.supposes}" if self.supposes else text


def guarantees(
    graph: SplitGraph, epochs: int, evaluated: Collection[str], delta: float
) -> tuple[Guarantee, ...]:
    """Return what all differential privacy of a study promises.

    Where all that leaves a role is noised and all its weights learn by DP-SGD, that is one promise against everyone.
    Otherwise there is one for each mechanism, with what it supposes.

    Args:
        graph: The split graph, with its defences.
        epochs: How many at most.
        evaluated: Splits that are measured after each epoch.
        delta: With which probability a promise need not hold, in [0, 1); less than one over the number of rows.

    Raises:
        StudyError: Delta cannot be that, or the library is not installed.
    """
    if not 0 <= delta < 1:
        raise StudyError(
            "delta cannot be that", got=str(delta), expected="at least 0 and less than 1, e.g. 1e-5"
        )
    found: list[Guarantee] = []
    for role in graph.roles.values():
        found += _Sender(graph, role, epochs, evaluated, delta).guarantees()
    return (*found, *_of_labels(graph))


def epsilon_of(releases: Sequence[Release], delta: float) -> float:
    """Return the epsilon of all ``releases`` of a row together, at ``delta``.

    Each may depend on what the ones before it released (adaptive composition).

    Raises:
        StudyError: The library is not installed.
    """
    releases = [release for release in releases if release.times]
    if any(release.multiplier <= 0 for release in releases):
        return math.inf
    pure = math.fsum(r.times / r.multiplier for r in releases if r.law == "laplace")
    squares = math.fsum(r.times / r.multiplier**2 for r in releases if r.law == "gaussian")
    library = _library()
    normal = float(library.get_epsilon_gaussian(1 / math.sqrt(squares), delta)) if squares else 0.0
    if not pure or not delta:
        return normal + pure
    return min(normal + pure, _by_distribution(library, releases, delta, normal + pure))


def sampled_epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    """Return what DP-SGD would be worth if each batch were drawn by Poisson sampling and nobody knew who was in it.

    This is what is mostly quoted for DP-SGD. It is not what a split learning run gives; and its neighbours have a row
    more or less (add-or-remove-one), not another row.

    Args:
        noise: The deviation of the noise as a multiple of the clipping bound.
        rate: The probability with which a row is in a batch, in (0, 1].
        steps: How many batches.
        delta: With which probability the promise need not hold, in (0, 1).

    Raises:
        StudyError: An argument is out of range, or the library is not installed.
    """
    if not (noise > 0 and 0 < rate <= 1 and steps > 0 and 0 < delta < 1):
        raise StudyError(
            "no epsilon follows from these",
            got=f"noise {noise}, rate {rate}, steps {steps}, delta {delta}",
            expected="noise and steps above 0, a rate in (0, 1], a delta in (0, 1)",
        )
    made = _library().pld.privacy_loss_distribution.from_gaussian_mechanism(noise, sampling_prob=rate)
    return float(made.self_compose(steps).get_epsilon_for_delta(delta))


class _Sender:
    """One role, what leaves it and what it learns by."""

    def __init__(
        self, graph: SplitGraph, role: Role, epochs: int, evaluated: Collection[str], delta: float
    ) -> None:
        self._graph, self._role, self._epochs, self._delta = graph, role, epochs, delta
        self._rounds = epochs * (2 if "train" in evaluated else 1)
        self._cuts = [cut for cut in graph.cuts if cut.source == role.name and cut.kind == "activation"]
        self._noise = {cut.name: _of(cut, GaussianNoise, LaplaceNoise) for cut in self._cuts}
        self._learns = {cut.producer: d for cut in self._cuts for d in _of(cut, DPSGD)}
        own = [s for s in graph.segments.values() if s.role == role.name]
        self._trained = {s.name for s in own if any(p.requires_grad for p in s.module.parameters())}
        self._mixing = next((layer for s in own if (layer := mixing_layer(s.module))), None)
        inputs = dict.fromkeys(r for s in own for r in graph.wiring[s.name] if isinstance(r, str))
        self._unit = f"one row's {' and '.join(inputs) or 'data'} at {role.name}"

    def guarantees(self) -> list[Guarantee]:
        """Return one promise for all, or one for each mechanism."""
        noising = [(cut, defence) for cut in self._cuts for defence in self._noise[cut.name][:1]]
        learning = list(self._learns.items())
        if noising and self._complete():
            releases = [self._left(cut, d) for cut, d in noising] + [self._learnt(d) for _, d in learning]
            words = [f"{d} at {cut.name}" for cut, d in noising] + [f"{d} of {name}" for name, d in learning]
            return [self._promise(releases, "everyone else together", " and ".join(words), "")]
        found = []
        for cut, defence in noising:
            supposes, bound = self._left_supposes(cut)
            release = self._left(cut, defence)
            if not bound:
                release = replace(release, multiplier=0.0)
            found.append(self._promise([release], cut.target, f"{defence} at {cut.name}", supposes))
        for name, dp_sgd in learning:
            found.append(
                self._promise([self._learnt(dp_sgd)], _GETS, f"{dp_sgd} of {name}", self._learnt_supposes())
            )
        return found

    def _promise(self, releases: list[Release], adversary: str, mechanism: str, supposes: str) -> Guarantee:
        epsilon = epsilon_of(releases, self._delta)
        if math.isinf(epsilon) and not supposes:
            supposes = "its noise is 0" if any(not r.multiplier for r in releases) else "delta is 0"
        return Guarantee(
            epsilon=epsilon,
            delta=self._delta,
            unit=self._unit,
            adversary=adversary,
            mechanism=mechanism,
            releases=sum(release.times for release in releases),
            supposes=supposes,
        )

    def _left(self, cut: Cut, defence: Defence) -> Release:
        """Return what leaves over ``cut``: clipped rows, of which a replaced one is at most ``2 * clip`` away."""
        times = self._rounds * len(cut.tensors)
        law: Law = "laplace" if isinstance(defence, LaplaceNoise) else "gaussian"
        return Release(law=law, multiplier=_noise(defence) / 2, times=times)

    def _learnt(self, defence: Defence) -> Release:
        return Release(law="gaussian", multiplier=_noise(defence) / 2, times=self._epochs)

    def _complete(self) -> bool:
        """Return whether all that leaves the role is noised or learnt with noise."""
        receives = any(cut.target == self._role.name and cut.kind == "activation" for cut in self._graph.cuts)
        noised = all(self._noise[cut.name] and _floats(cut) for cut in self._cuts)
        return noised and not receives and not self._mixing and self._trained <= self._learns.keys()

    def _left_supposes(self, cut: Cut) -> tuple[str, bool]:
        """Return what noise at ``cut`` supposes, and whether it then bounds anything."""
        if self._mixing:
            return f"layer {self._mixing} lets the rows of a batch change each other; use GroupNorm", False
        if not _floats(cut):
            return "whole numbers cross this cut too, to which no noise is added", False
        others = [other.name for other in self._cuts if not self._noise[other.name]]
        if others:
            return f"nothing is learnt from what crosses {' and '.join(others)}, without noise", True
        return (
            "the sending weights tell nothing of the row; they learn from it, and what leaves for other rows shows "
            "them (dp-sgd at the same cut bounds that)"
        ), True

    def _learnt_supposes(self) -> str:
        if len(self._trained) > len(self._learns):
            others = " and ".join(sorted(self._trained - self._learns.keys()))
            return f"the weights of {others}, which learn without dp-sgd, and the gradients tell nothing of the row"
        return (
            "the gradients that come back tell nothing of the row but its own; they follow from weights that learnt "
            "from its activations (gaussian or laplace at the same cut bounds that)"
        )


def _of_labels(graph: SplitGraph) -> list[Guarantee]:
    """Return what randomised response promises of labels; once, where it stands at several cuts."""
    chosen = dict.fromkeys(defence for cut in graph.cuts for defence in _of(cut, LabelDP))
    return [
        Guarantee(
            epsilon=float(defence.epsilon),
            delta=0.0,
            unit="one training label",
            adversary="everyone but the party that holds it",
            mechanism=str(defence),
            releases=1,
        )
        for defence in chosen
        if isinstance(defence, LabelDP)
    ]


def _of(cut: Cut, *kinds: type[Defence]) -> list[Defence]:
    return [defence for defence in cut.defences if isinstance(defence, kinds)]


def _noise(defence: Defence) -> float:
    return float(defence.noise) if isinstance(defence, GaussianNoise | LaplaceNoise | DPSGD) else 0.0


def _floats(cut: Cut) -> bool:
    return all(spec is None or spec.dtype.is_floating_point for spec in cut.specs)


def _by_distribution(library: Any, releases: Sequence[Release], delta: float, most: float) -> float:
    """Return epsilon by composing privacy loss distributions; ``most`` is an upper bound."""
    made = library.pld.privacy_loss_distribution
    makers = {"gaussian": made.from_gaussian_mechanism, "laplace": made.from_laplace_mechanism}
    step = max(_FINEST, most / _STEPS)
    total = None
    for release in releases:
        one = makers[release.law](release.multiplier, value_discretization_interval=step)
        several = one.self_compose(release.times)
        total = several if total is None else total.compose(several)
    return float(total.get_epsilon_for_delta(delta)) if total is not None else 0.0


def _library() -> Any:
    """Return the module ``dp_accounting``.

    Raises:
        StudyError: It is not installed.
    """
    try:
        import dp_accounting
    except ImportError as error:
        raise StudyError(
            "epsilon is worked out by dp-accounting, which is not installed",
            todo="pip install 'cutlayer[privacy]'",
        ) from error
    return dp_accounting
