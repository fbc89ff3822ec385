"""From ``[graph]`` to modules and the split graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..errors import StudyError
from ..graph import SplitGraph, extended_vanilla, multi_hop, multi_task, u_shaped, vanilla, vertical
from ..graph.parts import LossFunction, Placement
from ..graph.reconstruction import with_decoder
from .dealing import holdings_of
from .functions import Functions
from .graph_tables import (
    ChainTable,
    ExtendedVanillaTable,
    MergedTable,
    MultiHopTable,
    MultiTaskTable,
    UShapedTable,
    VanillaTable,
    VerticalTable,
)
from .people import declared, is_declared
from .reading import in_table
from .words import LOSSES, Call

if TYPE_CHECKING:
    from .reading import StudyFile

__all__ = ["graph_of", "network_of"]

_WORDS_TO_MERGE = ("concat", "sum", "mean")


def graph_of(file: StudyFile, people: Placement, functions: Functions | None = None) -> SplitGraph:
    """Return the split graph.

    Args:
        file: The study.
        people: Who takes part and what the shapes are.
        functions: Where models come from; knows afterwards which files were executed.
    """
    with in_table(file, "graph"):
        parts = _Graph(file, people, functions)
        graph = parts.decoded(parts.build())
    with in_table(file, "codecs"):
        graph = graph.with_codecs(file.tables.codecs)
    with in_table(file, "defences"):
        return graph.with_defences(file.tables.defences)


def network_of(file: StudyFile) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return the uncut model and a few rows of its inputs."""
    graph = file.tables.graph
    if not isinstance(graph, ChainTable):
        raise StudyError(
            f"{file.path.name}: the topology {graph.topology!r} has several models, cut where they meet"
        )
    people = declared(file) if is_declared(file) else holdings_of(file)
    rows = {name: field for name, field in people.example("client").items() if name != "y"}
    return _Graph(file, people).model(graph), tuple(rows.values())


class _Graph:
    """Makes the modules and the graph of a study."""

    def __init__(self, file: StudyFile, people: Placement, functions: Functions | None = None) -> None:
        self.table = file.tables.graph
        self.people = people
        self.functions = functions or Functions(file.path.parent, file.tables.study.seed)

    def build(self) -> SplitGraph:
        """Return the graph."""
        table, people = self.table, self.people
        match table:
            case VanillaTable():
                return vanilla(
                    self.model(table),
                    table.cut,
                    clients=people,
                    loss=self._loss(table.loss),
                    server=table.server,
                )
            case UShapedTable():
                cuts = (table.cuts[0], table.cuts[1])
                return u_shaped(
                    self.model(table), cuts, clients=people, loss=self._loss(table.loss), server=table.server
                )
            case MultiHopTable():
                return multi_hop(
                    self.model(table),
                    table.cuts,
                    clients=people,
                    hops=table.hops,
                    loss=self._loss(table.loss),
                    server=table.server,
                )
            case VerticalTable():
                return vertical(
                    self._bottoms(table),
                    self._make(table.top, "top"),
                    parties=people,
                    merge=self._merge(table),
                    loss=self._loss(table.loss),
                    server=table.server,
                )
            case ExtendedVanillaTable():
                return extended_vanilla(
                    self._bottoms(table),
                    self._make(table.middle, "middle"),
                    self._make(table.top, "top"),
                    parties=people,
                    merge=self._merge(table),
                    loss=self._loss(table.loss),
                    worker=table.worker,
                    server=table.server,
                )
            case MultiTaskTable():
                return self._multi_task(table)

    def decoded(self, graph: SplitGraph) -> SplitGraph:
        """Return ``graph`` with the clients' decoder, where the table has one."""
        table = self.table
        if not isinstance(table, ChainTable) or table.decoder is None:
            return graph
        return with_decoder(graph, self._make(table.decoder, "decoder"), alpha=table.alpha)

    def model(self, table: ChainTable) -> nn.Module:
        """Return the uncut model."""
        return self.functions.make(table.model, input_shape=self._shape("client"))

    def _multi_task(self, table: MultiTaskTable) -> SplitGraph:
        tops = {server: self._make(call, "tops", server) for server, call in table.tops.items()}
        losses = {server: self._loss(word) for server, word in table.losses.items()}
        for name in (*table.losses, *table.weights):
            if name not in tops:
                raise StudyError(
                    f"a loss or weight is given for the unknown server {name!r}",
                    todo=f"known: {', '.join(tops)}",
                )
        return multi_task(
            self._bottoms(table),
            tops,
            parties=self.people,
            merge=self._merge(table),
            losses=losses,
            weights=table.weights,
        )

    def _bottoms(self, table: MergedTable) -> dict[str, nn.Module]:
        return {
            role: self.functions.make(call, "bottoms", role, input_shape=self._shape(role))
            for role, call in table.bottoms.items()
        }

    def _make(self, call: Call, *place: str) -> nn.Module:
        return self.functions.make(call, *place)

    def _merge(self, table: MergedTable) -> str | nn.Module:
        word = table.merge.function
        return (
            word
            if word in _WORDS_TO_MERGE and not table.merge.arguments
            else self._make(table.merge, "merge")
        )

    def _loss(self, word: str) -> LossFunction:
        if word in LOSSES:
            made: LossFunction = getattr(nn, LOSSES[word])()
            return made
        return self.functions.find(word)

    def _shape(self, role: str) -> tuple[int, ...] | None:
        """Return the shape of one sample of the field ``x`` of ``role``, where it has one."""
        field = self.people.fields(role).get("x") if role in self.people.roles else None
        return None if field is None else tuple(field.shape)
