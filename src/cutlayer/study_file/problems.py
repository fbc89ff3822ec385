"""What is wrong with a study file, in the words of the file: table, key, what came, what was expected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import StudyError, nearest
from .tables import Tables
from .words import LOSSES

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["problem"]

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": 'text in quotes: "…"',
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list: [ … ]",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt}",
    "less_than_equal": "{le} or less",
    "less_than": "less than {lt}",
    "finite_number": "a finite number",
    "too_short": "{min_length} or more",
    "too_long": "{max_length} or fewer",
    "string_pattern_mismatch": "a name of letters, digits, '_' and '-'",
}
_TAGS = {"graph": "topology", "data": "source", "schedule": "name"}
_IN_A_WORD = ("codecs", "defences")
_UNTAGGED = {"schedule": "round_robin"}


def problem(file: str, raw: Mapping[str, Any], error: ErrorDetails) -> StudyError:
    """Return one of pydantic's findings as an error.

    Args:
        file: The file's name.
        raw: Its content.
        error: The finding.
    """
    place, kind = _place(raw, error["loc"]), error["type"]
    context: Mapping[str, Any] = error.get("ctx", {})
    if kind == "contradiction":
        return StudyError(f"{_where(file, place)}: {context['what']}", todo=context["todo"] or None)
    if kind == "unknown_key":
        noun = f"key {context['key']!r}" if place else f"table [{context['key']}]"
        todo = (
            _elsewhere(context["key"]) if place and context["key"] in Tables.model_fields else context["todo"]
        )
        return StudyError(f"{_where(file, place)}: unknown {noun}", todo=todo)
    if "discriminator" in context:  # the table does not say, or not rightly, of which kind it is
        place = (*place, context["discriminator"].strip("'"))
    if kind in ("missing", "union_tag_not_found"):
        return _missing(file, place)
    value = context.get("tag", error["input"])
    expected, todo = _expected(kind, context, value, error["msg"])
    where = _where(file, place, key=True)
    return StudyError(f"{where}: wrong value", got=_shown(value), expected=expected, todo=todo)


def _elsewhere(key: str) -> str:
    """Say where a key belongs that is a table of its own."""
    short = f", or before the first table: {key} = …" if key in _IN_A_WORD else ""
    return f"it is a table of its own: [{key}]{short}"


def _expected(kind: str, context: Mapping[str, Any], value: object, message: str) -> tuple[str, str | None]:
    """Return what was expected, and the word nearest to what came."""
    if kind in ("union_tag_invalid", "literal_error"):
        words = _literals(context.get("expected_tags") or context["expected"])
    elif kind == "unknown_word":
        words = [*LOSSES, "file.py:function"]
    elif kind == "expected":
        return context["words"], None
    else:
        return _EXPECTED.get(kind, message).format(**context), None
    return f"one of {', '.join(words)}", nearest(value, words) if isinstance(value, str) else None


def _missing(file: str, place: tuple[str, ...]) -> StudyError:
    *table, key = place
    if not table:
        return StudyError(
            f"{file}: there is no table [{key}]", todo=f"add [{key}]; docs/study-file.md shows what it holds"
        )
    return StudyError(f"{_where(file, tuple(table))}: the key {key!r} is missing", todo=f"add {key} = …")


def _place(raw: Mapping[str, Any], loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """Return tables and key as they stand in the file, without pydantic's names of variants."""
    place = list(loc)
    if len(place) > 1 and place[0] in _TAGS and isinstance(raw.get(str(place[0])), dict):
        tag = raw[str(place[0])].get(_TAGS[str(place[0])])
        if place[1] in (tag, _UNTAGGED.get(str(place[0]))):
            del place[1]
    return tuple(f"entry {part + 1}" if isinstance(part, int) else part for part in place)


def _where(file: str, place: tuple[str, ...], *, key: bool = False) -> str:
    """Return file and table, and with ``key`` the key, for the beginning of a message."""
    if not place:
        return file
    if not key or len(place) == 1:
        return f"{file}, [{'.'.join(place)}]"
    table = tuple(part for part in place[1:-1] if not part.startswith("entry "))
    if place[-1].startswith("entry "):
        return f"{file}, [{'.'.join((place[0], *table[:-1]))}] {table[-1]}, {place[-1]}"
    return f"{file}, [{'.'.join((place[0], *table))}] {place[-1]}"


def _literals(expected: str) -> list[str]:
    return [word.strip(" '") for part in expected.split(",") for word in part.split(" or ")]


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:
        return str(value)
