"""A party follows a host only where what it says can be, and is so of the party itself."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from cutlayer import Study, optim, vanilla
from cutlayer.data import arrays
from cutlayer.errors import StudyError
from cutlayer.sessions.messages import Go, Offer
from cutlayer.sessions.orders import check_go
from cutlayer.sessions.part import Part
from cutlayer.sessions.roster import offer_of


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    rows = arrays(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), np.arange(20) % 2)
    holdings = rows.split_rows(2)
    graph = vanilla(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), cut="0", clients=holdings)
    study = Study(graph=graph, optimizer=optim.SGD(lr=0.1), batch_size=5)
    data, folder = holdings.parties[0], tmp_path_factory.mktemp("part")
    return Part(study=study, party=data.name, host="server", data=data, folder=folder)


def go_of(part: Part, **other) -> Go:
    said = {
        "generation": 1, "position": (0, 0), "rows": [{"train": 10}, {"train": 10}], "leaves": [],
        "offers": {part.party: offer_of(part.data, part.study.digest)}, "cards": {"server": {}},
    }  # fmt: skip
    return Go(**(said | other))


def check(part: Part, gone: bool = False, **other) -> None:
    check_go(go_of(part, **other), part, offer_of(part.data, part.study.digest), gone=gone)


def test_what_is_so_is_followed(part):
    check(part)
    check(part, rows=[{"train": 10}, {"train": 3}])  # of another's turn only the host knows


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"rows": [{"train": 10}]}, "turns that the study has not"),
        ({"leaves": [(2, 0, 0, 1)]}, "turns that the study has not"),
        ({"offers": {}}, "other data than it did"),
        (
            {"offers": {"client-0": Offer(rows={"train": 9}, ids={"train": "a" * 64})}},
            "other data than it did",
        ),
        ({"cards": {}}, "does not show its own key card"),
        ({"rows": [{"train": 9}, {"train": 10}]}, "other rows than this party brought"),
        ({"rows": [{"train": 10, "test": 1}, {"train": 10}]}, "other rows than this party brought"),
        ({"gone": True, "position": (0, 3)}, "go back to"),
    ],
)
def test_what_is_not_so_is_refused(part, other, why):
    with pytest.raises(StudyError, match=why):
        check(part, **other)


def test_a_part_in_words_and_numbers(part):
    assert part.rows == {"train": 10} and part.holdings == "client-0 holds train 10 rows"
    idle = Part(study=part.study, party="server", host="server", data=None, folder=part.folder)
    assert idle.rows == {} and idle.holdings == "server holds no records"
