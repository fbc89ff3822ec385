"""Defences by a word: ``nopeek:0.1``, ``gaussian:clip=1,noise=2``, ``max-norm``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ..errors import StudyError, nearest
from .base import Defence
from .known import DEFENCES

__all__ = ["defence_of", "defences_of", "known_defences"]

_EXAMPLES = "e.g. 'nopeek:0.1', 'gaussian:clip=1,noise=2', 'max-norm'"


def known_defences() -> dict[str, type[Defence]]:
    """Return the classes of all defences that cutlayer has, by word."""
    return {defence.word: defence for defence in DEFENCES}


def defence_of(word: str | Defence) -> Defence:
    """Return the defence that ``word`` names: its name and, after a colon, its settings in order or by name.

    Raises:
        StudyError: There is no such defence, or no such setting of it, or its value cannot be.
    """
    if isinstance(word, Defence):
        return word
    if not isinstance(word, str):
        raise StudyError("a defence is chosen by a word", got=type(word).__name__, expected=_EXAMPLES)
    name, colon, said = word.partition(":")
    known = known_defences()
    if name not in known:
        raise StudyError(f"no defence is named {name!r}", todo=nearest(name, list(known)))
    chosen = known[name]
    given: dict[str, object] = {}
    sayable = [field.name for field in dataclasses.fields(chosen)]
    for place, text in enumerate(said.split(",") if colon else []):
        key, equals, value = text.strip().rpartition("=")
        if not equals:
            key = sayable[place] if place < len(sayable) else ""
        if key not in sayable or key in given:
            raise StudyError(
                f"defence {word!r}: {text!r} is no setting",
                expected=", ".join(sayable) or "none: the word is all",
                todo=nearest(key, sayable) if key and sayable else None,
            )
        given[key] = _value(value)
    missing = [f.name for f in dataclasses.fields(chosen) if _needed(f) and f.name not in given]
    if missing:
        raise StudyError(
            f"defence {word!r} lacks its {missing[0]}", todo=f"say for example '{name}:{missing[0]}=1'"
        )
    return chosen(**given)


def defences_of(words: str | Defence | Iterable[str | Defence]) -> tuple[Defence, ...]:
    """Return one defence or several, in order."""
    one = isinstance(words, str | Defence)
    return tuple(map(defence_of, [words] if one else words))  # type: ignore[arg-type]


def _needed(field: dataclasses.Field[object]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(text: str) -> object:
    """Return a number or a truth where the text is one; the defence says whether it will do."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
