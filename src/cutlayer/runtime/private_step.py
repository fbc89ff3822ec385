"""DP-SGD at work: the gradient of each row of a segment's weights, clipped, summed, and hidden in noise.

Opacus (Yousefpour et al. 2021, arXiv 2109.12298) knows how a layer's gradients row by row follow from its input and its
output's gradient. It is asked layer by layer, since its own wrapper of a module supposes that a backward belongs to the
last forward, which in a pipeline of micro-batches it does not. What a layer got lies in the batch's graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import StudyError
from ..graph.split_graph import SplitGraph
from ..privacy import Facts, Noise
from ..privacy.base import acts
from ..privacy.dp_sgd import DPSGD, clipped_sums, mixing_layer

__all__ = ["Private", "PrivateStep", "private_segments"]

_NEAR = 0.02
"""By how much the rows' gradients may differ in sum from the whole batch's, over the larger norm (bfloat16: 0.01)."""
_ROUNDING = 1e-4
"""The same, over the largest norm of any weight's: some gradients are zero but for rounding (biases of keys)."""

Call = tuple[nn.Module, Tensor, Tensor]
"""A layer, what it got [B, ...], and the gradient of what it returned [B, ...]."""


@dataclass(frozen=True, kw_only=True)
class Private:
    """How a party's working copies of one segment learn.

    Attributes:
        party: The party.
        segment: The segment.
        settings: Clipping and noise.
        secret: The party's own, from which the noise follows.
        facts: Where what was done is noted.
    """

    party: str
    segment: str
    settings: DPSGD
    secret: bytes
    facts: Facts


def private_segments(
    graph: SplitGraph,
    party: str,
    compiled: Sequence[str],
    secret: Callable[[str], bytes],
    facts: Callable[[str, str, str], dict[str, list[float]]],
) -> dict[str, Private]:
    """Return how those segments of a party learn that learn by DP-SGD, by name.

    Args:
        graph: The split graph, with its defences.
        party: The party.
        compiled: Segments that are compiled.
        secret: Returns its secret.
        facts: Returns where the facts of a party, a cut and a defence are kept.

    Raises:
        StudyError: A segment's rows cannot be told apart, or it cannot learn so.
    """
    found: dict[str, Private] = {}
    role = graph.role_of(party).name
    for cut in graph.cuts:
        for settings in cut.defences:
            if cut.source != role or not isinstance(settings, DPSGD):
                continue
            name = cut.producer
            if name in found and found[name].settings != settings:
                raise StudyError(
                    f"segment {name!r} cannot learn by two kinds of DP-SGD",
                    got=f"{found[name].settings} and {settings}",
                    todo="choose the same at each of its cuts",
                )
            _check(graph, name, compiled)
            found[name] = Private(
                party=party,
                segment=name,
                settings=settings,
                secret=secret(party),
                facts=Facts(facts(party, cut.name, str(settings))),
            )
    return found


def _check(graph: SplitGraph, name: str, compiled: Sequence[str]) -> None:
    layer = mixing_layer(graph.segments[name].module)
    if layer is not None:
        raise StudyError(
            f"segment {name!r} cannot learn by DP-SGD: its layer {layer} lets the rows of a batch change each "
            "other, so there is no gradient of one row by itself to clip",
            todo="use GroupNorm or LayerNorm, which normalise each row by itself",
        )
    if name in compiled:
        raise StudyError(
            f"segment {name!r} cannot learn by DP-SGD when it is compiled: its layers are not seen one by one",
            todo="leave it out of compiled",
        )
    for cut in graph.cuts:
        for defence in cut.defences:
            if cut.producer == name and acts(defence, "penalty"):
                raise StudyError(
                    f"segment {name!r} cannot learn by DP-SGD and {defence.word} at once: the penalty compares rows "
                    "with each other, so a row is in the other rows' gradients too",
                    cut=cut.name,
                    todo="choose one of them",
                )


