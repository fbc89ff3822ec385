"""From the text of ``study.toml`` to checked tables; every problem names file, table and key."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..errors import CutlayerError, StudyError, nearest
from .party_tables import NetworkTable
from .problems import problem
from .tables import Tables

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data import Holdings, PartyData
    from ..study import Study

__all__ = ["PartyStudy", "StudyFile", "in_table", "load_study"]


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
        """Read the data and deal them to the parties.

        Where only the parties have data, and ``[parties]`` and ``[fields]`` say who and which, the holdings
        have their names and fields, and rows that cannot be read.
        """
        from .dealing import is_at_hand, pooled
        from .people import away, is_declared

        return pooled(self) if is_at_hand(self) or not is_declared(self) else away(self)

    def build(self) -> tuple[Study, Holdings]:
        """Return the study and who holds what.

        Raises:
            CutlayerError: Data, model or settings that cannot be.
        """
        from .joining import study_and_holdings

        return study_and_holdings(self)

    def at(self, party: str, data: str | Path | None = None) -> PartyStudy:
        """Return the study as ``party`` has it: the same as everybody's, with its own records only.

        Args:
            party: Whose.
            data: The folder of its own data: ``records.safetensors``, or what ``[data]`` reads. Left out:
                its part of the pooled data, where they are at hand.

        Raises:
            CutlayerError: No such party, its data are missing or not what the study says.
        """
        from .joining import at_party

        return at_party(self, party, None if data is None else Path(data))

    def on(self, device: str | None) -> StudyFile:
        """Return the file as if ``[study] device`` said this, or as it is; the study's digest stays the same."""
        if device is None:
            return self
        table = self.tables.study.model_copy(update={"device": device})
        return replace(self, tables=self.tables.model_copy(update={"study": table}))

    def deal(self, out: str | Path, built: tuple[Study, Holdings] | None = None) -> dict[str, Path]:
        """Write a folder for each party, with all that it needs to join, and return them by party.

        Args:
            out: A folder that is not there yet, or empty.
            built: What `build` returned, so that data are not read again.

        Raises:
            CutlayerError: The pooled data are not here, ``out`` is in use, model code lies elsewhere.
        """
        from .rehearsal import deal_out

        return deal_out(self, Path(out), built)

    def network(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """Return the uncut model and a few rows of its inputs.

        Raises:
            StudyError: The topology has several models.
        """
        from .wiring import network_of

        return network_of(self)


@dataclass(frozen=True, eq=False)
class PartyStudy:
    """The study at one party.

    Attributes:
        party: Its name.
        study: What all agree on; its digest is the same at every party.
        own: The party's own records; None where it holds no data.
        network: Where the parties meet; ``host`` is the party to which the others dial.
    """

    party: str
    study: Study
    own: PartyData | None
    network: NetworkTable


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
            f"{path} is a folder" if path.is_dir() else f"there is no file {path}",
            todo=nearest(path.name, close) if close else "name a study.toml",
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
