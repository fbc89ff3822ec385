"""How much crosses a cut, in words: shapes, bytes, and what a codec makes of them."""

from __future__ import annotations

from collections.abc import Iterable

from ..codecs import EXACT, Like, full_word, written_bytes
from .describe import count
from .parts import Cut, TensorSpec

__all__ = ["amount", "cut_bytes", "written"]

_FEEDBACK = "what was left out of one gradient is added to the next"


def amount(specs: Iterable[TensorSpec | None], batch_size: int) -> str:
    """Return shapes and bytes of what crosses as it is."""
    known = [spec for spec in specs if spec is not None]
    if not known:
        return "shape not known before the data is there"
    row_bytes = sum(spec.sample_bytes for spec in known)
    shapes = " and ".join(map(str, known))
    a_batch, a_row = count(row_bytes * batch_size, "byte"), count(row_bytes, "byte")
    return f"{shapes}, {a_batch} a batch ({a_row} a row)"


def written(cut: Cut, batch_size: int, *, back: bool = False) -> str:
    """Return shapes and bytes of activations, or with ``back`` of gradients, as the cut's codecs write them."""
    specs = _returning(cut) if back else cut.specs
    codec = cut.return_codec if back else cut.codec
    folded = back and cut.codec.folds
    if codec == EXACT and not folded:
        return amount(specs, batch_size)
    how = [f"coming back {cut.codec.returns}"] if folded else []
    if codec != EXACT:
        how.append(f"written as {full_word(codec)} ({codec.promise})")
    if codec.feedback:
        how.append(_FEEDBACK)
    whole = sum(spec.sample_bytes * batch_size for spec in specs if spec is not None)
    now = cut_bytes(cut, batch_size, back=back)
    fewer = f"{whole / now:.1f} times fewer than" if now < whole else "instead of"
    shapes = " and ".join(str(spec) for spec in specs if spec is not None)
    return (
        f"{shapes}, {'; '.join(how)}: {count(now, 'byte')} a batch, {fewer} {whole:,}. This protects nothing"
    )


def cut_bytes(cut: Cut, rows: int, *, back: bool = False) -> int:
    """Return the bytes of the tensors that cross with a batch of ``rows``, as the cut's codecs write them.

    Shapes that are not known count as nothing.
    """
    total = 0
    for spec in _returning(cut) if back else cut.specs:
        if spec is None:
            continue
        like = Like((rows, *spec.shape), spec.dtype)
        if not spec.dtype.is_floating_point:
            total += written_bytes(EXACT, like)
        elif back:
            total += written_bytes(cut.return_codec, cut.codec.folded(like))
        else:
            total += written_bytes(cut.codec, like)
    return total


def _returning(cut: Cut) -> tuple[TensorSpec | None, ...]:
    return tuple(spec for spec, back in zip(cut.specs, cut.returns_gradient, strict=True) if back)
