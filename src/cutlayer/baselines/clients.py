"""Whose rows a baseline trains on: the parties that hold whole rows, inputs and labels, and what server they have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from ..data import Holdings
from ..errors import StudyError
from ..graph.reconstruction import roles_at_home
from ..graph.split_graph import SplitGraph
from ..runtime.cohorts import Cohorts
from ..schedules.calendar import TRAINED, Batch, Calendar
from ..schedules.steps import data_roles
from ..seeds import stream
from ..study import Study

__all__ = ["Clients", "client_role", "server_of"]


def client_role(study: Study) -> str:
    """Return the role whose parties hold whole rows, so that each could train the uncut network alone.

    Raises:
        StudyError: Rows are split over several roles, or the study does what the baselines do not.
    """
    graph = study.graph
    roles = data_roles(graph)
    if len(roles) != 1:
        raise StudyError(
            "baselines need clients that hold whole rows, inputs and labels, each rows of its own",
            got=f"study {study.name!r}, in which data are at {', '.join(roles)}",
            expected="vanilla, U-shaped or multi-hop, with all rows at the clients",
            todo="there is no federated averaging of parties that hold different columns, or labels of others",
        )
    if roles_at_home(graph) or study.unlabelled:
        raise StudyError("baselines train on labelled rows only", got="a study with a decoder at home")
    if study.mixed or study.compiled:
        raise StudyError(
            "baselines compute in float32, and nothing is compiled",
            got=", ".join([*study.mixed, *study.compiled]),
            todo="compare without precision and compiled",
        )
    return roles[0]


def server_of(graph: SplitGraph, clients: str) -> str:
    """Return the party that averages: the last that is no client, or one of its own where all parties are clients."""
    others = [party.name for party in graph.parties if party.role != clients]
    return others[-1] if others else "averaging-server"


@dataclass(frozen=True)
class Clients:
    """The clients' rows, batch by batch, in the orders that a split study draws from the same seed.

    Attributes:
        role: The role that they fill.
        names: Their names, by turn.
        holdings: Everybody's data.
        calendar: Which rows when.
        cohorts: Their rows by split.
        seed: The study's seed.
    """

    role: str
    names: tuple[str, ...]
    holdings: Holdings
    calendar: Calendar
    cohorts: Cohorts
    seed: int

    @classmethod
    def of(cls, study: Study, holdings: Holdings) -> Clients:
        """Return the clients of a study.

        Raises:
            StudyError: Its rows are not whole at its clients.
            DataError: A client has no data.
        """
        role, cohorts = client_role(study), Cohorts(study.graph, holdings)
        names = tuple(turn[role] for turn in study.graph.turns)
        return cls(role, names, holdings, study.course(cohorts.rows).calendar, cohorts, study.seed)

    @property
    def training(self) -> list[int]:
        """The clients that have rows to train on, by turn."""
        return [turn for turn in range(len(self.names)) if self.calendar.batches(turn, "train")]

    def rows(self, turn: int, split: str = "train") -> int:
        """Return how many rows a client has."""
        return self.calendar.count(turn, split)

    def epoch(self, turn: int, epoch: int, split: str = "train") -> Iterator[Batch]:
        """Yield the batches of one epoch of a client's rows."""
        for number in range(self.calendar.batches(turn, split)):
            yield Batch(split, turn, epoch, number)

    def read(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Return ``{role: {field: rows [B, ...]}}`` of a batch."""
        records = self.holdings.party(self.names[batch.turn]).splits[batch.split]
        rows = self.calendar.positions(batch)
        if not records.lazy:
            return {self.role: records.batch(rows)}
        epoch = batch.epoch if batch.split in TRAINED else 0
        seed = stream(self.seed, "data", self.role, batch.split, batch.turn, epoch, batch.number)
        return {self.role: records.read(rows, seed)}
