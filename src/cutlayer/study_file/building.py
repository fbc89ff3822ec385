"""From a study file to :class:`~cutlayer.study.Study`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import StudyError, nearest
from ..graph import SplitGraph
from ..graph.parts import Placement
from ..runtime.devices import check_device, devices_of
from ..runtime.optim import OptimizerSpec, lr_schedule, optimizer
from ..runtime.precision import compiled_of, precision_of
from ..runtime.stopping import EarlyStopping
from ..schedules import Asynchronous, Parallel, RoundRobin, Schedule, SplitFed
from ..study import Study
from .functions import Functions
from .reading import in_table
from .tables import NamedTable, OptimizerTable
from .wiring import graph_of

if TYPE_CHECKING:
    from .reading import StudyFile

__all__ = ["study_of"]

_SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    "asynchronous": Asynchronous,
    "parallel": Parallel,
    "round_robin": RoundRobin,
    "splitfed": SplitFed,
}


def study_of(file: StudyFile, people: Placement) -> Study:
    """Return the study that the file describes, of these people and shapes."""
    tables = file.tables
    functions = Functions(file.path.parent, tables.study.seed)
    graph = graph_of(file, people, functions)
    with in_table(file, "early_stopping"):
        stopping = EarlyStopping(**tables.early_stopping.model_dump()) if tables.early_stopping else None
    with in_table(file, "schedule"):
        schedule = _SCHEDULES[tables.schedule.name](**tables.schedule.model_dump())
    settings = tables.study
    with in_table(file, "study"):
        devices_of(settings.device, graph)
        if isinstance(settings.device, str):
            check_device(settings.device)
        precision_of(settings.precision, graph.order)
        compiled_of(settings.compiled, graph.order)
    return Study(
        graph=graph,
        optimizer=_optimizers(file, graph),
        schedule=schedule,
        early_stopping=stopping,
        name=file.name,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        metrics=tuple(settings.metrics),
        drop_last=settings.drop_last,
        shuffle=settings.shuffle,
        evaluate=tuple(settings.evaluate),
        check_finite=settings.check_finite,
        device=settings.device,
        precision=settings.precision,
        compiled=tuple(settings.compiled),
        code=functions.code,
    )


def _optimizers(file: StudyFile, graph: SplitGraph) -> OptimizerSpec | Mapping[str, OptimizerSpec]:
    default = file.tables.optimizer
    every = None if default is None else _optimizer(file, "optimizer", default)
    own = {
        name: _optimizer(file, f"optimizers.{name}", table) for name, table in file.tables.optimizers.items()
    }
    if every is not None and not own:
        return every
    with in_table(file, "optimizers"):
        for name in own:
            if name not in graph.segments:
                raise StudyError(f"there is no segment {name!r}", todo=nearest(name, graph.order))
    return own if every is None else {name: own.get(name, every) for name in graph.order}


def _optimizer(file: StudyFile, place: str, table: OptimizerTable) -> OptimizerSpec:
    schedule = None
    if table.schedule is not None:
        with in_table(file, f"{place}.schedule"):
            schedule = lr_schedule(table.schedule.name, **_settings(table.schedule, {"optimizer"}))
    with in_table(file, place):
        made = optimizer(table.name, schedule=schedule, every=table.every, **_settings(table, {"params"}))
        made.build([nn.Parameter(torch.zeros(1))])  # let PyTorch refuse wrong values now
    return made


def _settings(table: NamedTable, taken: set[str]) -> dict[str, object]:
    for name in taken & set(table.settings):
        raise StudyError(f"{name!r} is no setting", todo="cutlayer fills it in")
    return table.settings
