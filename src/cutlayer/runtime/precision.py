"""How a segment's module is called: as it is, in mixed precision (autocast), compiled, or both.

Weights, gradients, optimizer and state stay those of the module in every case, and so do dtypes at the cuts: what
runs under autocast returns its results in the dtype that the graph states.
"""

from __future__ import annotations

import copy
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import StudyError, nearest
from ..graph.flops import flop_counter
from ..graph.parts import Ref
from ..graph.split_graph import SplitGraph

__all__ = ["Form", "check_compiler", "compiled_of", "flops_apart", "forms_of", "precision_of"]

Forward = Callable[..., Any]
"""Something that is called like a module."""

_WORDS = ("float32", "bfloat16")
_MOST_SHAPES = 64
"""How many shapes of inputs a segment is compiled for."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """How one segment's module is called.

    Attributes:
        dtypes: Of its outputs, as the graph states them.
        precision: ``"float32"``: as it is; ``"bfloat16"``: under autocast.
        compiled: What runs the segment compiled, in training: ``compiled(module, *inputs)``; shared by all copies.
    """

    dtypes: tuple[torch.dtype | None, ...]
    precision: str = "float32"
    compiled: Forward | None = None

    def of(self, forward: Forward, device: torch.device, *, training: bool) -> Forward:
        """Return what to call in the place of ``forward``, a module on ``device`` or what does the same.

        An evaluation is not compiled: it is a small part of the work, and has shapes of its own to compile for.
        """
        if training and self.compiled is not None:
            forward = functools.partial(self.compiled, forward)
        if self.precision == "float32":
            return forward
        return _under_autocast(forward, device.type, self.dtypes)


def precision_of(given: str | Mapping[str, str], segments: Sequence[str]) -> dict[str, str]:
    """Return the precision of the segments that do not have float32, by name.

    Args:
        given: A word for all, or one for some: ``{"top": "bfloat16"}``.
        segments: Those that there are.

    Raises:
        StudyError: No such segment, or a precision that is not offered.
    """
    words = dict(given) if isinstance(given, Mapping) else dict.fromkeys(segments, given)
    for name, word in words.items():
        if name not in segments:
            raise StudyError(
                f"a precision is given for the unknown segment {name!r}",
                todo=nearest(str(name), tuple(segments)),
            )
        _check_word(word)
    return {name: words[name] for name in segments if words.get(name, "float32") != "float32"}


def _check_word(word: object) -> None:
    if word in ("float16", "half", torch.float16):
        raise StudyError(
            "precision 'float16' is not offered: its gradients vanish unless the loss is scaled, and all parties "
            "of a step would have to agree on the scale and on the steps to leave out",
            todo="say 'bfloat16', which has the range of float32 and needs no scale",
        )
    if word not in _WORDS:
        raise StudyError(
            f"there is no precision {word!r}", expected=" or ".join(map(repr, _WORDS)),
            todo=nearest(str(word), _WORDS),
        )  # fmt: skip


def compiled_of(given: Sequence[str], segments: Sequence[str]) -> tuple[str, ...]:
    """Return the segments to compile, in the graph's order.

    Raises:
        StudyError: No such segment.
    """
    for name in given:
        if name not in segments:
            raise StudyError(
                f"there is no segment {name!r} to compile", todo=nearest(str(name), tuple(segments))
            )
    return tuple(name for name in segments if name in given)


def forms_of(graph: SplitGraph, precision: Mapping[str, str], compiled: Sequence[str]) -> dict[str, Form]:
    """Return how to call the segments that are not just called, by name."""
    return {
        name: Form(
            dtypes=tuple(_dtype(graph, Ref(name, output)) for output in graph.segments[name].outputs),
            precision=precision.get(name, "float32"),
            compiled=_compiled() if name in compiled else None,
        )
        for name in graph.order
        if name in precision or name in compiled
    }


def _dtype(graph: SplitGraph, ref: Ref) -> torch.dtype | None:
    spec = graph.specs.get(ref)
    return None if spec is None else spec.dtype


def _under_autocast(forward: Forward, device: str, dtypes: tuple[torch.dtype | None, ...]) -> Forward:
    def run(*inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        with torch.autocast(device, torch.bfloat16):
            result = forward(*inputs)
        if isinstance(result, Tensor):
            return result if dtypes[0] is None else result.to(dtypes[0])
        return tuple(
            [one if dtype is None else one.to(dtype) for one, dtype in zip(result, dtypes, strict=True)]
        )

    return run


def _run(module: Forward, *inputs: Tensor) -> Any:
    return module(*inputs)


def _compiled() -> Forward:
    """Return what runs compiled modules of one kind.

    Compiled for each shape by itself (``dynamic=False``), so that which code runs does not depend on what came before,
    and as a whole or not at all (``fullgraph``), so that nothing falls back unseen: both would change bits after a
    restart. Dropout draws what it draws when not compiled.
    """
    limits = {"recompile_limit": _MOST_SHAPES, "isolate_recompiles": True}
    known = inspect.signature(torch.compile).parameters
    options: dict[str, Any] = {name: value for name, value in limits.items() if name in known}
    with _unwarned():
        return torch.compile(
            _run, dynamic=False, fullgraph=True, options={"fallback_random": True}, **options
        )


@contextmanager
def _unwarned() -> Iterator[None]:
    """Keep to itself what PyTorch's compiler, when it is imported, says of PyTorch's own old parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@functools.cache
def check_compiler(device: torch.device) -> None:
    """Compile something small for ``device``, to find out before training whether this machine can.

    Raises:
        StudyError: It cannot.
    """
    with _unwarned():
        try:
            torch.compile(_trial, dynamic=False, fullgraph=True)(torch.ones(8, device=device))
        except Exception as error:
            text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            raise StudyError(
                f"segments cannot be compiled on this machine for {device}: {type(error).__name__}: {text}",
                todo="install a C++ compiler (Debian, Ubuntu: apt install g++; or name one in CXX) and, for a GPU, "
                "Triton; or agree on a study without compiled",
            ) from error


def _trial(x: Tensor) -> Tensor:
    return (x * 2.0).relu() + 1.0


def flops_apart(module: nn.Module, inputs: Sequence[Tensor], device: torch.device) -> tuple[int, int]:
    """Return the FLOPs of forward and backward in training, counted on a copy that is not compiled.

    Args:
        module: The module, whose copy runs; it stays as it is.
        inputs: Its inputs [B, ...].
        device: Where they are.
    """
    trial = copy.deepcopy(module).to(device).train()
    rows = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in inputs]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        with flop_counter() as forward:
            result = trial(*rows)
        made = [result] if isinstance(result, Tensor) else list(result)
        roots = [one for one in made if one.requires_grad]
        with flop_counter() as backward:
            if roots:
                torch.autograd.backward(roots, [torch.ones_like(root) for root in roots])
    return int(forward.get_total_flops()), int(backward.get_total_flops())
