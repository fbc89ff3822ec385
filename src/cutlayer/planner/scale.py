"""Thousands to millions of clients: worked out for two smaller crowds of the same clients, and drawn on in a line.

Clients are alike but for their speeds, so what one does depends on its own rows alone, sums grow with the number of
clients, and so does the time wherever clients take turns at a server, at its line or with each other. What is left out:
among more clients the slowest is a little slower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .offers import Offer
from .setting import Setting

__all__ = ["MOST_CLIENTS", "at_scale"]

MOST_CLIENTS = 1000
"""Up to so many clients everybody's actions are gone through one by one."""
_SUMS = ("server_flops", "total_bytes", "seconds")


def at_scale(work_out: Callable[[Setting], Offer], setting: Setting) -> Offer:
    """Return the offer that ``work_out`` gives for ``setting``, from two smaller crowds if there are too many clients.

    Args:
        work_out: Works one out, client by client.
        setting: With however many clients.
    """
    if setting.clients <= MOST_CLIENTS:
        return work_out(setting)
    small, large = (work_out(_fewer(setting, clients)) for clients in (MOST_CLIENTS // 2, MOST_CLIENTS))
    steps = (setting.clients - MOST_CLIENTS) / (MOST_CLIENTS - MOST_CLIENTS // 2)

    def drawn_on(before: float, after: float) -> float:
        return after + steps * (after - before)

    changed = {name: drawn_on(getattr(small, name), getattr(large, name)) for name in _SUMS}
    for name in ("server_flops", "total_bytes"):
        changed[name] = round(changed[name])
    phases = {name: round(drawn_on(small.phases.get(name, 0), count)) for name, count in large.phases.items()}
    memory = drawn_on(small.server_memory_bytes, large.server_memory_bytes)
    return replace(large, **changed, phases=phases, server_memory_bytes=round(memory))  # type: ignore[arg-type]


def _fewer(setting: Setting, clients: int) -> Setting:
    """Return the setting with fewer clients that have as many rows each."""
    share = clients / setting.clients
    return replace(
        setting,
        clients=clients,
        rows=max(clients, round(setting.rows * share)),
        test_rows=round(setting.test_rows * share),
    )
