"""Whom the host lets in: who has the same study, and brings data that a study can have and the same as before."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import StudyError
from .messages import Offer

__all__ = ["check_offer", "check_parts"]

_MOST_BATCHES = 1_000_000  # of one party in an epoch


def check_parts(party: str, theirs: Mapping[str, str], host: str, ours: Mapping[str, str]) -> None:
    """Refuse a party that has another study.

    Args:
        party: Who wants to be let in.
        theirs: Digest of each thing to agree on, at the party.
        host: Who lets in.
        ours: The same at the host.

    Raises:
        StudyError: Names the parts that differ.
    """
    differ = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if not differ:
        return
    here, there = (
        ", ".join(f"{name} {parts.get(name, 'none')[:12]}" for name in differ) for parts in (ours, theirs)
    )
    raise StudyError(
        f"{party!r} has another study than the host {host!r}: {', '.join(differ)} differ",
        got=f"{there} at {party}",
        expected=f"{here} at {host}",
        todo="all parties must use the same study file, model code and version",
    )


def check_offer(party: str, offer: Offer, before: Offer | None, batches: Callable[[str], int]) -> None:
    """Refuse a party that brings more than a study can have, or other data than it did.

    Args:
        party: Who wants to be let in.
        offer: What it brings.
        before: What it brought when it first came; None if it is new.
        batches: Returns how many batches of a split these rows are in an epoch.

    Raises:
        StudyError: They cannot be, or are not those of before.
    """
    if any(batches(split) > _MOST_BATCHES for split in offer.rows):
        raise StudyError(
            f"{party!r} brings more rows than a study can have",
            got=f"rows {offer.rows}",
            expected=f"at most {_MOST_BATCHES:,} batches",
        )
    if before is not None and before != offer:
        raise StudyError(
            f"{party!r} came back with other data",
            got=f"rows {offer.rows}",
            expected=f"{before.rows}, the same ids",
            todo="join with the same records as before, or begin a new study",
        )
