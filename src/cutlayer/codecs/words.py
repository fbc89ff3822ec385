"""Codecs by a word: ``int8``, ``topk:0.1``, ``random-topk:0.1,explore=0.2``, ``topk:0.05+feedback``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from ..errors import StudyError, nearest
from .base import Codec, Exact
from .casts import Cast
from .circular import Circular
from .float8 import Float8
from .integers import Integer
from .product import ProductQuantiser
from .sparse import RandomTopK, TopK

__all__ = ["EXACT", "codec_of", "full_word", "known_words"]

EXACT = Exact()
"""The codec unless another is chosen."""
_EXAMPLES = "e.g. 'int8', 'int4:row', 'topk:0.1', 'random-topk:0.1,explore=0.2', 'pq:4,16', 'c3:2'"


@dataclass(frozen=True)
class _Known:
    """A word's codec: its class, what the word itself settles, what may be said after the colon, in order."""

    codec: type[Codec]
    settled: Mapping[str, object]
    sayable: tuple[str, ...] = ()


_KNOWN = {
    "exact": _Known(Exact, {}),
    "float16": _Known(Cast, {"dtype": "float16"}),
    "bfloat16": _Known(Cast, {"dtype": "bfloat16"}),
    "float8": _Known(Float8, {}, ("format",)),
    "int8": _Known(Integer, {"bits": 8}, ("per",)),
    "int4": _Known(Integer, {"bits": 4}, ("per",)),
    "topk": _Known(TopK, {}, ("share", "values")),
    "random-topk": _Known(RandomTopK, {}, ("share", "explore", "values")),
    "pq": _Known(ProductQuantiser, {}, ("width", "centroids", "correction")),
    "c3": _Known(Circular, {}, ("rows",)),
}


def known_words() -> tuple[str, ...]:
    """Return the words with which a codec can begin."""
    return tuple(_KNOWN)


def codec_of(word: str | Codec) -> Codec:
    """Return the codec that ``word`` names: a name, after a colon its settings, and ``+feedback``.

    Raises:
        StudyError: There is no such codec, or no such setting of it, or its value cannot be.
    """
    if isinstance(word, Codec):
        return word
    if not isinstance(word, str):
        raise StudyError("a codec is chosen by a word", got=type(word).__name__, expected=_EXAMPLES)
    said, plus, extra = word.partition("+")
    name, colon, settings = said.partition(":")
    known = _KNOWN.get(name)
    if known is None:
        raise StudyError(f"no codec is named {word!r}", todo=nearest(name, known_words()))
    if plus and (extra != "feedback" or known.codec is Exact):
        why = f"{extra!r} can follow no codec" if extra != "feedback" else "exact leaves nothing out"
        raise StudyError(f"codec {word!r}: {why}", todo="say for example 'topk:0.1+feedback'")
    given = _settings(word, settings.split(",") if colon else [], known)
    needed = [f.name for f in fields(known.codec) if f.name == "share" and f.name not in given]
    if needed:
        raise StudyError(f"codec {word!r} lacks its {needed[0]}", todo=f"say for example '{name}:0.1'")
    try:
        made = known.codec(**known.settled, **given)  # type: ignore[arg-type]  # checked when built
    except StudyError as error:
        raise StudyError(
            f"codec {word!r}: {error.what}", got=error.got, expected=error.expected, todo=error.todo
        ) from error
    return replace(made, feedback=True) if plus else made


def full_word(codec: Codec) -> str:
    """Return the word that names ``codec`` with all that it is."""
    return codec.word + ("+feedback" if codec.feedback else "")


def _settings(word: str, said: list[str], known: _Known) -> dict[str, object]:
    given: dict[str, object] = {}
    for place, text in enumerate(said):
        name, equals, value = text.strip().rpartition("=")
        if not equals:
            name = known.sayable[place] if place < len(known.sayable) else ""
        if name not in known.sayable or name in given:
            raise StudyError(
                f"codec {word!r}: {text!r} is no setting",
                expected=", ".join(known.sayable) or "none: the word is all",
                todo=nearest(name, known.sayable) if name else None,
            )
        given[name] = _value(value)
    return given


def _value(text: str) -> object:
    """Return a number where the text is one; the codec says whether it will do."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
