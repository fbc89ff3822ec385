"""From the text of ``study.toml`` to checked tables; every problem names file, table and key."""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..errors import CutlayerError, StudyError, nearest
from .tables import Tables
from .words import LOSSES

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from torch import Tensor, nn

    from ..data import Holdings
    from ..study import Study

__all__ = ["StudyFile", "in_table", "load_study"]

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
_TAGS = {"graph": "topology", "data": "source"}


@dataclass(frozen=True)
class StudyFile:
    """A study file that has been read and checked.

    Attributes:
        path: The file; paths in it are relative to its folder.
        tables: What it says.
    """

    path: Path
    tables: Tables

    @property
    def name(self) -> str:
        """The study's name; the file's where it gives none."""
        return self.tables.study.name or self.path.stem

    def holdings(self) -> Holdings:
        """Read the data and deal them to the parties."""
        from .dealing import holdings_of

        return holdings_of(self)

    def build(self) -> tuple[Study, Holdings]:
        """Return the study and who holds what.

        Raises:
            CutlayerError: Data, model or settings that cannot be.
        """
        from .building import study_of

        holdings = self.holdings()
        return study_of(self, holdings), holdings

    def network(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """Return the uncut model and a few rows of its inputs.

        Raises:
            StudyError: The topology has several models.
        """
        from .wiring import network_of

        return network_of(self)


def load_study(path: str | Path) -> StudyFile:
    """Read and check a study file.

    Raises:
        StudyError: No such file, not TOML, a key unknown or missing, a value of the wrong type.
    """
    path = Path(path)
    raw = _read(path)
    try:
        return StudyFile(path, Tables.model_validate(raw))
    except ValidationError as invalid:
        problems = [_problem(path.name, raw, error) for error in invalid.errors(include_url=False)]
    if len(problems) == 1:
        raise problems[0]
    raise StudyError(
        "\n".join([f"{path.name} has {len(problems)} problems:", *(f"- {problem}" for problem in problems)])
    )


@contextlib.contextmanager
def in_table(file: StudyFile, table: str) -> Iterator[None]:
    """Add to an error where in the file its cause stands."""
    try:
        yield
    except CutlayerError as error:
        raise type(error)(
            f"{error.what} ({file.path.name}, [{table}])",
            party=error.party,
            cut=error.cut,
            step=error.step,
            got=error.got,
            expected=error.expected,
            todo=error.todo,
        ) from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        close = sorted(p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        raise StudyError(
            f"there is no file {path}", todo=nearest(path.name, close) if close else "name a study.toml"
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise StudyError(
            f"{path.name} is not TOML: {error}", todo="correct that line; https://toml.io shows the rules"
        ) from error
    except (UnicodeDecodeError, OSError) as error:
        raise StudyError(
            f"{path.name} cannot be read as text: {error}", todo="save it as UTF-8 text"
        ) from error


def _problem(file: str, raw: Mapping[str, Any], error: ErrorDetails) -> StudyError:
    """Say one of pydantic's findings in the words of the file."""
    place, kind = _place(raw, error["loc"]), error["type"]
    context: Mapping[str, Any] = error.get("ctx", {})
    if kind == "contradiction":
        return StudyError(f"{_where(file, place)}: {context['what']}", todo=context["todo"] or None)
    if kind == "unknown_key":
        key = context["key"]
        if not place:
            return StudyError(f"{file}: unknown table [{key}]", todo=context["todo"])
        return StudyError(f"{_where(file, place)}: unknown key {key!r}", todo=context["todo"])
    if kind in ("missing", "union_tag_not_found"):
        return _missing(file, place, context)
    got = _shown(error["input"])
    if kind == "union_tag_invalid":
        key, known = _TAGS[place[0]], [word.strip(" '") for word in context["expected_tags"].split(",")]
        return StudyError(
            f"{_where(file, place)}: unknown {key}",
            got=_shown(context["tag"]),
            todo=nearest(context["tag"], known),
        )
    if kind == "literal_error":
        known = _literals(context["expected"])
        todo = nearest(str(error["input"]), known) if isinstance(error["input"], str) else None
        return StudyError(
            _where(file, place, key=True),
            got=got,
            expected=" or ".join(f'"{word}"' for word in known),
            todo=todo,
        )
    if kind == "unknown_word":
        return StudyError(
            _where(file, place, key=True),
            got=got,
            expected=f"one of {', '.join(LOSSES)}, or file.py:function",
            todo=context["todo"],
        )
    expected = context["words"] if kind == "expected" else _EXPECTED.get(kind, error["msg"]).format(**context)
    return StudyError(_where(file, place, key=True), got=got, expected=expected)


def _missing(file: str, place: tuple[str, ...], context: Mapping[str, Any]) -> StudyError:
    if "discriminator" in context:  # the table is there, but does not say which kind it is
        place = (*place, context["discriminator"].strip("'"))
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
        if place[1] == tag:
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