class Layers:
    """Gradients row by row, as Opacus works them out for one layer after another.

    Args:
        private: Whose layers.

    Raises:
        StudyError: Opacus is not installed.
    """

    def __init__(self, private: Private) -> None:
        self._private = private
        try:
            from opacus.grad_sample import GradSampleModule
            from opacus.grad_sample.functorch import ft_compute_per_sample_gradient, prepare_layer
            from opacus.layers import DPGRU, DPLSTM, DPRNN
        except ImportError as error:
            raise StudyError(
                "DP-SGD takes gradients row by row with Opacus, which is not installed",
                party=private.party,
                todo="pip install 'cutlayer[privacy]'",
            ) from error
        self._known: Mapping[type[nn.Module], Any] = GradSampleModule.GRAD_SAMPLERS
        self._any, self._prepare = ft_compute_per_sample_gradient, prepare_layer
        self._frames = (DPRNN, DPLSTM, DPGRU)  # they show their cells' weights as their own

    def of(self, module: nn.Module) -> Iterator[nn.Module]:
        """Yield the parts of ``module`` that hold weights that learn; one that Opacus does not know is taken whole."""
        own = any(p.requires_grad for p in module.parameters(recurse=False))
        if own and not isinstance(module, self._frames):
            if type(module) not in self._known:
                try:
                    self._prepare(module)
                except Exception as error:
                    raise self._refusal(module, str(error)) from error
                yield module
                return
            yield module
        for child in module.children():
            yield from self.of(child)

    def check(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any, rows: int) -> Tensor:
        """Return what a layer got, its rows first.

        Raises:
            StudyError: Rows cannot be told apart in it.
        """
        tensors = [one for one in (*inputs, output) if isinstance(one, Tensor)]
        if len(inputs) != 1 or len(tensors) != 2:
            raise self._refusal(layer, "it does not make one tensor of one tensor")
        if any(one.ndim == 0 or len(one) != rows for one in tensors):
            shapes = " and ".join(str(tuple(one.shape)) for one in tensors)
            raise self._refusal(
                layer, f"its tensors of shape {shapes} do not have the batch's {rows} rows first"
            )
        return tensors[0].detach()

    def samples(self, layer: nn.Module, got: Tensor, gradient: Tensor) -> dict[nn.Parameter, Tensor]:
        """Return the gradient of each row [B, ...], for each weight of ``layer``.

        Raises:
            StudyError: Opacus cannot work it out.
        """
        dtype = next(p.dtype for p in layer.parameters() if p.requires_grad)
        got = got.to(dtype) if got.is_floating_point() else got
        sampler = self._known.get(type(layer), self._any)
        try:
            with torch.no_grad():
                found = sampler(layer, [got], gradient.to(dtype))
        except Exception as error:
            raise self._refusal(layer, f"{type(error).__name__}: {error}") from error
        return {p: sample for p, sample in found.items() if p.requires_grad}

    def _refusal(self, layer: nn.Module, why: str) -> StudyError:
        return StudyError(
            f"segment {self._private.segment!r} cannot learn by DP-SGD: the gradients of its {type(layer).__name__} "
            f"cannot be taken row by row: {why}",
            party=self._private.party,
            todo="use other layers, e.g. those of opacus.layers for attention and recurrence, or freeze this one",
        )


