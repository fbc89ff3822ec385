"""All places at which a module can be cut, with what would cross and what would run before."""

from __future__ import annotations

import copy
import keyword
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from ..errors import CutError
from .measuring import Measured, measure, worlds_of
from .splitting import Course, Refusal, Split
from .tracing import Trace, in_mode, is_free, trace

__all__ = ["Candidate", "Survey", "candidates"]


@dataclass(frozen=True)
class Candidate:
    """A place between two steps of a forward.

    Attributes:
        name: The word to cut with: the module that has just run there.
        tensors: What crosses: shape of one sample by the value's name.
        bytes_per_sample: What crosses forwards, in bytes, uncompressed.
        parameters: Parameters before the cut.
        flops_share: Forward FLOPs before the cut divided by all.
        works: Whether the model can be cut there.
        reason: Why not; empty if it works.
    """

    name: str
    tensors: Mapping[str, tuple[int, ...]]
    bytes_per_sample: int
    parameters: int
    flops_share: float
    works: bool
    reason: str = ""


def candidates(model: nn.Module, example: Tensor | Sequence[Tensor]) -> list[Candidate]:
    """Return the places at which ``model`` can be cut in two, in execution order.

    Modules that end at the same place are listed once, under the outermost name; every name is accepted
    by :func:`~cutlayer.graph.cutting.cut_module`. Places that will not do are listed with the reason.

    Args:
        model: Any module; it is not changed.
        example: A few rows of its input, or a tuple of its inputs.

    Raises:
        CutError: The model does not run on the example, or its own forward cannot be followed.
    """
    return Survey(copy.deepcopy(model), example).candidates()


