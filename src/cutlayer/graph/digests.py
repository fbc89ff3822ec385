"""Hashes by which parties find out whether they have the same graph and the same initial weights."""

from __future__ import annotations

import functools
import hashlib
import types
from typing import TYPE_CHECKING

import torch
from torch import nn

from .parts import LossFunction

if TYPE_CHECKING:
    from .split_graph import SplitGraph

__all__ = ["graph_digest", "weights_digest"]


def graph_digest(graph: SplitGraph) -> str:
    """Return the SHA-256 (hex) of places, wiring, shapes, codecs, structure of modules and losses."""
    from .describe import text

    modules = "\n".join(f"{n}: {graph.segments[n].module}" for n in graph.order)
    losses = "\n".join(f"{loss.name}: {_function_text(loss.function)}" for loss in graph.losses.values())
    return hashlib.sha256("\n".join([text(graph), modules, losses]).encode()).hexdigest()


def weights_digest(graph: SplitGraph) -> str:
    """Return the SHA-256 (hex) of every segment's parameters and buffers: names and values."""
    digest = hashlib.sha256()
    for name in graph.order:
        for key, tensor in graph.segments[name].module.state_dict().items():
            digest.update(f"{name}.{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def _function_text(function: LossFunction) -> str:
    """Return a loss function's name and settings as text that is the same in every process."""
    if isinstance(function, functools.partial):
        settings = ", ".join(
            [*map(repr, function.args), *(f"{k}={v!r}" for k, v in sorted(function.keywords.items()))]
        )
        return f"partial({_function_text(function.func)}, {settings})"
    if isinstance(function, nn.Module):
        own = {k: v for k, v in vars(function).items() if not k.startswith("_") and k != "training"}
        tensors = {k: t.tolist() for k, t in function.state_dict().items()}
        return f"{function} {sorted(own.items())} {tensors}"
    if isinstance(function, types.FunctionType | types.BuiltinFunctionType):
        return f"{function.__module__}.{function.__qualname__}"
    return f"{type(function).__module__}.{type(function).__qualname__}"
