"""The log of a party's own part: whose it is, and what it says of the network."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from torch import nn

from cutlayer import Study, optim, vanilla
from cutlayer.data import arrays
from cutlayer.errors import StudyError
from cutlayer.metering.events import Began, Event, Placed
from cutlayer.metering.reading import viewer
from cutlayer.metering.run_log import read_log
from cutlayer.sessions.part import Part
from cutlayer.sessions.part_training import begun_log


class Seen:
    """Keeps the events that a person would be shown."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def event(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def part(tmp_path):
    rows = arrays(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), np.arange(20) % 2)
    holdings = rows.split_rows(2)
    first = nn.Linear(4, 3)
    first.bias.requires_grad_(False)
    model = nn.Sequential(first, nn.BatchNorm1d(3), nn.Linear(3, 2))
    graph = vanilla(model, cut="0", clients=holdings)
    study = Study(graph=graph, optimizer=optim.SGD(lr=0.1), batch_size=5)
    return Part(
        study=study, party="client-1", host="server", data=holdings.parties[1], folder=tmp_path / "part"
    )


def test_it_says_whose_it_is_and_how_large_the_network_is(part):
    seen = Seen()
    log = begun_log(part, seen)
    log.close()
    events = read_log(part.folder)
    assert events == seen.events == log.events
    began, *placed = events
    assert isinstance(began, Began) and viewer(events) == began.party == "client-1"
    assert list(began.disclosures) == ["client-1"] and began.holdings == "client-1 holds train 10 rows"
    assert placed == [
        Placed(segment="head", role="client", parameters=15, trainable=12, state_bytes=60),
        # BatchNorm's running mean and variance (float32) and count (int64) are state, not parameters.
        Placed(segment="top", role="server", parameters=14, trainable=14, state_bytes=4 * (14 + 6) + 8),
    ]


def test_going_on_notes_nothing_twice(part):
    begun_log(part, Seen()).close()
    again = Seen()
    begun_log(part, again).close()
    assert again.events == [] and len(read_log(part.folder)) == 3


def test_another_study_in_the_same_folder_is_refused(part):
    begun_log(part, Seen()).close()
    other = dataclasses.replace(part, study=dataclasses.replace(part.study, seed=9))
    with pytest.raises(StudyError, match="another study"):
        begun_log(other, Seen())
