"""cutlayer: split learning one can trust.

Parties train one neural network together while every raw record, and where they wish every label,
stays at home: only activations at the cut layer go out, only gradients come back.

>>> import cutlayer as cl
>>> people = cl.data.digits().split_rows(3)
>>> graph = cl.vanilla(cl.networks.mlp((64, 32, 10)), cut=0.5, clients=people)
>>> study = cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), epochs=1)
>>> run = study.simulate(people)
>>> run.equals(study.central(people))
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:
    from . import audit as audit
    from . import data as data
    from . import privacy as privacy
    from .graph import networks as networks
    from .graph.cutting import cut_module as cut_module
    from .graph.merge import Concat as Concat
    from .graph.merge import Mean as Mean
    from .graph.merge import Sum as Sum
    from .graph.parts import Cut as Cut
    from .graph.parts import Loss as Loss
    from .graph.parts import Party as Party
    from .graph.parts import Role as Role
    from .graph.parts import Segment as Segment
    from .graph.parts import Share as Share
    from .graph.parts import TensorSpec as TensorSpec
    from .graph.reconstruction import with_decoder as with_decoder
    from .graph.split_graph import SplitGraph as SplitGraph
    from .graph.topologies import extended_vanilla as extended_vanilla
    from .graph.topologies import multi_hop as multi_hop
    from .graph.topologies import multi_task as multi_task
    from .graph.topologies import u_shaped as u_shaped
    from .graph.topologies import vanilla as vanilla
    from .graph.topologies import vertical as vertical
    from .planner import plan as plan
    from .privacy.base import Defence as Defence
    from .privacy.nopeek import NoPeek as NoPeek
    from .run import Run as Run
    from .runtime import optim as optim
    from .runtime.stopping import EarlyStopping as EarlyStopping
    from .schedules.actions import Action as Action
    from .schedules.actions import Program as Program
    from .schedules.asynchronous import Asynchronous as Asynchronous
    from .schedules.check import check as check
    from .schedules.parallel import Parallel as Parallel
    from .schedules.round_robin import RoundRobin as RoundRobin
    from .schedules.splitfed import SplitFed as SplitFed
    from .study import Study as Study
    from .study_file import load_study as load_study

# Loaded on first use: importing torch takes a second that `cutlayer --help` need not wait for.
_HOME = {
    "Action": "schedules.actions", "Asynchronous": "schedules.asynchronous", "Concat": "graph.merge",
    "Cut": "graph.parts", "Defence": "privacy.base", "EarlyStopping": "runtime.stopping", "Loss": "graph.parts",
    "Mean": "graph.merge", "NoPeek": "privacy.nopeek",
    "Parallel": "schedules.parallel", "Party": "graph.parts", "Program": "schedules.actions",
    "Role": "graph.parts", "RoundRobin": "schedules.round_robin", "Run": "run", "Segment": "graph.parts",
    "Share": "graph.parts", "SplitFed": "schedules.splitfed", "SplitGraph": "graph.split_graph",
    "Study": "study", "Sum": "graph.merge", "TensorSpec": "graph.parts", "check": "schedules.check",
    "cut_module": "graph.cutting", "extended_vanilla": "graph.topologies", "load_study": "study_file",
    "multi_hop": "graph.topologies", "multi_task": "graph.topologies", "plan": "planner",
    "u_shaped": "graph.topologies", "vanilla": "graph.topologies", "vertical": "graph.topologies",
    "with_decoder": "graph.reconstruction",
}  # fmt: skip
_MODULES = {
    "audit": "audit", "data": "data", "networks": "graph.networks", "optim": "runtime.optim", "privacy": "privacy",
}  # fmt: skip

__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f".{_MODULES[name]}", __name__)
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module 'cutlayer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
