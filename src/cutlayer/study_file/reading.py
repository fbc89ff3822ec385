"""From the text of ``study.toml`` to checked tables; every problem names file, table and key."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..errors import CutlayerError, StudyError, nearest
from .problems import problem
from .tables import Tables

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data import Holdings
    from ..study import Study

__all__ = ["StudyFile", "in_table", "load_study"]


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
        problems = [problem(path.name, raw, error) for error in invalid.errors(include_url=False)]
    if len(problems) == 1:
        raise problems[0]
    raise StudyError(
        "\n".join([f"{path.name} has {len(problems)} problems:", *(f"- {one}" for one in problems)])
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
