"""What the host remembers of a study from one start to the next, in a file of its folder."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import LogError
from ..keys.files import sync_folder
from ..schedules.calendar import Leave
from .messages import Offer

__all__ = ["Roster", "read_roster", "write_roster"]

_ROSTER = "roster.json"


@dataclass
class Roster:
    """What the host remembers of a study from one start to the next.

    Attributes:
        offers: What each party brought when it first came.
        absent: Parties that do not take part now.
        leaves: Turns that did not, or do not, take place.
        generation: The last one in which all went on.
        kept: Whether parties were told to delete early snapshots, so that nobody can begin again from nothing.
        finished: Whether all was done.
    """

    generation: int = 0
    kept: bool = False
    finished: bool = False
    offers: dict[str, Offer] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    leaves: list[Leave] = field(default_factory=list)


def read_roster(folder: Path) -> Roster | None:
    """Return the roster that lies in ``folder``, if there is one.

    Raises:
        LogError: It is damaged or cannot be read.
    """
    path = folder / _ROSTER
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Roster(
            generation=int(kept["generation"]),
            kept=bool(kept["kept"]),
            finished=bool(kept["finished"]),
            offers={name: Offer.model_validate(offer) for name, offer in kept["offers"].items()},
            absent=[str(name) for name in kept["absent"]],
            leaves=[Leave(*map(int, leave)) for leave in kept["leaves"]],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LogError(
            f"{path} cannot be read: {error}", todo="restore it, or begin the study anew in new folders"
        ) from error


def write_roster(folder: Path, roster: Roster) -> None:
    """Keep ``roster`` in ``folder``, in the place of the one before.

    Raises:
        LogError: It cannot be written; the one before is whole.
    """
    path = folder / _ROSTER
    kept = asdict(roster) | {"offers": {name: offer.model_dump() for name, offer in roster.offers.items()}}
    new = path.with_suffix(".new")
    try:
        with new.open("w", encoding="utf-8") as file:
            file.write(json.dumps(kept, indent=1))
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        sync_folder(folder)  # after a loss of power an older one would have generations begin anew
    except OSError as error:
        raise LogError(
            f"cannot write {path}: {error.strerror}", todo="make room on the disk and start again"
        ) from error
