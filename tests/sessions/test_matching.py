"""Rows are matched between parties that hold different columns, and labels, of the same rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from cutlayer import vanilla
from cutlayer.data import Deal, PartyData, Records, arrays
from cutlayer.errors import AlignmentError, FrameError
from cutlayer.keys.authority import Authority
from cutlayer.keys.credentials import Credentials
from cutlayer.keys.sealing import Sealer
from cutlayer.runtime.cohorts import Cohorts
from cutlayer.sessions.matching import matched_positions
from cutlayer.sessions.roster import offer_of
from cutlayer.transports import MemoryHub
from cutlayer.wire import Kind, Message, decode, encode

PARTIES = ("client-0", "client-1", "server")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    authority = Authority.create(folder / "authority", "matching")
    for name in PARTIES:
        authority.issue(name, folder / name)
    return {name: Credentials.load(folder / name) for name in PARTIES}


def dealt(parties=2, text=False):
    x = np.random.default_rng(0).normal(size=(14, 4)).astype(np.float32)
    ids = np.array([f"patient {n:02}" for n in range(14)]) if text else np.arange(14) * 7 - 20
    source = arrays(x, np.arange(14) % 2, ids={"train": ids})
    return source.split({"client": "*"}, rows=Deal(n=parties), labels="server", seed=3)


def graph_of(holdings):
    return vanilla(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), cut="0", clients=holdings)


def match(graph, parties, keys):
    """Return what each party finds, all at once."""
    hub = MemoryHub([p.name for p in graph.parties])
    sealers = {p.name: Sealer(keys[p.name], "d") for p in graph.parties}
    cards = {name: sealer.card for name, sealer in sealers.items()}
    for sealer in sealers.values():
        sealer.meet(cards, 1)
    offers = {p.name: offer_of(p, "d") for p in parties}

    def one(party):
        return matched_positions(graph, party, offers, set(), hub.end(party.name), sealers[party.name])

    with ThreadPoolExecutor(4) as threads:
        return dict(zip([p.name for p in parties], threads.map(one, parties), strict=True))


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("parties", [1, 2])
def test_the_same_rows_as_when_all_is_in_one_place(keys, parties, text):
    holdings = dealt(parties, text)
    graph = graph_of(holdings)
    found = match(graph, holdings.parties, keys)
    expected = Cohorts(graph, holdings).positions
    for name, positions in found.items():
        assert positions.keys() == expected[name].keys()
        assert all(positions[key].equal(expected[name][key]) for key in positions)


def test_who_lacks_a_row_is_told_how_many_and_what_to_do(keys):
    holdings = dealt()
    *clients, server = holdings.parties
    rows = server.splits["train"].select(range(10))
    extra = Records(np.arange(9000, 9008), {"y": server.splits["train"].select(range(8)).fields["y"]})
    labels = np.concatenate([rows.ids, extra.ids])
    y = np.concatenate([rows.fields["y"].numpy(), extra.fields["y"].numpy()])
    fewer = PartyData("server", server.role, {"train": Records(labels, {"y": torch.from_numpy(y)})})
    with pytest.raises(
        AlignmentError, match=r"rows of 'client-.' are not held here.*private set intersection"
    ):
        match(graph_of(holdings), [*clients, fewer], keys)


def test_what_crosses_is_keyed_hashes_and_not_ids(keys):
    holdings = dealt()
    graph = graph_of(holdings)
    client = holdings.parties[0]
    hub = MemoryHub([p.name for p in graph.parties])
    offers = {p.name: offer_of(p, "d") for p in holdings.parties}
    seen = []
    for _ in range(2):
        sealers = {p.name: Sealer(keys[p.name], "d") for p in graph.parties}
        sealers["client-0"].meet({name: sealer.card for name, sealer in sealers.items()}, 1)
        matched_positions(graph, client, offers, set(), hub.end("client-0"), sealers["client-0"])
        message = decode(hub.end("server").receive("client-0", 1.0))
        assert (message.kind, message.name, message.tensors[0][1].shape) == (
            Kind.STATISTICS,
            "ids-train-0",
            (7, 16),
        )
        seen.append(message.tensors[0][1])
    assert not seen[0].equal(seen[1])  # another key each time


def test_something_else_in_their_place_is_refused(keys):
    holdings = dealt()
    graph = graph_of(holdings)
    hub = MemoryHub([p.name for p in graph.parties])
    sealers = {p.name: Sealer(keys[p.name], "d") for p in graph.parties}
    sealers["server"].meet({name: sealer.card for name, sealer in sealers.items()}, 1)
    hub.end("client-0").send(
        "server",
        encode(
            Message(
                Kind.STATISTICS, "ids-train-0", 0, (("hashes", torch.zeros(3, 16, dtype=torch.uint8)),), False
            )
        ),
    )
    offers = {p.name: offer_of(p, "d") for p in holdings.parties}
    with pytest.raises(FrameError, match="not the hashes of ids"):
        matched_positions(graph, holdings.parties[-1], offers, set(), hub.end("server"), sealers["server"])
