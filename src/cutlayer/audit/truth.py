"""The rows behind what a party saw: for the auditor, who judges an attack, and never for the attack."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data import Holdings
from ..errors import StudyError, nearest
from ..runtime.party import LocalParty, Runner
from ..schedules.actions import Action, Op
from ..schedules.calendar import TRAINED, Batch
from ..seeds import stream
from .transcript import Sight, Transcript

__all__ = ["Truth"]


class _Load(NamedTuple):
    """A batch that a party loaded when the watched one had seen ``number`` things."""

    number: int
    party: str
    batch: Batch


class Truth:
    """Knows which rows every party loaded, and gives those that a sight is of; `instead` goes to ``simulate`` as well.

    Labels are those of the holdings, also where a defence lets their holder train with others.

    Args:
        holdings: Everybody's data.
        transcript: What the sights are of.
    """

    def __init__(self, holdings: Holdings, transcript: Transcript) -> None:
        self._holdings, self._transcript = holdings, transcript
        self._parties: dict[str, LocalParty] = {}
        self._loads: dict[tuple[int, bool], list[_Load]] = {}

    def instead(self, local: LocalParty, action: Action, honest: Runner) -> Runner:
        """Note what is loaded, and leave all as it is."""
        if action.op is not Op.LOAD:
            return honest
        self._parties[local.name] = local

        def run(step: int, what: str) -> None:
            batch = Batch.parse(what)
            load = _Load(self._transcript.noted, local.name, batch)
            honest(step, what)
            self._loads.setdefault((step, batch.split in TRAINED), []).append(load)

        return run

    def rows(self, sights: Iterable[Sight], field: str, holder: str | None = None) -> Tensor:
        """Return the rows of ``field`` behind ``sights``, in order [N, ...].

        Args:
            sights: What the party saw.
            field: A field of the party that holds it.
            holder: That party, where several of one batch have a field of that name.

        Raises:
            StudyError: No party, or several, loaded such a field for one of them.
        """
        found = []
        for sight in sights:
            load = self._load(sight, field, holder)
            found.append(self._read(load, field))
        if not found:
            raise StudyError("there are no sights to tell the rows of", todo="watch a run first")
        return torch.cat(found)

    def ids(self, sights: Iterable[Sight]) -> np.ndarray:
        """Return the ids of the rows behind ``sights``, in order [N]."""
        found = []
        for sight in sights:
            load = self._load(sight, None, None)
            found.append(
                self._holdings.party(load.party).splits[load.batch.split].ids[self._positions(load).numpy()]
            )
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)

    def _load(self, sight: Sight, field: str | None, holder: str | None) -> _Load:
        """Return the last load of the sight's step before it, by a party that has the field."""
        before = [
            load for load in self._loads.get((sight.step, sight.training), []) if load.number <= sight.number
        ]
        batch = before[-1].batch if before else None
        here = [load for load in before if load.batch == batch]
        fits = {
            load.party: load
            for load in here
            if (field is None or field in self._fields(load)) and holder in (None, load.party)
        }
        if len(fits) == 1 or (field is None and fits):
            return next(iter(fits.values()))
        known = sorted({name for load in here for name in self._fields(load)})
        raise StudyError(
            f"{'several parties have' if fits else 'no party has'} a field {field!r} behind what was seen",
            cut=sight.cut,
            step=sight.step,
            got=", ".join(fits) or None,
            todo="say which with holder=" if fits else nearest(str(field), known),
        )

    def _fields(self, load: _Load) -> Iterable[str]:
        return self._holdings.party(load.party).splits[load.batch.split].fields

    def _positions(self, load: _Load) -> Tensor:
        local, batch = self._parties[load.party], load.batch
        rows = local.shared.calendar.positions(batch)
        own = local.positions.get((batch.split, batch.turn))
        return rows if own is None else own.index_select(0, rows)

    def _read(self, load: _Load, field: str) -> Tensor:
        """Return the rows as they went in: what a dataset augments, it augments again in the same way."""
        local, batch = self._parties[load.party], load.batch
        records = self._holdings.party(load.party).splits[batch.split]
        epoch = batch.epoch if batch.split in TRAINED else 0
        seed = stream(local.shared.seed, "data", local.role, batch.split, batch.turn, epoch, batch.number)
        return records.read(self._positions(load), seed)[field]
