"""Where parties compute: each on a device of its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..errors import StudyError, nearest
from ..graph.split_graph import SplitGraph

__all__ = ["check_device", "check_devices", "described", "devices_of"]


def devices_of(given: str | Mapping[str, str], graph: SplitGraph) -> dict[str, str]:
    """Return the device of each party.

    Args:
        given: One for all, or some by party or role, a party's own before its role's; the CPU for the others.
        graph: Who takes part.

    Raises:
        StudyError: There is no such party or role, or PyTorch knows no such device.
    """
    if not isinstance(given, Mapping):
        _parsed(given)
        return {party.name: given for party in graph.parties}
    known = dict.fromkeys([*(party.name for party in graph.parties), *graph.roles])
    for name, word in given.items():
        if name not in known:
            raise StudyError(
                f"a device is given for {name!r}, which is neither a party nor a role",
                todo=nearest(str(name), list(known)),
            )
        _parsed(word)
    return {party.name: given.get(party.name, given.get(party.role, "cpu")) for party in graph.parties}


def check_devices(devices: Mapping[str, str]) -> None:
    """See that the devices of these parties are on this machine.

    Raises:
        StudyError: One is not.
    """
    for party, word in devices.items():
        check_device(word, party)


def check_device(word: str, party: str | None = None) -> None:
    """See that a device is on this machine.

    Raises:
        StudyError: It is not.
    """
    device = _parsed(word)
    if device.type == "cpu":
        return
    there = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (not there or (device.index or 0) >= there):
        raise StudyError(
            f"there is no such GPU: PyTorch can use {there} here", party=party, got=f"device={word!r}",
            todo="choose another, or device='cpu'",
        )  # fmt: skip
    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise StudyError(
            f"nothing can be computed on the device {word!r} here", party=party,
            todo="choose another, or device='cpu'",
        ) from error  # fmt: skip


def described(device: torch.device) -> str:
    """Return the device in words; of a GPU with its model, since another model gives other bits."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _parsed(word: object) -> torch.device:
    try:
        if isinstance(word, int):  # the number of a GPU, on a machine that has some
            raise TypeError
        return torch.device(word)  # type: ignore[call-overload, no-any-return]
    except (RuntimeError, TypeError) as error:
        raise StudyError(f"PyTorch knows no device {word!r}", expected="'cpu', 'cuda' or 'cuda:1'") from error
