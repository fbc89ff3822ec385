"""What a host's word to go on must be like before a party follows it: the host may be wrong, or mean harm."""

from __future__ import annotations

from ..errors import StudyError
from ..runtime.positions import Position
from ..schedules.steps import data_roles
from .messages import Go, Offer
from .part import Part

__all__ = ["check_go"]


def check_go(go: Go, part: Part, offer: Offer, *, gone: bool) -> None:
    """Refuse a host that says what cannot be, or what is not so of this party.

    Args:
        go: What the host says.
        part: Which part this party has.
        offer: What it said that it brings.
        gone: Whether the snapshots from which it should go on were deleted at the host's word.

    Raises:
        StudyError: Says what is wrong.
    """
    turns = part.study.graph.turns
    wrong = ""
    if len(go.rows) != len(turns) or any(leave[0] >= len(turns) for leave in go.leaves):
        wrong = "speaks of turns that the study has not"
    elif go.offers.get(part.party, Offer()) != offer and offer.rows:
        wrong = "says that this party brought other data than it did"
    elif gone:
        wrong = f"wants to go back to {Position(*go.position)}, before which it had snapshots deleted"
    elif part.host not in go.cards:
        wrong = "does not show its own key card"
    if wrong:
        raise StudyError(f"the host {wrong}", party=part.party, todo="ask who runs the host")
    _check_rows(go.rows, part)


def _check_rows(rows: list[dict[str, int]], part: Part) -> None:
    """Refuse a host that says of one's own turns what is not so."""
    own, roles = part.rows, data_roles(part.study.graph)
    for turn, said in zip(part.study.graph.turns, rows, strict=True):
        members = {turn[role] for role in roles}
        alone = members == {part.party}  # where rows are shared, those count that all have
        fits = all(n == own.get(s) if alone else n <= own.get(s, 0) for s, n in said.items())
        if part.party in members and not fits:
            raise StudyError(
                "the host tells of other rows than this party brought",
                party=part.party,
                got=f"{said}",
                expected=f"{own}",
            )