class Survey:
    """A model traced and measured in training and in evaluation mode.

    Args:
        model: A copy of the model; it is left with its buffers as they were.
        example: Rows of its inputs.
        enter: Paths of ``torch.nn`` submodules to look into.
    """

    def __init__(
        self, model: nn.Module, example: Tensor | Sequence[Tensor], enter: Collection[str] = ()
    ) -> None:
        for path, _ in model.named_modules():
            if any(map(keyword.iskeyword, path.split("."))):
                raise CutError(f"module {path!r} is named like a Python keyword", todo="rename it")
        self.model = model
        self.worlds = worlds_of(example)
        buffers = [(b, b.detach().clone()) for b in model.buffers()]
        with in_mode(model, True):
            training = trace(model, self.worlds, enter)
        with in_mode(model, False):
            evaluation = trace(model, self.worlds, enter)
        same = training.same_steps(evaluation)
        with in_mode(model, True):
            self.training = self._course(training)
        with in_mode(model, False):
            self.evaluation = self.training if same else self._course(evaluation)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)

    def _course(self, traced: Trace) -> Course:
        measured = measure(traced, self.model, self.worlds[0])
        longer = measured
        if any(not is_free(node) and value is not None for node, value in measured.plain.items()):
            longer = self._longer(traced) or measured
        return Course(traced, measured, longer, self.model)

    def _longer(self, traced: Trace) -> Measured | None:
        try:
            return measure(traced, self.model, self.worlds[1])
        except CutError:  # this model takes only the number of rows of the example
            return None

    @property
    def courses(self) -> tuple[Course, ...]:
        """What happens in training and, if that differs, in evaluation."""
        return (self.training,) if self.evaluation is self.training else (self.training, self.evaluation)

    def ends(self, path: str) -> list[list[fx.Node]]:
        """Return, for each course, the steps with which the calls of module ``path`` end."""
        return [course.trace.ends.get(path, []) for course in self.courses]

    def obstacle(self, path: str) -> str:
        """Return why there is no one place "after module ``path``"; empty if there is."""
        calls = max(map(len, self.ends(path)))
        if calls > 1:
            return f"module {path!r} runs {calls} times, so 'after {path}' is not one place"
        if all(self.ends(path)):
            return ""
        for course in self.courses:
            for outer, reason in course.trace.opaque.items():
                if path.startswith(f"{outer}."):
                    return f"it is inside {outer!r}, whose forward cannot be followed: {reason}"
        return f"module {path!r} never runs by itself in forward"

    def position(self, path: str) -> int:
        """Return where in execution order ``path`` ends, or the module around it that is known."""
        while path:
            nodes = self.ends(path)[0]
            if nodes:
                return self.training.order[nodes[-1]]
            path = path.rpartition(".")[0]
        return 0

    def split(self, paths: Sequence[str]) -> tuple[Split, Split]:
        """Return the split after the modules ``paths``, for training and for evaluation."""
        splits = [Split(course, [course.trace.ends[p][0] for p in paths]) for course in self.courses]
        return splits[0], splits[-1]

    def refusal(self, paths: Sequence[str], roles: Sequence[str] | None = None) -> Refusal | None:
        """Return why the model cannot be cut after ``paths`` with ``roles``, or None."""
        return self._refusal(self.split(paths), roles or [f"piece-{i}" for i in range(len(paths) + 1)])

    def _refusal(self, splits: tuple[Split, Split], roles: Sequence[str]) -> Refusal | None:
        training, evaluation = splits
        refusal = training.refusal(roles) or evaluation.refusal(roles)
        all_cuts = tuple(range(training.count - 1))
        if refusal is None and training.names(training.results) != evaluation.names(evaluation.results):
            return Refusal("the model returns other things in training than in evaluation", all_cuts)
        if refusal is None and _crossing(training) != _crossing(evaluation):
            return Refusal("other tensors would cross in training than in evaluation", all_cuts)
        return refusal

    def paths(self) -> list[str]:
        """Return the paths of all submodules that have an end, in execution order."""
        found = [path for path in self.training.trace.ends if not self.obstacle(path)]
        return sorted(found, key=lambda path: (self.position(path), path.count(".")))

    def candidates(self) -> list[Candidate]:
        """Return what :func:`candidates` returns."""
        found: dict[tuple[object, ...], tuple[int, int, Candidate]] = {}
        for path in self.paths():
            split, other = self.split([path])
            refusal = self._refusal((split, other), ("piece-0", "piece-1"))
            one = self._candidate(path, split, refusal)
            key = (tuple(one.tensors), one.reason)
            rank = (self.position(path), path.count("."), one)
            if key not in found or rank[1] < found[key][1]:
                found[key] = rank
        hopeless = [p for p, _ in self.model.named_modules() if p and self._worth_a_reason(p)]
        listed = list(found.values())
        for path in hopeless:
            one = Candidate(path, {}, 0, 0, 0.0, works=False, reason=self.obstacle(path))
            listed.append((self.position(path), path.count("."), one))
        return [one for _, _, one in sorted(listed, key=lambda item: item[:2])]

    def _worth_a_reason(self, path: str) -> bool:
        reason = self.obstacle(path)
        return bool(reason) and not reason.endswith("never runs by itself in forward")

    def _candidate(self, path: str, split: Split, refusal: Refusal | None) -> Candidate:
        measured = self.training.measured
        specs = [measured.specs[node] for node in split.inputs[1]]
        sizes = {id(p): p.numel() for p in self.model.parameters()}
        total = max(measured.flops.values())
        before = measured.flops[self.training.trace.ends[path][0]]
        count = sum(math.prod(s.shape) * s.dtype.itemsize for s in specs)
        shapes = [s.shape[1:] if s.shape[:1] == (measured.rows,) else s.shape for s in specs]
        return Candidate(
            name=path,
            tensors=dict(zip(split.names(split.inputs[1]), shapes, strict=True)),
            bytes_per_sample=math.ceil(count / measured.rows),
            parameters=sum(sizes.get(identity, 0) for identity in split.state(0)),
            flops_share=before / total if total else 0.0,
            works=refusal is None,
            reason="" if refusal is None else refusal.reason,
        )


def _crossing(split: Split) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(split.names(i), split.names(o)) for i, o in zip(split.inputs, split.outputs, strict=True)]
