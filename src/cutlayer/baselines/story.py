"""What is said of a baseline before it trains: the first event of its log, with what leaves each party."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import replace

from ..graph.split_graph import SplitGraph
from ..metering.events import Began
from ..metering.versions import versions
from ..runtime.optim import optimizer_text
from ..study import Study
from .account import Budget
from .clients import Clients, server_of
from .methods import LargeBatch, Method

__all__ = ["beginning"]


def beginning(study: Study, method: Method, clients: Clients, budget: Budget | None) -> Began:
    """Return the first event of a baseline's run.

    Its digest is of the study, the method and the budget, and tells runs apart that must not be mixed up.
    """
    graph = _whole(study.graph, clients.role)
    server = server_of(study.graph, clients.role)
    words = f"{study.digest}\n{method!r}\n{budget!r}"
    return Began(
        name=f"{study.name}: {method.title}",
        study="uncut network",
        digest=hashlib.sha256(words.encode()).hexdigest(),
        seed=study.seed,
        epochs=method.rounds,
        batch_size=study.batch_size,
        schedule=method.describe(),
        optimizer=optimizer_text(study.optimizer),
        parties=dict.fromkeys(clients.names, clients.role) | {server: "averaging server"},
        graph=graph.describe(),
        mermaid=graph.mermaid(),
        svg=graph.svg(),
        disclosures={clients.names[0]: _disclosure(clients.names[0], server, method)},
        holdings=clients.holdings.table(),
        versions=versions(),
        started=datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
        data=clients.cohorts.digest(clients.holdings),
    )


def _whole(graph: SplitGraph, role: str) -> SplitGraph:
    """Return a study's graph with all segments at the clients, so that nothing crosses."""
    return SplitGraph(
        roles=[graph.roles[role]],
        segments=[replace(graph.segments[name], role=role) for name in graph.order],
        losses=[replace(loss, role=role) for loss in graph.losses.values()],
        example={role: graph.example[role]} if graph.example is not None else None,
        name="uncut",
    )


def _disclosure(party: str, server: str, method: Method) -> str:
    """Return what leaves a client of a baseline, in words."""
    what = (
        "the gradients of all weights, of each batch of its rows, and its network's buffers"
        if isinstance(method, LargeBatch)
        else "all weights and buffers of its network, as its own rows trained them, after each round it takes part in"
    )
    return (
        f"WHAT LEAVES {party}\n  - To {server}: {what}.\n\n"
        f"WHAT NEVER LEAVES {party}\n  - Its raw records and its labels. What is computed from them tells something "
        "of them all the same.\n"
    )
