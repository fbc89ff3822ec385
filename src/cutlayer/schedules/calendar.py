"""Which rows train in which step: an order that all parties derive from the study's seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.records import UNLABELLED
from ..errors import StudyError
from ..seeds import generator

__all__ = ["TRAINED", "UNLABELLED", "Batch", "Calendar", "Leave"]

TRAINED = ("train", UNLABELLED)
"""The splits that are trained on."""

_CUT_AT_ONCE = 16
"""Batches whose positions are cut out of their order together: a tensor takes a moment, and some 650 bytes."""


class Batch(NamedTuple):
    """Which batch: prints as ``train.2/0/3``, the split, the turn's cohort, the epoch and the batch in it."""

    split: str
    turn: int
    epoch: int
    number: int

    def __str__(self) -> str:
        return f"{self.split}.{self.turn}/{self.epoch}/{self.number}"

    @staticmethod
    def parse(text: str) -> Batch:
        """Return the batch that ``text`` names."""
        cohort, epoch, index = text.split("/")
        split, _, turn = cohort.rpartition(".")
        return Batch(split, int(turn), int(epoch), int(index))


class Leave(NamedTuple):
    """A turn that does not take place for a while, because one of its parties is not there.

    Attributes:
        turn: The turn.
        epoch: The epoch in which its party went; 0 for one that was never there yet.
        batches: Training batches of that epoch that it had done.
        until: The epoch from which on it takes place again.
    """

    turn: int
    epoch: int
    batches: int
    until: int = 2**31


