"""Errors of what crosses a cut, with who noticed, where and when."""

from __future__ import annotations

from torch import Tensor

from ..errors import FrameError, NumericsError
from .compute import NUMERICS
from .party import LocalParty

__all__ = ["not_finite", "not_sent", "placed", "unlike"]


def placed(error: FrameError, party: LocalParty, cut: str | None, step: int) -> FrameError:
    """Return ``error`` with where it happened, which the wire does not know."""
    return FrameError(
        error.what,
        party=party.name,
        cut=cut,
        step=step,
        got=error.got,
        expected=error.expected,
        todo=error.todo,
    )


def unlike(party: LocalParty, cut: str, step: int, got: str, expected: str) -> FrameError:
    """Return the error of a frame that differs from the graph."""
    return FrameError(
        "what came is not what the graph says",
        party=party.name,
        cut=cut,
        step=step,
        got=got,
        expected=expected,
        todo="both sides must load the same study; compare its digest",
    )


def not_sent(
    name: str, tensor: Tensor, party: str | None = None, cut: str | None = None, step: int | None = None
) -> NumericsError:
    """Return the error of a gradient that holds NaN or infinity."""
    bad = int((~tensor.isfinite()).sum())
    return NumericsError(
        f"the gradient {name!r} holds NaN or infinity in {bad} of {tensor.numel()} values and was not sent",
        party=party,
        cut=cut,
        step=step,
        todo=NUMERICS,
    )


def not_finite(party: LocalParty, cut: str, step: int, name: str, sender: str) -> NumericsError:
    """Return the error of a tensor that came with NaN or infinity in it."""
    error = NumericsError(
        f"{name!r}, which {sender} sent, holds NaN or infinity",
        party=party.name,
        cut=cut,
        step=step,
        todo=NUMERICS,
    )
    error.sender = sender
    return error
