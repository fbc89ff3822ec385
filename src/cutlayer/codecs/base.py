"""What a codec is: a way to write a tensor in fewer bytes, and what that does to its gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..errors import FrameError, NumericsError
from ..seeds import at_step

__all__ = [
    "Codec", "Exact", "Like", "Moment", "Part", "Written", "check_parts", "is_number", "number_text", "refused",
    "written_bytes",
]  # fmt: skip


class Like(NamedTuple):
    """Shape [B, ...] and dtype of the tensor that is written."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @staticmethod
    def of(tensor: Tensor) -> Like:
        """Return shape and dtype of ``tensor`` [B, ...]."""
        return Like(tuple(tensor.shape), tensor.dtype)

    @property
    def rows(self) -> int:
        """B, how many samples."""
        return self.shape[0]

    @property
    def width(self) -> int:
        """How many values a sample has."""
        count = 1
        for side in self.shape[1:]:
            count *= side
        return count


class Part(NamedTuple):
    """One of the tensors in which a codec writes another; its name, dtype and shape."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class Moment(NamedTuple):
    """When something is written: all that a codec draws at random follows from it, at both ends alike.

    Attributes:
        seed: The stream of this tensor at this cut, from the study's seed.
        step: The step of the program.
        training: False in an evaluation.
    """

    seed: int
    step: int
    training: bool

    def generator(self) -> torch.Generator:
        """Return a generator of this moment's own, on the CPU."""
        return torch.Generator().manual_seed(at_step(self.seed, self.step))


class Written(NamedTuple):
    """What writing or reading a tensor gave.

    Attributes:
        parts: The tensors that cross; after reading, the one that was read.
        trace: What to remember until the gradient comes back, if anything.
    """

    parts: tuple[Tensor, ...]
    trace: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Codec(ABC):
    """Writes a tensor [B, ...] as a few others that take fewer bytes, and reads it from them.

    A codec has settings and no state. The shapes of what it writes follow from the shape of what it is given,
    and the first part has B as its first dimension, so the reader knows what must come before it looks inside.
    A codec saves bytes. It is no defence: nobody has shown that what it leaves out is what should be hidden.

    Attributes:
        feedback: Add what was left out of a gradient to the next one (`cutlayer.codecs.feedback`).
    """

    feedback: bool = False

    both_ways: ClassVar[bool] = True
    """Whether one word for a whole graph means it for gradients too."""
    folds: ClassVar[bool] = False
    """Whether a gradient comes back in another form than it was made in, see `fold`."""
    returns: ClassVar[str] = ""
    """How a gradient comes back, in words, where that is in another form."""

    @property
    @abstractmethod
    def word(self) -> str:
        """The codec in one word, as `codec_of` reads it."""

    @property
    @abstractmethod
    def promise(self) -> str:
        """What the error is at most, or is expected to be, in words."""

    def misfit(self, like: Like) -> str:
        """Return why a tensor of this kind cannot be written, or nothing."""
        return ""

    @abstractmethod
    def parts(self, like: Like) -> tuple[Part, ...]:
        """Return what a tensor of this kind is written as."""

    @abstractmethod
    def write(self, tensor: Tensor, moment: Moment) -> Written:
        """Return ``tensor`` [B, ...] as its parts.

        Raises:
            NumericsError: It holds NaN, infinity or numbers too large to be written.
        """

    @abstractmethod
    def read(self, parts: Sequence[Tensor], like: Like, moment: Moment) -> Written:
        """Return the tensor that ``parts`` stand for; their dtypes and shapes are those of `parts`.

        Raises:
            FrameError: The parts' values mean nothing.
        """

    def folded(self, like: Like) -> Like:
        """Return shape and dtype of the gradient as it comes back."""
        return like

    def fold(self, gradient: Tensor, trace: Tensor | None, moment: Moment) -> Tensor:
        """Return the gradient of what was read as the gradient of what crossed (at its reader)."""
        return gradient

    def unfold(self, folded: Tensor, trace: Tensor | None, like: Like, moment: Moment) -> Tensor:
        """Return the gradient of what crossed as the gradient of what was written (at its writer)."""
        return folded


@dataclass(frozen=True, kw_only=True)
class Exact(Codec):
    """As it is: every bit arrives."""

    @property
    def word(self) -> str:
        """See `Codec`."""
        return "exact"

    @property
    def promise(self) -> str:
        """See `Codec`."""
        return "every bit arrives"

    def parts(self, like: Like) -> tuple[Part, ...]:
        """See `Codec`."""
        return (Part("", like.dtype, like.shape),)

    def write(self, tensor: Tensor, moment: Moment) -> Written:
        """See `Codec`."""
        return Written((tensor,))

    def read(self, parts: Sequence[Tensor], like: Like, moment: Moment) -> Written:
        """See `Codec`."""
        return Written((parts[0],))


def written_bytes(codec: Codec, like: Like) -> int:
    """Return the bytes of the parts in which a tensor is written."""
    return sum(
        Like(part.shape, part.dtype).width * part.shape[0] * part.dtype.itemsize if part.shape
        else part.dtype.itemsize
        for part in codec.parts(like)
    )  # fmt: skip


def check_parts(codec: Codec, parts: Sequence[Tensor], like: Like) -> None:
    """Raise FrameError unless ``parts`` have the dtypes and shapes in which a tensor like that is written."""
    for part, tensor in zip(codec.parts(like), parts, strict=True):
        if tensor.dtype is not part.dtype or tensor.shape != part.shape:
            raise FrameError(
                f"{part.name or 'a tensor'} is not what {codec.word} writes",
                got=f"{tensor.dtype} {list(tensor.shape)}",
                expected=f"{part.dtype} {list(part.shape)}",
                todo="both sides must load the same study; compare its digest",
            )


def is_number(value: object) -> bool:
    """Return whether ``value`` is a number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number_text(value: float) -> str:
    """Return a number so that no other is written the same."""
    return repr(float(value)).removesuffix(".0")


def refused(codec: Codec, why: str = "holds NaN or infinity") -> NumericsError:
    """Return the error of a tensor that cannot be written."""
    return NumericsError(
        f"what should cross {why}, which {codec.word} cannot write",
        todo="lower the learning rate, look for NaN in the data, or choose codec 'exact' or 'bfloat16'",
    )
