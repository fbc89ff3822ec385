"""A folder for each party, with all that it needs to join: the study file, the model code, its own records."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..data import Holdings, PartyData
from ..errors import DataError, StudyError
from .dealing import is_at_hand
from .records_file import RECORDS, write_records

if TYPE_CHECKING:
    from ..graph import SplitGraph
    from ..study import Study
    from .reading import StudyFile

__all__ = ["deal_out", "field_lines", "party_lines"]


def deal_out(file: StudyFile, out: Path, built: tuple[Study, Holdings] | None = None) -> dict[str, Path]:
    """Write a folder for each party and return them by name.

    Args:
        file: The study, whose pooled data are at hand.
        out: A folder that is not there yet, or empty.
        built: What `StudyFile.build` returned, where it was called.

    Raises:
        StudyError: The pooled data are not here, ``out`` is in use, model code lies outside the study's folder.
    """
    if not is_at_hand(file):
        raise StudyError("the data to deal are not here", todo="correct path in [data]")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StudyError(f"{out} is in use", todo="name a new folder, or an empty one")
    study, holdings = built or file.build()
    graph = study.graph
    text = _text(file, graph, holdings)
    root = file.path.parent.resolve()
    code = [_inside((root / path).resolve(), root) for path in study.code]
    own = {party.name: party for party in holdings.parties}
    folders = {party.name: out / party.name for party in graph.parties}
    try:
        for name, folder in folders.items():
            folder.mkdir(parents=True)
            (folder / file.path.name).write_text(text, encoding="utf-8")
            for path in code:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / path, folder / path)
            if name in own:
                write_records(folder / RECORDS, own[name])
    except OSError as error:
        raise DataError(
            f"cannot write {out}: {error}", todo="make room on the disk, or choose another folder"
        ) from error
    return folders


def field_lines(own: PartyData) -> str:
    """Return the table ``[fields.ROLE]`` that these records give."""
    specs = own.specs().items()
    return "\n".join([f"[fields.{_key(own.role)}]", *(f'{_key(name)} = "{spec}"' for name, spec in specs)])


def party_lines(graph: SplitGraph) -> str:
    """Return the table ``[parties]`` of this graph."""
    return "\n".join(["[parties]", *(f'{_key(party.name)} = "{party.role}"' for party in graph.parties)])


def _text(file: StudyFile, graph: SplitGraph, holdings: Holdings) -> str:
    """Return the study file with ``[parties]`` and ``[fields]``, as it is where it has them."""
    blocks = [file.path.read_text(encoding="utf-8").rstrip()]
    if not file.tables.parties:
        blocks.append(party_lines(graph))
    if not file.tables.fields:
        blocks += [field_lines(holdings.party(names[0])) for names in holdings.roles.values()]
    return "\n\n".join(blocks) + "\n"


def _inside(path: Path, root: Path) -> Path:
    if not path.is_relative_to(root):
        raise StudyError(
            f"the model code {path} lies outside the study's folder",
            todo=f"move it into {root}, so that the folder is all that a party needs",
        )
    return path.relative_to(root)


def _key(name: str) -> str:
    """Return a name as a key of TOML."""
    plain = name.isascii() and all(c.isalnum() or c in "_-" for c in name)
    return name if name and plain else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
