"""The whole of ``study.toml``: its tables, and what must fit together between them."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ..errors import nearest
from .data_tables import AnyData
from .graph_tables import ChainTable, GraphTable, MergedTable
from .party_tables import FieldsTable, NetworkTable, PartiesTable, Roles, check_parties, roles_of
from .schedule_tables import AnySchedule, RoundRobinTable
from .words import Metric, Positive, Split, Table, contradiction, expects

__all__ = ["NamedTable", "OptimizerTable", "Tables"]


def _held_out() -> list[Split]:
    return ["valid", "test"]


DeviceWords = Annotated[
    str | dict[str, str],
    expects('a word such as "cuda" for all, or a table by party or role: { server = "cuda" }'),
]
PrecisionWords = Annotated[
    str | dict[str, str],
    expects('"float32" or "bfloat16" for all segments, or a table by segment: { top = "bfloat16" }'),
]


class StudyTable(Table):
    """``[study]``: see :class:`cutlayer.Study`; the name is the file's unless given."""

    name: Annotated[str, Field(pattern=r"^\w[\w .+-]*$")] | None = None
    seed: int = 0
    epochs: Positive = 1
    batch_size: Positive = 64
    device: DeviceWords = "cpu"
    precision: PrecisionWords = "float32"
    compiled: list[str] = Field(default_factory=list)
    metrics: list[Metric] = Field(default_factory=list)
    evaluate: list[Split] = Field(default_factory=_held_out)
    drop_last: bool = False
    shuffle: bool = True
    check_finite: bool = True


class NamedTable(Table):
    """A class of PyTorch by name; every other key is one of its settings."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")

    name: str

    @model_validator(mode="after")
    def _finite(self) -> Self:
        for key, value in self.settings.items():
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
                raise contradiction(f"{key} is not a finite number")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """Its keyword arguments; lists become tuples, as PyTorch's own are."""
        extra = self.model_extra or {}
        return {key: tuple(value) if isinstance(value, list) else value for key, value in extra.items()}


class OptimizerTable(NamedTable):
    """``[optimizer]``: any of ``torch.optim``; its schedule: any of ``torch.optim.lr_scheduler``."""

    schedule: NamedTable | None = None
    every: Literal["epoch", "step"] = "epoch"


class EarlyStoppingTable(Table):
    """``[early_stopping]``: see :class:`cutlayer.EarlyStopping`."""

    metric: Metric = "loss"
    patience: Positive = 5
    split: Split = "valid"
    loss: str | None = None
    min_delta: Annotated[float, Field(ge=0)] = 0.0


CodecsTable = Annotated[
    str | dict[str, str] | None,
    expects('a word such as "int8" for all cuts, or a table: "head->server" = "int8"'),
]
"""``[codecs]``: see :class:`cutlayer.SplitGraph`; checked when the graph is built."""


DefencesTable = Annotated[
    str | list[str] | dict[str, str | list[str]] | None,
    expects(
        'words such as ["nopeek:0.1"] for every cut where they fit, or a table: "head->server" = ["nopeek:0.1"]'
    ),
]
"""``[defences]``: see :meth:`cutlayer.SplitGraph.with_defences`; checked when the graph is built."""


class Tables(Table):
    """The whole file."""

    study: StudyTable = StudyTable()
    graph: GraphTable
    data: AnyData
    schedule: AnySchedule = RoundRobinTable()
    optimizer: OptimizerTable | None = None
    optimizers: dict[str, OptimizerTable] = Field(default_factory=dict)
    early_stopping: EarlyStoppingTable | None = None
    codecs: CodecsTable = None
    defences: DefencesTable = None
    network: NetworkTable = NetworkTable()
    parties: PartiesTable = Field(default_factory=dict)
    fields: FieldsTable = Field(default_factory=dict)

    @property
    def roles(self) -> Roles:
        """The roles of the graph by what they hold."""
        return roles_of(self.graph, self.data.labels)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.optimizer is None and not self.optimizers:
            raise contradiction(
                "there is no [optimizer]", 'for example [optimizer] with name = "SGD" and lr = 0.05'
            )
        if isinstance(self.graph, ChainTable):
            self._check_chain(self.graph)
        else:
            self._check_merged(self.graph)
        check_parties(self.graph, self.data.labels, self.parties, self.fields, self.network)
        return self

    def _check_chain(self, graph: ChainTable) -> None:
        topology, labels = getattr(graph, "topology", ""), self.data.labels
        if self.data.columns is not None:
            raise contradiction(
                f"[data.columns] deals columns to institutions, but {topology} has clients with whole rows",
                'deal rows with [data.rows], or say topology = "vertical"',
            )
        if labels is not None and (topology == "u_shaped" or labels != graph.server):
            raise contradiction(
                f"labels = {labels!r} does not fit {topology}",
                "leave it out: clients hold the labels"
                + ("" if topology == "u_shaped" else f'; or say labels = "{graph.server}"'),
            )

    def _check_merged(self, graph: MergedTable) -> None:
        columns = self.data.columns
        if columns is None and self.data.source != "nhanes":
            raise contradiction(
                "nobody has columns", 'say who holds which in [data.columns], e.g. clinic = ["age", "bmi"]'
            )
        for role in graph.bottoms if columns is not None else ():
            if role not in (columns or {}):
                raise contradiction(
                    f"[graph.bottoms] has {role!r}, [data.columns] has not",
                    nearest(role, list(columns or ())),
                )
        for role in columns or ():
            if role not in graph.bottoms:
                raise contradiction(
                    f"[data.columns] has {role!r}, [graph.bottoms] has not",
                    nearest(role, list(graph.bottoms)),
                )
        self._check_label_holders(graph)

    def _check_label_holders(self, graph: MergedTable) -> None:
        holders, labels = graph.label_holders, self.data.labels
        if isinstance(labels, dict) or len(holders) > 1:
            named = tuple(labels) if isinstance(labels, dict) else ()
            if set(named) != set(holders):
                raise contradiction(
                    f"labels are due at {', '.join(holders)}; [data.labels] names {', '.join(named) or None}",
                    f'say which column each predicts: [data.labels] with {holders[0]} = "…"',
                )
        elif labels is not None and labels != holders[0]:
            raise contradiction(
                f"labels = {labels!r}, but the loss is at {holders[0]!r}",
                f'say labels = "{holders[0]}", or leave it out',
            )
