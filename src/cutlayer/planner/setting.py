"""What is planned for: how many clients with how many rows, for how long, on which machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..errors import StudyError, nearest
from ..graph.coding import Choice
from ..graph.split_graph import SplitGraph
from ..runtime.optim import OptimizerSpec, optimizer
from ..schedules import Parallel, RoundRobin, Schedule, SplitFed
from ..study import Study
from .pace import World

__all__ = ["LOCAL", "SCHEDULES", "Setting", "schedule_of"]

LOCAL = "local_loss"
"""The schedule in which clients learn from a loss of their own, and no gradient comes back."""
SCHEDULES: Mapping[str, Callable[[], Schedule]] = {
    "round_robin": RoundRobin,
    "splitfed1": lambda: SplitFed(version=1),
    "splitfed2": lambda: SplitFed(version=2),
    "splitfed3": lambda: SplitFed(version=3),
    "parallel": Parallel,
    LOCAL: lambda: SplitFed(version=1, local=True),
}
"""Schedules by the words that a plan knows."""


def schedule_of(word: str) -> Schedule:
    """Return the schedule called ``word``.

    Raises:
        StudyError: There is none.
    """
    if word not in SCHEDULES:
        raise StudyError(f"a plan knows no schedule {word!r}", todo=nearest(word, list(SCHEDULES)))
    return SCHEDULES[word]()


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is planned for.

    Attributes:
        world: Machines and lines.
        clients: How many there are.
        rows: Training rows of all clients together, dealt out evenly.
        test_rows: Rows that are measured after each epoch, dealt out evenly.
        batch_size: Rows in a training batch.
        epochs: How often the training rows are gone through.
        optimizer: Whose slots are kept and handed over.
        codecs: How what crosses is written; as it is unless said.
        local_epochs: Epochs of federated averaging between two averages.
        share_labels: Whether clients send labels along where the server has the loss; else they are the server's own.

    Raises:
        StudyError: Numbers that cannot be.
    """

    world: World
    clients: int = 10
    rows: int = 50_000
    test_rows: int = 0
    batch_size: int = 64
    epochs: int = 1
    optimizer: OptimizerSpec = field(default_factory=lambda: optimizer("SGD", lr=0.1, momentum=0.9))
    codecs: Choice = None
    local_epochs: int = 1
    share_labels: bool = True

    def __post_init__(self) -> None:
        for name, least in (("clients", 1), ("rows", 1), ("test_rows", 0), ("batch_size", 1), ("epochs", 1),
                            ("local_epochs", 1)):  # fmt: skip
            if getattr(self, name) < least:
                raise StudyError(f"{name} is at least {least}", got=str(getattr(self, name)))
        if self.rows < self.clients:
            raise StudyError(
                "each client needs a row to train on", got=f"{self.rows} rows, {self.clients} clients"
            )

    @property
    def batch_rows(self) -> int:
        """Rows in the first batch of the client that has the most: fewer than a batch's where it has not as many."""
        return min(self.batch_size, -(-self.rows // self.clients))

    @property
    def dealt(self) -> list[dict[str, int]]:
        """Rows of each client by split."""
        train, test = _dealt(self.rows, self.clients), _dealt(self.test_rows, self.clients)
        return [{"train": a, **({"test": b} if b else {})} for a, b in zip(train, test, strict=True)]

    def study(self, graph: SplitGraph, schedule: Schedule) -> Study:
        """Return the study that trains ``graph`` so."""
        return Study(
            graph=graph,
            optimizer=self.optimizer,
            schedule=schedule,
            batch_size=self.batch_size,
            epochs=self.epochs,
        )


def _dealt(rows: int, parties: int) -> list[int]:
    return [rows // parties + (index < rows % parties) for index in range(parties)]