class PrivateStep:
    """What stands between the backward of a segment and its optimizer.

    Args:
        module: The working copy.
        parameters: Its weights that learn.
        forward: What is called in the module's place in training.
        private: How it learns.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Sequence[nn.Parameter],
        forward: Callable[..., Any],
        private: Private,
    ) -> None:
        self._names = {id(parameter): name for name, parameter in module.named_parameters()}
        self._parameters, self._forward, self._private = list(parameters), forward, private
        self._layers = Layers(private)
        self._now: _Pass | None = None
        self._arrived: dict[_Pass, dict[int, Call]] = {}
        self._sums: list[Tensor] = []
        self._rows = 0
        self._places: list[int] = []
        self._checked = False
        for layer in self._layers.of(module):
            layer.register_forward_hook(self._called)

    def forward(self, *inputs: Tensor) -> Any:
        """Run the segment on a batch and keep what its rows' gradients will follow from."""
        # The runtime seeds PyTorch anew for each segment and step, so this seed names them.
        self._now = _Pass(len(inputs[0]), torch.initial_seed())
        try:
            return self._forward(*inputs)
        finally:
            self._now = None

    def gather(self) -> None:
        """Add the clipped gradients of the batches whose backward is done."""
        arrived, self._arrived = self._arrived, {}
        for one, calls in arrived.items():
            samples = self._samples(one.rows, calls.values())
            if not self._checked and len(arrived) == 1:
                self._compare(samples)
            sums = clipped_sums(samples, self._private.settings.clip, one.rows, self._private.facts)
            self._sums = [a + b for a, b in zip(self._sums, sums, strict=True)] if self._sums else sums
            self._rows += one.rows
            self._places.append(one.place)
        for parameter in self._parameters:
            parameter.grad = None

    def settle(self) -> None:
        """Give the weights the noisy mean of the clipped gradients, if any came since the last step."""
        if self._arrived:
            self.gather()
        if not self._rows:
            return
        mean = self._noised(torch.cat([total.reshape(-1) for total in self._sums])) / self._rows
        parts = torch.split(mean, [parameter.numel() for parameter in self._parameters])
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.grad = part.reshape(parameter.shape).to(parameter.dtype)
        self._sums, self._rows, self._places = [], 0, []

    def _noised(self, total: Tensor) -> Tensor:
        """Return the sum of all weights' gradients [D] with noise."""
        private = self._private
        deviation = private.settings.noise * private.settings.clip
        if not deviation:
            return total
        settings = str(private.settings)
        noise = Noise(private.secret, "dp-sgd", private.segment, settings, *self._places, hides=total)
        result = total + noise.normal(total) * deviation
        really = float((result - total).double().square().mean()) ** 0.5
        private.facts.add("deviation added", really, self._rows)
        return result

    def _called(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what a layer got, until the gradient of what it returned comes."""
        one = self._now
        if one is None or not torch.is_grad_enabled():
            return
        got = self._layers.check(layer, inputs, output, one.rows)
        output.register_hook(partial(self._came, one, one.calls, layer, got))
        one.calls += 1

    def _came(self, one: _Pass, number: int, layer: nn.Module, got: Tensor, gradient: Tensor) -> None:
        # A backward that puts off weights' gradients comes by twice, with the same gradient.
        self._arrived.setdefault(one, {})[number] = (layer, got, gradient.detach())

    def _samples(self, rows: int, calls: Iterable[Call]) -> list[Tensor]:
        """Return the gradient of each row [B, ...] of the mean over the batch, for each weight."""
        found: dict[int, Tensor] = {}
        for layer, got, gradient in calls:
            for parameter, sample in self._layers.samples(layer, got, gradient).items():
                key = id(parameter)
                found[key] = found[key] + sample if key in found else sample
        return [
            found[id(p)] if id(p) in found else p.new_zeros(()).expand(rows, *p.shape)
            for p in self._parameters
        ]

    def _compare(self, samples: Sequence[Tensor]) -> None:
        """Find out whether the rows' gradients make that of the batch: a weight may be used where no layer shows it.

        Raises:
            StudyError: They do not.
        """
        self._checked = True
        known = []
        for parameter, sample in zip(self._parameters, samples, strict=True):
            whole = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            size = max(float(whole.norm()), float(sample.norm()))
            known.append((parameter, float((sample.sum(0) - whole).norm()), size))
        rounding = _ROUNDING * max(size for _, _, size in known)
        for parameter, far, size in known:
            if far > _NEAR * size + rounding:
                raise StudyError(
                    f"segment {self._private.segment!r} cannot learn by DP-SGD: the gradients of its weight "
                    f"{self._names[id(parameter)]!r}, row by row, do not make that of the batch",
                    party=self._private.party,
                    todo="use each weight in the layer that holds it, with the batch's rows first, and let no row "
                    "change another",
                )


@dataclass(slots=True, eq=False)
class _Pass:
    """One batch's way through the segment: its rows, what tells its noise from other steps', and calls of layers."""

    rows: int
    place: int
    calls: int = 0
