"""Distance correlation: how much of the pattern of distances between rows of x is there between rows of z.

Székely, Rizzo and Bakirov 2007, "Measuring and testing dependence by correlation of distances" (Annals of Statistics
35); in split learning Vepakomma et al. 2020, "NoPeek" (arXiv 2008.09161). Of rows x_1 ... x_n and z_1 ... z_n::

    a_ij = dist(x_i, x_j)            A = a with the means of its rows and columns taken off (double-centred)
    dcov = sqrt(sum A * B) / n       dcor = dcov(x, z) / sqrt(dcov(x, x) dcov(z, z))

Two distances are in use. *Euclidean* is the definition: in the limit it is 0 only of independent rows. *Squared*
Euclidean is what published code of NoPeek has; its square is the RV coefficient (linear CKA), so it sees linear
dependence alone.

In a batch both are biased upwards, the more the wider the rows: independent Gaussian rows of 784 and 500 numbers show
0.98 in a batch of 64. So tell it beside the corrected one (Székely and Rizzo 2014, "Partial distance correlation with
methods for dissimilarities", Annals of Statistics 42, section 3), which is about 0 there, or beside that of permuted
pairs, which shows the bias.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import DataError, StudyError, nearest

__all__ = [
    "DISTANCES",
    "centred_distances",
    "corrected_correlation_of",
    "corrected_distance_correlation",
    "corrected_of_centred",
    "correlation_of",
    "correlation_of_centred",
    "correlation_with",
    "distance_correlation",
    "distances",
    "permuted",
]

DISTANCES = ("squared", "euclidean")
_LEAST = 1e-8
"""Squares of correlations below this are told as 0: a square root has no gradient there."""


def distance_correlation(x: Tensor, z: Tensor, distance: str = "euclidean") -> Tensor:
    """Return the distance correlation of rows of ``x`` [B, ...] and ``z`` [B, ...], a scalar from 0 to 1.

    Args:
        x: Rows, flattened each.
        z: As many rows, in the same order; gradients flow to both.
        distance: ``"euclidean"`` or ``"squared"``.

    Raises:
        DataError: Not as many rows, or fewer than 2.
        StudyError: There is no such distance.
    """
    _check_pair(x, z, 2)
    return correlation_of(distances(x, distance), distances(z, distance))


def corrected_distance_correlation(x: Tensor, z: Tensor, distance: str = "euclidean") -> Tensor:
    """Return the bias-corrected distance correlation of rows of ``x`` and ``z`` [B, ...], a scalar from -1 to 1.

    Independent rows have 0 on average, however wide they are. On the scale of :func:`distance_correlation`: the
    signed square root of the published statistic, which estimates the square.

    Raises:
        DataError: Not as many rows, or fewer than 4.
        StudyError: There is no such distance.
    """
    _check_pair(x, z, 4)
    return corrected_correlation_of(distances(x, distance), distances(z, distance))


def distances(rows: Tensor, distance: str = "euclidean") -> Tensor:
    """Return the distances between all ``rows`` [B, ...], flattened each: [B, B].

    By one matrix product of centred rows. Rows that are equal but for rounding have distance 0 and no gradient.

    Raises:
        StudyError: There is no such distance.
    """
    _check(distance)
    return _between(_flat(rows), distance)


def centred_distances(rows: Tensor, distance: str = "euclidean") -> Tensor:
    """Return the distances between all ``rows`` [B, ...], double-centred: [B, B].

    Raises:
        StudyError: There is no such distance.
    """
    if distance != "squared":
        return _centred(distances(rows, distance))
    return _products(_flat(rows))


def correlation_of(a: Tensor, b: Tensor) -> Tensor:
    """Return the distance correlation of two tables of distances [B, B]; 0 if either has no spread."""
    return _root(_cosine(_centred(a), _centred(b)))


def corrected_correlation_of(a: Tensor, b: Tensor) -> Tensor:
    """Return the bias-corrected distance correlation of two tables of distances [B, B], B at least 4."""
    return _root(_cosine(_u_centred(a), _u_centred(b)))


def correlation_of_centred(a: Tensor, b: Tensor) -> float:
    """Return what `correlation_of` does, of tables [B, B] that are double-centred already; no gradient."""
    return _signed_root(_inner(a, b), _inner(a, a) * _inner(b, b))


def corrected_of_centred(a: Tensor, b: Tensor) -> float:
    """Return what `corrected_correlation_of` does, of tables [B, B] that are double-centred already; no gradient.

    A row of a double-centred table sums to 0, so one without its diagonal d to -d, and inner products of U-centred
    tables are ``sum A * B - n / (n - 2) sum d_a * d_b + (sum d_a) (sum d_b) / ((n - 1) (n - 2))``.
    """
    count = len(a)
    of_diagonals, of_traces = count / (count - 2), 1 / ((count - 1) * (count - 2))

    def inner(p: Tensor, q: Tensor) -> float:
        d, e = p.diagonal(), q.diagonal()
        return _inner(p, q) - of_diagonals * _inner(d, e) + of_traces * float(d.sum()) * float(e.sum())

    return _signed_root(inner(a, b), inner(a, a) * inner(b, b))


def permuted(table: Tensor, order: Tensor) -> Tensor:
    """Return a table of distances [B, B] of the same rows in another ``order`` [B]."""
    return table[order][:, order]


def correlation_with(table: Tensor, rows: Tensor, distance: str = "euclidean") -> Tensor:
    """Return the distance correlation of ``rows`` [B, ...] with those whose centred distances are ``table`` [B, B].

    The same as :func:`distance_correlation`, with a gradient for ``rows`` alone, once, and several times as quick. The
    gradient is that of NoPeek's Laplacian lemma, 4 L Z, where the weights of the Laplacian L are the gradients for
    squared distances; they come with the value, since both have the same tables.
    """
    found: Tensor = _WithTable.apply(rows, table, distance)  # type: ignore[no-untyped-call]
    return found


class _WithTable(torch.autograd.Function):
    """Distance correlation of rows z [B, ...] and a centred table [B, B]; see `correlation_with`."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, table: Tensor, distance: str) -> Tensor:
        """Return the correlation, and keep four times the Laplacian."""
        flat = _flat(z)
        if distance == "squared":
            # slopes of centred tables are centred: their sums are 0, and they are the Laplacian but for the sign
            found, slopes = _with_slopes(table, _products(flat))
            laplacian = slopes.mul_(-4)
        else:
            between = _between(flat, distance)
            found, slopes = _with_slopes(table, _centred(between))
            weights = (slopes / (2 * between)).masked_fill_(between == 0, 0.0)
            laplacian = torch.diag(weights.sum(0)).sub_(weights).mul_(4)
        ctx.save_for_backward(flat, laplacian)
        ctx.shape, ctx.dtype = z.shape, z.dtype
        return table.new_tensor(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient for the rows."""
        flat, laplacian = ctx.saved_tensors
        return ((laplacian * outer) @ flat).reshape(ctx.shape).to(ctx.dtype), None, None


def _with_slopes(a: Tensor, b: Tensor) -> tuple[float, Tensor]:
    """Return the correlation of two centred tables [B, B] and its gradient for distances of the second."""
    covariance, square_a, square_b = _inner(a, b), _inner(a, a), _inner(b, b)
    found = _signed_root(covariance, square_a * square_b)
    if not found:
        return 0.0, torch.zeros_like(b)
    slope = 0.5 / (abs(found) * math.sqrt(square_a * square_b))
    return found, torch.sub(a, b, alpha=covariance / square_b).mul_(slope)


def _signed_root(covariance: float, variances: float) -> float:
    """Return the root of ``covariance`` over the root of the product of ``variances``, with its sign; 0 next to 0."""
    square = covariance / math.sqrt(variances) if variances > 0 else 0.0
    return math.copysign(math.sqrt(abs(square)), square) if abs(square) > _LEAST else 0.0


def _inner(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.reshape(-1), b.reshape(-1)))


def _flat(rows: Tensor) -> Tensor:
    """Return rows [B, ...] as [B, D], less their mean: distances stay, and rounding is less. At least float32."""
    flat = rows.reshape(len(rows), -1)
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    return flat - flat.mean(0)


def _between(flat: Tensor, distance: str) -> Tensor:
    product = flat @ flat.T
    lengths = product.diagonal()
    both = lengths[:, None] + lengths
    squares = both - 2 * product
    if distance == "squared":
        return squares
    near = squares <= 16 * torch.finfo(flat.dtype).eps * both
    return squares.masked_fill(near, 1.0).sqrt().masked_fill(near, 0.0)


def _products(flat: Tensor) -> Tensor:
    """Return the squared distances between rows of mean 0 [B, D], double-centred [B, B]."""
    return (flat @ flat.T).mul_(-2)


def _centred(table: Tensor) -> Tensor:
    means = table.mean(0)  # of rows and columns alike: tables of distances are symmetric
    return table - means - means[:, None] + means.mean()


def _u_centred(table: Tensor) -> Tensor:
    """Return a table of distances U-centred (Székely and Rizzo 2014, definition 2): its diagonal is 0."""
    count = len(table)
    sums = table.sum(0) / (count - 2)
    centred = table - sums - sums[:, None] + sums.sum() / (count - 1)
    return centred - torch.diag(centred.diagonal())


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm  # unlike a root of squares, it has a gradient at 0
    scale = norm(a) * norm(b)
    found: Tensor = (a * b).sum() / scale.clamp_min(torch.finfo(a.dtype).tiny)
    return found


def _root(square: Tensor) -> Tensor:
    """Return the root with the sign of ``square``; 0 without a gradient next to 0."""
    size = square.abs()
    return torch.where(size > _LEAST, square.sign() * size.clamp_min(_LEAST).sqrt(), 0.0 * square)


def _check(distance: str) -> None:
    if distance not in DISTANCES:
        raise StudyError(f"no distance is named {distance!r}", todo=nearest(distance, DISTANCES))


def _check_pair(x: Tensor, z: Tensor, least: int) -> None:
    if len(x) != len(z) or len(x) < least:
        raise DataError(
            "distance correlation is of rows that belong together",
            got=f"{len(x)} and {len(z)} rows",
            expected=f"as many of each, at least {least}",
        )
