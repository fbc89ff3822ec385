"""How many threads a party computes with, unless somebody says otherwise."""

from __future__ import annotations

import contextlib
import copy
import os

import torch

from ..graph.flops import flop_counter
from ..runtime.blueprint import Blueprint
from ..study import Study

__all__ = ["WORTH_FLOPS", "default_threads"]

WORTH_FLOPS = 100_000_000
"""A party whose forward takes fewer FLOPs a batch computes in one thread: waking others takes longer than they save."""


def default_threads(study: Study, party: str) -> int:
    """Return how many threads ``party`` computes with.

    It is ``OMP_NUM_THREADS`` where that is set. Otherwise it is one, or all cores that this process may use if the
    segments of the party's role take :data:`WORTH_FLOPS` or more for the forward of one full batch, counted on a row
    of zeros; segments that refuse such a row take none. The order of sums, and so the last bits, depend on the number
    of threads: on the same machine this gives the same number for the same study every time.

    Args:
        study: The study.
        party: Who computes; one that is not in the study computes in one thread.
    """
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if given.isdecimal() and int(given) > 0:
        return int(given)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    role = next((member.role for member in study.graph.parties if member.name == party), "")
    return cores if cores > 1 and role and _flops(study, role) >= WORTH_FLOPS else 1


def _flops(study: Study, role: str) -> int:
    """Return the FLOPs of the forward of a role's segments for one batch, from those of one row of zeros."""
    graph, work = study.graph, Blueprint(study.graph).work
    fields = graph.roles[role].fields
    counter = flop_counter()
    with torch.random.fork_rng(devices=[]), torch.no_grad(), counter:
        for segment in graph.segments_of(role):
            names = [name for name, _ in work[segment.name].inputs]
            specs = [fields.get(n) if isinstance(n, str) else graph.specs.get(n) for n in names]
            rows = [torch.zeros((1, *spec.shape), dtype=spec.dtype) for spec in specs if spec is not None]
            # A module that does not take zeros, or not one row, is not counted.
            with contextlib.suppress(Exception):
                copy.deepcopy(segment.module).eval()(*rows)
    return int(counter.get_total_flops()) * study.batch_size
