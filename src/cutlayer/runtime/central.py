"""The central twin: the uncut network trained by a plain loop on the pooled data in the same order.

Nothing here knows of parties, frames or cuts. It is the independent answer that split training must
equal to the last bit (the correctness lemma of Gupta & Raskar 2018).
"""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Holdings, Records
from ..graph.joined import Joined
from ..graph.parts import Loss, Ref
from ..graph.reconstruction import roles_at_home, taught_at_home
from ..graph.split_graph import SplitGraph
from ..metering.metrics import measure
from ..schedules.calendar import TRAINED, UNLABELLED, Batch, Calendar
from ..schedules.steps import data_roles
from ..seeds import at_step, stream
from .cohorts import Cohorts
from .optim import OptimizerSpec
from .precision import Form

__all__ = ["CentralTwin"]


class CentralTwin:
    """The graph's segments as one network, trained on one machine.

    Args:
        graph: The graph; its modules hold the initial weights and stay as they are.
        holdings: Everybody's data, here on one pile.
        cohorts: The turns' common rows.
        calendar: Which rows when.
        optimizers: By segment.
        device: Where it trains.
        seed: The study's seed: each segment's dropout draws from the stream of its name and step.
        clip: The bound of the gradient's norm, if there is one.
        forms: How the modules of some segments are called.
    """

    def __init__(
        self,
        graph: SplitGraph,
        holdings: Holdings,
        cohorts: Cohorts,
        calendar: Calendar,
        optimizers: Mapping[str, OptimizerSpec],
        seed: int,
        device: str = "cpu",
        clip: float | None = None,
        forms: Mapping[str, Form] | None = None,
    ) -> None:
        self._bound = clip
        self.graph, self.calendar, self.seed = graph, calendar, seed
        self.network = copy.deepcopy(Joined(graph)).to(device)
        self._cuda = torch.device(device).type == "cuda"
        self._pile = _Pile(graph, holdings, cohorts, device, seed)
        self._optimizers, self._schedules = _build(self.network, optimizers, apart=bool(roles_at_home(graph)))
        self._every_step = {name: spec.every == "step" for name, spec in optimizers.items()}
        self._step = 0
        compiles = any(form.compiled is not None for form in (forms or {}).values())
        self._quiet: Callable[[], contextlib.AbstractContextManager[None]] = (
            _unwarned_of_leaves if compiles else contextlib.nullcontext
        )
        for name, segment in self.network.segments.items():
            segment.register_forward_pre_hook(lambda module, args, name=name: self._draw(name))
            if forms and name in forms:
                segment.forward = _formed(segment, forms[name], torch.device(device))

    def train_epoch(self, steps: Iterable[tuple[Batch, ...]]) -> None:
        """Train on the rows of each step's batches, taken together, in order; then move the learning rates on."""
        self.network.train()
        for batches in steps:
            labelled = tuple(batch for batch in batches if batch.split != UNLABELLED)
            if labelled:
                self._learn(self._pile.together(labelled, self.calendar), alone=False)
            for batch in batches:
                if batch.split == UNLABELLED:
                    self._learn(self._pile.rows(batch, self.calendar), alone=True)
        for name, schedule in self._schedules.items():
            if not self._every_step[name]:
                schedule.step()

    def _learn(self, fields: Mapping[str, Mapping[str, Tensor]], *, alone: bool) -> None:
        """Do one step; ``alone`` on rows without labels, which teach encoders and decoders only."""
        total = self._loss(fields, alone=alone)
        for optimizer in self._optimizers.values():
            optimizer.zero_grad()
        torch.autograd.backward(total)
        if self._bound is not None:
            self._clip(self._bound)
        for name, optimizer in self._optimizers.items():
            if alone and name not in taught_at_home(self.graph):
                continue
            optimizer.step()
            if self._every_step[name] and name in self._schedules:
                self._schedules[name].step()
        self._step += 1

    def _clip(self, bound: float) -> None:
        """Scale all gradients to a norm of at most ``bound``; squares are summed by segment, role and all."""
        sums: dict[str, list[float]] = {}
        gradients = []
        for name, segment in self.network.segments.items():
            own = [p.grad for p in segment.parameters() if p.grad is not None]
            gradients += own
            squares = math.fsum(torch.linalg.vector_norm(g).item() ** 2 for g in own)
            sums.setdefault(self.graph.segments[name].role, []).append(squares)
        norm = math.sqrt(math.fsum(math.fsum(of_role) for of_role in sums.values()))
        scale = min(1.0, bound / (norm + 1e-6))
        if scale < 1.0:
            for gradient in gradients:
                gradient.mul_(scale)

    def measure(self, split: str, names: tuple[str, ...] = ()) -> dict[str, dict[str, float]]:
        """Return the metrics of each loss over all rows of ``split``."""
        self.network.eval()
        found: dict[str, list[tuple[Tensor, Tensor]]] = {}
        with torch.no_grad():
            for turn in range(len(self.graph.turns)):
                for index in range(self.calendar.batches(turn, split)):
                    fields = self._pile.rows(Batch(split, turn, 0, index), self.calendar)
                    values = self.network(fields)
                    for loss in self.graph.losses.values():
                        pair = (values[self._prediction(loss.prediction)], self._label(loss, fields))
                        found.setdefault(loss.name, []).append(pair)
        return {
            name: measure(
                self.graph.losses[name],
                torch.cat([p for p, _ in pairs]),
                torch.cat([y for _, y in pairs]),
                names,
            )
            for name, pairs in found.items()
        }

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Return each segment's parameters and buffers."""
        return {
            name: {**dict(s.named_parameters()), **dict(s.named_buffers())}
            for name, s in self.network.segments.items()
        }

    def _loss(self, fields: Mapping[str, Mapping[str, Tensor]], *, alone: bool) -> Tensor:
        with self._quiet():
            values = self.network(fields, taught_at_home(self.graph) if alone else None)
        terms = []
        for loss in self.graph.losses.values():
            if alone and not loss.reconstructs:
                continue
            prediction = values[self._prediction(loss.prediction)]
            term = loss.compute(prediction.view_as(prediction), self._label(loss, fields))
            terms.append(term if loss.weight == 1.0 else term * loss.weight)
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def _label(self, loss: Loss, fields: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
        """Return the label that the loss's own role holds, or else the one that is shared with it."""
        if loss.target in self.graph.roles[loss.role].fields:
            return fields[loss.role][loss.target]
        shares = [s for s in self.graph.shares if (s.field, s.target) == (loss.target, loss.role)]
        return fields[shares[0].source][loss.target]

    def _prediction(self, text: str) -> Ref:
        segment, _, output = text.partition(":")
        return Ref(segment, output or self.graph.segments[segment].outputs[0])

    def _draw(self, name: str) -> None:
        if self.network.training:
            # Not torch.manual_seed: where there is no GPU it notes the call's traceback, a millisecond each time.
            seed = at_step(stream(self.seed, "segment", name), self._step)
            torch.default_generator.manual_seed(seed)
            if self._cuda:
                torch.cuda.manual_seed(seed)


@dataclass
class _Pile:
    """Everybody's rows, fetched by cohort and position."""

    graph: SplitGraph
    holdings: Holdings
    cohorts: Cohorts
    device: str
    seed: int

    def rows(self, batch: Batch, calendar: Calendar) -> dict[str, dict[str, Tensor]]:
        """Return ``{role: {field: rows}}`` of a batch."""
        ids = self.cohorts.ids[batch.turn][batch.split][calendar.positions(batch).numpy()]
        turn = self.graph.turns[batch.turn]
        found = {}
        for role in roles_at_home(self.graph) if batch.split == UNLABELLED else data_roles(self.graph):
            records: Records = self.holdings.party(turn[role]).splits[batch.split]
            positions = records.rows_of(ids)
            rows = (
                records.read(positions, self._seed(role, batch)) if records.lazy else records.batch(positions)
            )
            found[role] = {name: tensor.to(self.device) for name, tensor in rows.items()}
        return found

    def together(self, batches: tuple[Batch, ...], calendar: Calendar) -> dict[str, dict[str, Tensor]]:
        """Return ``{role: {field: rows}}`` of several batches, one behind the other."""
        parts = [self.rows(batch, calendar) for batch in batches]
        if len(parts) == 1:
            return parts[0]
        return {
            role: {name: torch.cat([part[role][name] for part in parts]) for name in fields}
            for role, fields in parts[0].items()
        }

    def _seed(self, role: str, batch: Batch) -> int:
        """Where the augmentation of a role's dataset draws from; an evaluation is the same in every epoch."""
        epoch = batch.epoch if batch.split in TRAINED else 0
        return stream(self.seed, "data", role, batch.split, batch.turn, epoch, batch.number)


def _formed(segment: nn.Module, form: Form, device: torch.device) -> Callable[..., Any]:
    """Return what a segment does in the place of its own forward."""
    train, evaluate = (form.of(segment.forward, device, training=training) for training in (True, False))

    def forward(*inputs: Tensor) -> Any:
        return (train if segment.training else evaluate)(*inputs)

    return forward


@contextlib.contextmanager
def _unwarned_of_leaves() -> Iterator[None]:
    """Let PyTorch's compiler look for gradients of what it is given, which in one network are no leaves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor that is not a leaf")
        yield


def _build(
    network: Joined, specs: Mapping[str, OptimizerSpec], *, apart: bool
) -> tuple[dict[str, torch.optim.Optimizer], dict[str, torch.optim.lr_scheduler.LRScheduler]]:
    """One optimizer over the whole network where all segments have the same settings, else (or ``apart``) one each."""
    groups: dict[str, list[nn.Parameter]] = {}
    chosen: dict[str, OptimizerSpec] = {}
    same = len(set(map(repr, specs.values()))) == 1 and not apart
    for name, segment in network.segments.items():
        parameters = [p for p in segment.parameters() if p.requires_grad]
        if parameters:
            key = next(iter(specs)) if same else name
            groups.setdefault(key, []).extend(parameters)
            chosen[key] = specs[name]
    optimizers = {key: chosen[key].build(parameters) for key, parameters in groups.items()}
    schedules = {
        key: spec.build(optimizers[key]) for key in groups if (spec := chosen[key].schedule) is not None
    }
    return optimizers, schedules
