"""Product quantisation: a row in pieces, each named by the nearest of a few that cross with the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import FrameError, StudyError
from .base import Codec, Like, Moment, Part, Written, is_number, number_text, refused
from .packing import pack, packed_width, unpack

__all__ = ["ProductQuantiser"]

_ROUNDS = 4
_LEARNT_FROM = 32
"""Pieces a centroid that the codebook is learnt from; all are then given their nearest."""
_AT_ONCE = 2**18
"""Distances worked out at a time: few enough to stay in the processor's cache."""
_MOST = 1e15


@dataclass(frozen=True, kw_only=True)
class ProductQuantiser(Codec):
    """Each row cut in pieces; each piece as the number of its nearest centroid, which k-means finds for each batch.

    Wang et al. 2022, "FedLite", section 4, with one codebook for all pieces. One centroid stays at zero.

    Error: no piece is off by more than its own length, since zero is a centroid, and none could be nearer to
    another centroid.

    The gradient comes back as it is made. FedLite's correction adds ``correction * (z - z~) / B`` where it arrives: the
    gradient of ``correction / 2`` times the mean over rows of the squared error, which draws activations z to
    what they are read as, z~.

    Attributes:
        width: Values in a piece.
        centroids: How many, zero included, from 2 to 256.
        correction: FedLite's lambda.
    """

    width: int = 4
    centroids: int = 16
    correction: float = 0.01

    both_ways: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if type(self.width) is not int or self.width < 1:
            raise StudyError("a piece has at least one value", got=f"width {self.width!r}")
        if type(self.centroids) is not int or not 2 <= self.centroids <= 256:
            raise StudyError(
                "a codebook has 2 to 256 centroids", got=repr(self.centroids), expected="a whole number"
            )
        if not is_number(self.correction) or not 0 <= self.correction < float("inf"):
            raise StudyError("the correction is a number from 0", got=repr(self.correction))

    @property
    def word(self) -> str:
        """See `Codec`."""
        return f"pq:{self.width},{self.centroids},{number_text(self.correction)}"

    @property
    def promise(self) -> str:
        """See `Codec`."""
        return (
            f"every {self.width} values of a row arrive as the nearest of {self.centroids} pieces found for the "
            "batch, zero among them: off by at most their own length"
        )

    @property
    def _bits(self) -> int:
        return next(bits for bits in (1, 2, 4, 8) if 2**bits >= self.centroids)

    def _pieces(self, like: Like) -> int:
        return -(-like.width // self.width)

    def misfit(self, like: Like) -> str:
        """See `Codec`."""
        return "" if like.width else "its rows have no values"

    def parts(self, like: Like) -> tuple[Part, ...]:
        """Return the pieces' numbers, several a byte, and the centroids but zero."""
        return (
            Part("pieces", torch.uint8, (like.rows, packed_width(self._pieces(like), self._bits))),
            Part("centroids", torch.float32, (self.centroids - 1, self.width)),
        )

    def write(self, tensor: Tensor, moment: Moment) -> Written:
        """See `Codec`."""
        like = Like.of(tensor)
        flat = tensor.float().reshape(like.rows, -1)
        if (
            flat.numel() and not max(map(abs, map(Tensor.item, flat.aminmax()))) <= _MOST
        ):  # NaN is not, either
            raise refused(self, f"holds NaN or numbers beyond {_MOST:g}")
        spare = -like.width % self.width
        pieces = (torch.nn.functional.pad(flat, (0, spare)) if spare else flat).reshape(-1, self.width)
        codebook = _learn(pieces, self.centroids, moment.generator())
        numbers = _nearest(pieces, codebook).reshape(like.rows, -1)
        trace = None
        if moment.training and self.correction:
            trace = tensor - self._look_up(numbers, codebook, like)
        return Written((pack(numbers, self._bits), codebook[1:].clone()), trace)

    def read(self, parts: Sequence[Tensor], like: Like, moment: Moment) -> Written:
        """See `Codec`."""
        centroids = parts[1]
        numbers = unpack(parts[0], self._bits, self._pieces(like))
        if self.centroids < 2**self._bits and numbers.numel() and int(numbers.max()) >= self.centroids:
            raise FrameError("a piece has a number of no centroid", expected=f"below {self.centroids}")
        if not bool(centroids.isfinite().all()):
            raise FrameError("a centroid holds NaN or infinity")
        codebook = torch.cat([centroids.new_zeros((1, self.width)), centroids])
        return Written((self._look_up(numbers, codebook, like),))

    def unfold(self, folded: Tensor, trace: Tensor | None, like: Like, moment: Moment) -> Tensor:
        """Return the gradient with FedLite's correction."""
        return folded if trace is None else folded.add(trace, alpha=self.correction / like.rows)

    def _look_up(self, numbers: Tensor, codebook: Tensor, like: Like) -> Tensor:
        flat = codebook.index_select(0, numbers.reshape(-1).int()).reshape(like.rows, -1)
        return flat[:, : like.width].reshape(like.shape).to(like.dtype)


def _learn(pieces: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """Return a codebook [count, width] by k-means over some of ``pieces`` [N, width]; its first entry is zero."""
    if len(pieces) > _LEARNT_FROM * count:
        some = torch.randint(len(pieces), (_LEARNT_FROM * count,), generator=draw).to(pieces.device)
        pieces = pieces.index_select(0, some)
    squares = pieces.square().sum(1)
    # Begin with pieces drawn without return, each with a probability that grows with its squared length.
    keys = torch.rand(len(pieces), generator=draw).to(pieces.device).clamp_(1e-12).log_() / squares
    first = keys.nan_to_num(nan=-torch.inf).topk(min(count - 1, len(pieces))).indices
    codebook = pieces.new_zeros((count, pieces.shape[1]))
    codebook[1 : len(first) + 1] = pieces.index_select(0, first)
    names = torch.arange(count, device=pieces.device)
    for _ in range(_ROUNDS):
        # A product with zeros and ones adds in the same order every time, on a GPU too.
        members = (_nearest(pieces, codebook)[:, None] == names).to(pieces.dtype)
        means = members.T @ pieces / members.sum(0).clamp_(min=1.0)[:, None]
        codebook[1:] = torch.where((members.sum(0) > 0)[1:, None], means[1:], codebook[1:])
    return codebook


def _nearest(pieces: Tensor, codebook: Tensor) -> Tensor:
    """Return the number of the nearest entry of ``codebook`` [L, width] to each of ``pieces`` [N, width], uint8 [N]."""
    half, turned = 0.5 * codebook.square().sum(1), codebook.T.contiguous()
    chunks = torch.split(pieces, max(1, _AT_ONCE // len(codebook)))
    return torch.cat([(chunk @ turned).sub_(half).max(1).indices.to(torch.uint8) for chunk in chunks])
