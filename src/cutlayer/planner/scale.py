"""Thousands to millions of clients: worked out for smaller crowds of the same clients, and drawn on.

What one client does depends on its own rows alone, so sums grow in a line with the number of clients. Time does so
where clients take turns, at a server or with each other; it stays as it is where all wait for the slowest of them,
until what servers compute and carry takes longer than that. So three crowds are worked out: two, of 500 and 1,000
clients, with the slowest of all in both, and a line through their times; in the third, 1,000 clients meet servers whose
machines and lines are as much slower as clients are fewer, so that they are as busy as with all. The longer of both
times is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .offers import Offer
from .setting import Setting

__all__ = ["MOST_CLIENTS", "at_scale"]

MOST_CLIENTS = 1000
"""Up to so many clients everybody's actions are gone through one by one."""
_SUMS = ("server_forward_flops", "server_flops", "total_bytes", "seconds")


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
    changed["seconds"] = max(changed["seconds"], work_out(_crowded(setting, MOST_CLIENTS)).seconds)
    for name in ("server_forward_flops", "server_flops", "total_bytes"):
        changed[name] = round(changed[name])
    phases = {name: round(drawn_on(small.phases.get(name, 0), count)) for name, count in large.phases.items()}
    memory = drawn_on(small.server_memory_bytes, large.server_memory_bytes)
    return replace(large, **changed, phases=phases, server_memory_bytes=round(memory))  # type: ignore[arg-type]


def _fewer(setting: Setting, clients: int) -> Setting:
    """Return the setting with fewer clients that have as many rows each, the slowest of all among them."""
    share = clients / setting.clients
    return replace(
        setting,
        world=replace(setting.world, of=setting.clients),
        clients=clients,
        rows=max(clients, round(setting.rows * share)),
        test_rows=round(setting.test_rows * share),
    )


def _crowded(setting: Setting, clients: int) -> Setting:
    """Return the setting with fewer clients, and servers that are as much slower."""
    fewer, share = _fewer(setting, clients), clients / setting.clients
    world = fewer.world
    slower = replace(
        world, server_flops=world.server_flops * share, server_line=world.server_line.scaled(share)
    )
    return replace(fewer, world=slower)