@dataclass(frozen=True)
class Calendar:
    """How many rows each turn's cohort has by split, and their order in each epoch.

    It holds numbers only, no data and no ids, so every party of a study can have the same one.

    Attributes:
        rows: For each turn, the number of common rows by split: ``[{"train": 120, "test": 30}, …]``.
        batch_size: Rows in a training batch, with labels or without.
        seed: The study's seed.
        drop_last: Leave out an epoch's last batch where it has fewer rows.
        shuffle: Draw a new order in every epoch; otherwise the order of the ids.
        evaluation_batch_size: Rows in an evaluation batch.
        leaves: Turns that do not take place in some epochs.
        pooled: A training batch has ``batch_size`` rows over all turns, drawn from all of their rows without
            replacement, so that a turn's part of it varies and may be none.
    """

    rows: Sequence[Mapping[str, int]]
    batch_size: int
    seed: int = 0
    drop_last: bool = False
    shuffle: bool = True
    evaluation_batch_size: int = 256
    leaves: Sequence[Leave] = ()
    pooled: bool = False
    _pool: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    _orders: dict[tuple[int, str, int], Tensor] = field(default_factory=dict, repr=False, compare=False)
    _ready: dict[tuple[int, str, int, int], Sequence[Tensor]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name in ("batch_size", "evaluation_batch_size"):
            if getattr(self, name) < 1:
                raise StudyError(f"{name} must be at least 1", got=str(getattr(self, name)))

    def count(self, turn: int, split: str) -> int:
        """Return the number of rows that turn ``turn`` has in ``split``."""
        return int(self.rows[turn].get(split, 0))

    def batches(self, turn: int, split: str, epoch: int | None = None) -> int:
        """Return the number of batches of turn ``turn`` in one epoch of ``split``; in ``epoch``, without leaves."""
        count, size = self.count(turn, split), self._size(split)
        if self.pooled and split == "train" and count:
            count = sum(rows.get("train", 0) for rows in self.rows)
        most = count // size if self.drop_last and split in TRAINED else -(-count // size)
        for leave in self.leaves:
            if epoch is not None and leave.turn == turn and leave.epoch <= epoch < leave.until:
                return self._before(leave, most, split) if epoch == leave.epoch else 0
        return most

    def _before(self, leave: Leave, most: int, split: str) -> int:
        """Return the batches of a turn that were done in the epoch in which a party of it left, of ``most``."""
        labelled = self.batches(leave.turn, "train")
        if split == UNLABELLED and labelled:
            return most * min(labelled, leave.batches) // labelled  # they are spread over those with labels
        return min(most, leave.batches) if split in TRAINED else 0

    def steps(self, epoch: int | None = None) -> int:
        """Return the number of training steps in one epoch over all turns; in ``epoch``, without leaves."""
        return sum(self.batches(turn, split, epoch) for turn in range(len(self.rows)) for split in TRAINED)

    def first_step(self, epoch: int) -> int:
        """Return the number of the first training step of ``epoch``, counted over the whole training."""
        return sum(map(self.steps, range(epoch))) if self.leaves else epoch * self.steps()

    def positions(self, batch: Batch) -> Tensor:
        """Return the rows of ``batch`` as positions among its cohort's common rows: int64 [<= batch size]."""
        split, turn, epoch, number = batch
        ready = self._ready.get((turn, split, epoch, number // _CUT_AT_ONCE))
        if ready is None:
            ready = self._cut(turn, split, epoch, number // _CUT_AT_ONCE)
        return ready[number % _CUT_AT_ONCE]

    def _cut(self, turn: int, split: str, epoch: int, run: int) -> Sequence[Tensor]:
        """Return the positions of the batches of a run, for as long as it or the next one is at work."""
        order = self._order(turn, split, epoch)
        bounds = self._bounds(Batch(split, turn, epoch, run * _CUT_AT_ONCE), _CUT_AT_ONCE)
        self._ready.pop((turn, split, epoch, run - 2), None)
        ready = self._ready[turn, split, epoch, run] = torch.tensor_split(order, bounds)[1:-1]
        return ready

    def rows_of(self, turn: int, epoch: int, first: int, end: int) -> int:
        """Return the rows in the training batches from ``first`` to before ``end`` of a turn."""
        begin, _ = self._bounds(Batch("train", turn, epoch, first))
        _, until = self._bounds(Batch("train", turn, epoch, end - 1))
        return min(until, self.count(turn, "train")) - begin

    def size(self, batch: Batch) -> int:
        """Return the rows in ``batch``."""
        first, end = self._bounds(batch)
        return min(end, self.count(batch.turn, batch.split)) - first

    def _bounds(self, batch: Batch, count: int = 1) -> list[int]:
        """Return where ``count`` batches from ``batch`` on begin in their turn's order, and the last one's end."""
        first, end = batch.number, batch.number + count + 1
        if self.pooled and batch.split == "train":
            drawn: list[int] = self._drawn(batch.epoch)[first:end, batch.turn].tolist()
            return drawn
        size = self._size(batch.split)
        return [number * size for number in range(first, end)]

    def _drawn(self, epoch: int) -> np.ndarray:
        """Return how many rows of each turn were drawn before each step, and in the end: int64 [steps + 1, turns]."""
        if epoch not in self._pool:
            self._pool.clear()
            turns = len(self.rows)
            owners = np.repeat(np.arange(turns), [self.count(turn, "train") for turn in range(turns)])
            if self.shuffle:
                owners = generator(self.seed, "pool", epoch).permutation(owners)
            steps = range(0, len(owners), self.batch_size)
            counts = [np.bincount(owners[i : i + self.batch_size], minlength=turns) for i in steps]
            self._pool[epoch] = np.cumsum([np.zeros(turns, np.int64), *counts], axis=0)
        return self._pool[epoch]

    def _size(self, split: str) -> int:
        return self.batch_size if split in TRAINED else self.evaluation_batch_size

    def _order(self, turn: int, split: str, epoch: int) -> Tensor:
        key = (turn, split, epoch)
        if key not in self._orders:
            if self._orders and _sort(next(iter(self._orders))) != _sort(key):
                self._orders.clear()  # turns come back while an epoch lasts; what is over is forgotten
                self._ready.clear()
            count = self.count(turn, split)
            shuffled = self.shuffle and split in TRAINED
            draw = generator(self.seed, "order", turn, split, epoch)
            order = draw.permutation(count) if shuffled else np.arange(count)
            self._orders[key] = torch.from_numpy(order.astype(np.int64))
        return self._orders[key]


def _sort(key: tuple[int, str, int]) -> tuple[str, int]:
    """Return what orders have in common that are used side by side: of an epoch, all that is trained on."""
    _, split, epoch = key
    return ("train" if split in TRAINED else split), epoch
