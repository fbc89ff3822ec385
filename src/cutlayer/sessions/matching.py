"""Which of one's rows are those of a turn, where parties hold other columns, or the labels, of the same rows.

Parties with the same ids (their hashes, compared at the host, agree) each sort their own. A party that holds more, e.g.
the labels for the rows of many clients, is told by the client: a list of its ids, each hashed with a key that only
these two have (HMAC-SHA256, cut to 16 bytes). It finds out which of its own rows the client holds, as it must to train
on them, and of ids that it does not hold only hashes; whoever knows the form of such an id can try them all.
This is no private set intersection.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ..data import PartyData, Records
from ..errors import AlignmentError, FrameError
from ..graph.split_graph import SplitGraph
from ..keys.sealing import Sealer
from ..schedules.steps import data_roles
from ..transports import Transport
from ..wire import Kind, Message, decode, encode
from .messages import Offer
from .roster import anchor

__all__ = ["matched_positions"]

_HASH_BYTES = 16
_AT_ONCE = 2**15


def matched_positions(
    graph: SplitGraph,
    data: PartyData | None,
    offers: Mapping[str, Offer],
    absent: set[int],
    transport: Transport,
    sealer: Sealer,
) -> dict[tuple[str, int], Tensor]:
    """Return this party's rows in the order of the ids, by (split, turn), where it shares a turn's rows with others.

    Args:
        graph: Who takes part in which turn.
        data: This party's records; None where it holds none.
        offers: What each party brought.
        absent: Turns that do not take place now.
        transport: This party's end.
        sealer: Its seals, which have met the others.

    Raises:
        AlignmentError: Another party has rows that this one has not.
        FrameError: What another party sent is no list of hashes.
    """
    if data is None:
        return {}
    found: dict[tuple[str, int], Tensor] = {}
    shared = [one for one in _shared(graph, data.name, offers) if one[0] not in absent]
    for turn, split, first, others in shared:
        if first == data.name:
            for other in others:
                _send(transport, sealer, other, turn, split, data.splits[split])
    for turn, split, first, _ in shared:
        own = data.splits[split]
        if first == data.name or offers[first].ids[split] == offers[data.name].ids[split]:
            found[split, turn] = own.rows_of(np.sort(own.ids))
        else:
            came = _receive(transport, first, turn, split, offers[first].rows[split])
            found[split, turn] = _match(own, came, sealer.secret(first, b"ids"), data.name, first)
    return found


def _shared(
    graph: SplitGraph, party: str, offers: Mapping[str, Offer]
) -> Iterator[tuple[int, str, str, list[str]]]:
    """Yield (turn, split, whose rows count, who must find out), wherever ``party`` shares rows with others."""
    roles = data_roles(graph)
    for index, turn in enumerate(graph.turns):
        members = list(dict.fromkeys(turn[role] for role in roles))
        if party not in members or len(members) == 1 or any(member not in offers for member in members):
            continue
        for split in offers[party].rows:
            if all(split in offers[member].rows for member in members):
                first = anchor(members, offers, split)
                ids = offers[first].ids[split]
                yield index, split, first, [m for m in members if offers[m].ids[split] != ids]


def _send(transport: Transport, sealer: Sealer, to: str, turn: int, split: str, records: Records) -> None:
    hashes = _hashes(np.sort(records.ids), sealer.secret(to, b"ids"))
    for start in range(0, len(hashes), _AT_ONCE):
        some = torch.from_numpy(hashes[start : start + _AT_ONCE])
        message = Message(Kind.STATISTICS, _name(split, turn), start, (("hashes", some),), False)
        transport.send(to, encode(message))


def _receive(transport: Transport, sender: str, turn: int, split: str, rows: int) -> np.ndarray:
    """Return the hashes of ``sender``, uint8 [rows, 16], in the order of its ids."""
    parts = []
    for start in range(0, rows, _AT_ONCE):
        message = decode(transport.receive(sender, float("inf")))
        tensor = message.tensors[0][1] if len(message.tensors) == 1 else None
        shape = (min(_AT_ONCE, rows - start), _HASH_BYTES)
        known = (message.kind, message.name, message.step) == (Kind.STATISTICS, _name(split, turn), start)
        if not known or tensor is None or tensor.dtype is not torch.uint8 or tensor.shape != shape:
            raise FrameError(
                "not the hashes of ids that are due",
                party=transport.party,
                got=f"{message.kind.name.lower()} {message.name!r}",
                expected=f"{_name(split, turn)!r}, uint8 {list(shape)}, from {sender}",
            )
        parts.append(tensor.numpy())
    return np.concatenate(parts)


def _match(own: Records, came: np.ndarray, secret: bytes, party: str, sender: str) -> Tensor:
    """Return the positions of one's own rows whose hashes came, in their order."""
    places = {row.tobytes(): place for place, row in enumerate(_hashes(own.ids, secret))}
    found = [places.get(row.tobytes(), -1) for row in came]
    if missing := found.count(-1):
        raise AlignmentError(
            f"{missing} of {len(found)} rows of {sender!r} are not held here",
            party=party,
            todo=f"{sender} should keep only rows that {party} holds too, e.g. by a private set intersection",
        )
    return torch.tensor(found, dtype=torch.int64)


def _hashes(ids: np.ndarray, secret: bytes) -> np.ndarray:
    """Return a keyed hash of each id, uint8 [rows, 16]."""
    words = (f"{ids.dtype.kind} {one}".encode() for one in ids.tolist())
    digests = b"".join(hmac.digest(secret, word, "sha256")[:_HASH_BYTES] for word in words)
    return np.frombuffer(bytearray(digests), dtype=np.uint8).reshape(-1, _HASH_BYTES)


def _name(split: str, turn: int) -> str:
    return f"ids-{split}-{turn}"
