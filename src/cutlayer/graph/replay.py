"""Proof by running: a network cut into pieces does the same, to the last bit, as the uncut one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..errors import CutError
from .building import PieceModule
from .measuring import worlds_of
from .strides import Strides
from .tracing import in_mode

if TYPE_CHECKING:
    from .cutting import Pieces

__all__ = ["note_gradient_strides", "replay"]

_ENGINE = torch.autograd.Variable._execution_engine
_SEED = 20180803

Outcome = dict[str, Tensor]
Arriving = dict[tuple[int, str], Tensor]
"""Gradients that arrive at what a piece received, by the piece's number and the value's name."""


def replay(pieces: Pieces, example: tuple[Tensor, ...]) -> None:
    """Run network and pieces side by side in training and evaluation mode, forwards and backwards.

    What crosses is handed over as the runtime does: detached, row by row in memory, gradients by hand.
    Random numbers, buffers, gradients and modes are as before afterwards.

    Args:
        pieces: The cut network; ``pieces.model`` is the uncut one.
        example: Rows to run.

    Raises:
        CutError: An output, a gradient or a buffer is not equal to the last bit; names the first.
    """
    modules = [pieces.model, *(piece.module for piece in pieces.pieces)]
    rows, longer = worlds_of(example)
    for training in (True, False):
        with _restored(modules, training):
            whole = _whole(pieces.model, rows)
        with _restored(modules, training):
            parts = _parts(pieces, rows)
        _compare(whole, parts, "training" if training else "evaluation")
    for other in (longer, tuple(t[:1] for t in rows)):
        _compare_rows(pieces, modules, other)


def note_gradient_strides(pieces: Pieces, example: tuple[Tensor, ...]) -> None:
    """Let the pieces know how the gradients that they get back lie in memory in the uncut network.

    Forwards and backwards once in training mode, where what crosses keeps its layout.
    """
    with _restored([piece.module for piece in pieces.pieces], training=True):
        made, arriving = _forward(pieces, worlds_of(example)[0], as_is=True)
        gradients = _all_backward(pieces, made, arriving, as_is=True)
    for piece in pieces.pieces:
        if isinstance(piece.module, PieceModule):
            strides = {i: Strides.of(gradients[n]) for i, n in enumerate(piece.outputs) if n in gradients}
            piece.module.gradient_strides = {i: s for i, s in strides.items() if s is not None}


@contextmanager
def _restored(modules: Sequence[nn.Module], training: bool) -> Iterator[None]:
    """Seed the random numbers and set the mode; put everything back at the end."""
    buffers = [(b, b.detach().clone()) for module in modules for b in module.buffers()]
    grads = [(p, p.grad) for module in modules for p in module.parameters()]
    for parameter, _ in grads:
        parameter.grad = None
    device = next((p.device.index for p, _ in grads if p.device.type == "cuda"), None)
    with torch.random.fork_rng(devices=[] if device is None else [device]), torch.enable_grad():
        torch.manual_seed(_SEED)
        try:
            with _all_in_mode(modules, training):
                yield
        finally:
            for parameter, grad in grads:
                parameter.grad = grad
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)


@contextmanager
def _all_in_mode(modules: Sequence[nn.Module], training: bool) -> Iterator[None]:
    if not modules:
        yield
        return
    with in_mode(modules[0], training), _all_in_mode(modules[1:], training):
        yield


def _whole(model: nn.Module, rows: tuple[Tensor, ...]) -> Outcome:
    out = _tensors(model(*(t.clone() for t in rows)))
    _backward(out, _first_gradients(out))
    return {
        **{f"output {i}": t.detach().clone() for i, t in enumerate(out)},
        **_state(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)),
    }


def _parts(pieces: Pieces, rows: tuple[Tensor, ...]) -> Outcome:
    made, arriving = _forward(pieces, rows)
    _all_backward(pieces, made, arriving)
    outcome = {f"output {i}": made[name].detach().clone() for i, name in enumerate(pieces.results)}
    for piece, names in zip(pieces.pieces, pieces.parameter_names(), strict=True):
        module = piece.module
        state = _state(
            module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)
        )
        outcome |= {
            f"{kind} {names[name]}": value
            for key, value in state.items()
            for kind, _, name in [key.partition(" ")]
            if name in names
        }
    return outcome


def _forward(
    pieces: Pieces, rows: tuple[Tensor, ...], *, as_is: bool = False
) -> tuple[dict[str, Tensor], Arriving]:
    """Return all values by name, and where the gradients of received values will arrive."""
    made: dict[str, Tensor] = {name: t.clone() for name, t in zip(pieces.inputs, rows, strict=True)}
    arriving: Arriving = {}
    for number, piece in enumerate(pieces.pieces):
        values = []
        for name in piece.inputs:
            value = made[name]
            if name not in pieces.inputs:
                value = _cross(value, as_is=as_is)
                if value.requires_grad:
                    hook: Any = value.register_hook
                    hook(partial(arriving.__setitem__, (number, name)))
            values.append(value)
        out = piece.module(*values)
        made.update(zip(piece.outputs, out if isinstance(out, tuple) else (out,), strict=True))
    return made, arriving


def _cross(value: Tensor, *, as_is: bool) -> Tensor:
    copy = value.detach() if as_is else value.detach().clone(memory_format=torch.contiguous_format)
    return copy.requires_grad_(value.requires_grad and value.is_floating_point())


def _all_backward(
    pieces: Pieces, made: Mapping[str, Tensor], arriving: Arriving, *, as_is: bool = False
) -> dict[str, Tensor]:
    """Hand gradients from the last piece to the first; return that of each value that crosses."""
    results = [made[name] for name in pieces.results]
    gradients: dict[str, Tensor] = {}
    for name, first in zip(pieces.results, _first_gradients(results), strict=True):
        if first is not None:
            _add(gradients, name, first)
    for number, piece in reversed(list(enumerate(pieces.pieces))):
        _backward([made[name] for name in piece.outputs], [gradients.get(name) for name in piece.outputs])
        for name in piece.inputs:
            gradient = arriving.get((number, name))
            if gradient is not None:
                crossed = gradient if as_is else gradient.clone(memory_format=torch.contiguous_format)
                _add(gradients, name, crossed)
    return gradients


def _tensors(out: Any) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor)]


def _first_gradients(out: Sequence[Tensor]) -> list[Tensor | None]:
    """Return a gradient to start from for each output that has one: small, irregular, always the same."""
    source = torch.Generator().manual_seed(_SEED)
    return [
        torch.randn(t.shape, generator=source).to(t.device, t.dtype) if t.requires_grad else None for t in out
    ]


def _backward(tensors: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    wanted = [(t, g) for t, g in zip(tensors, gradients, strict=True) if t.requires_grad and g is not None]
    if wanted:
        # What ``torch.autograd.backward`` does, but for its look at the gradients' shapes, which imports sympy.
        _ENGINE.run_backward(
            tuple(t for t, _ in wanted), tuple(g for _, g in wanted), False, False, (),
            allow_unreachable=True, accumulate_grad=True,
        )  # fmt: skip


def _add(gradients: dict[str, Tensor], name: str, gradient: Tensor) -> None:
    gradients[name] = gradients[name] + gradient if name in gradients else gradient


def _state(parameters: Iterable[tuple[str, nn.Parameter]], buffers: Iterable[tuple[str, Tensor]]) -> Outcome:
    grads = {f"gradient {name}": p.grad.detach().clone() for name, p in parameters if p.grad is not None}
    return {**grads, **{f"buffer {name}": b.detach().clone() for name, b in buffers}}


def _compare(whole: Mapping[str, Tensor], parts: Mapping[str, Tensor], mode: str) -> None:
    for name in [n for n in whole if not n.startswith("buffer") or n in parts] + [
        n for n in parts if n not in whole
    ]:
        a, b = whole.get(name), parts.get(name)
        if a is None or b is None or not _same(a, b):
            raise CutError(
                f"the pieces do not do the same as the uncut model: in {mode} mode the {name} differs",
                got="nothing" if b is None else _far(a, b),
                expected="nothing" if a is None else "equality to the last bit",
                todo="cut before or after the part of the model that does it; "
                "code that reads gradients, random state or earlier calls cannot be cut in the middle",
            )


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    nan = a.is_floating_point() or a.is_complex()
    return torch.equal(a, b) or (nan and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))


def _far(a: Tensor | None, b: Tensor) -> str:
    if a is None or a.shape != b.shape:
        return f"a tensor of shape {tuple(b.shape)}"
    return f"a largest difference of {(a.double() - b.double()).abs().max().item():.3g}"


def _compare_rows(pieces: Pieces, modules: Sequence[nn.Module], rows: tuple[Tensor, ...]) -> None:
    """Compare outputs for another number of rows, where the uncut model takes it and no guard refuses it."""
    with _restored(modules, training=False):
        try:
            whole = _tensors(pieces.model(*(t.clone() for t in rows)))
        except Exception:
            return
    with _restored(modules, training=False):
        try:
            made, _ = _forward(pieces, rows)
        except CutError:
            return
        except Exception as error:
            raise CutError(f"the pieces do not run on {rows[0].shape[0]} rows: {error}") from error
    parts = [made[name] for name in pieces.results]
    for i, (a, b) in enumerate(zip(whole, parts, strict=True)):
        if not _same(a, b):
            raise CutError(
                f"with {rows[0].shape[0]} rows output {i} of the pieces differs from the uncut model",
                got=_far(a, b),
                expected="equality to the last bit",
                todo="remove from forward what depends on the number of rows or on earlier calls",
            )
