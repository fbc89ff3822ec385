"""A party's own device: looked for before it takes part, and what a snapshot remembers of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import cutlayer as cl
from cutlayer.errors import StudyError
from cutlayer.metering.run_log import RunLog
from cutlayer.sessions.keeping import Keeping
from cutlayer.sessions.messages import Go
from cutlayer.sessions.part import Part
from cutlayer.sessions.part_training import PartTrainer


class Notes:
    """Keeps what a person would be told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, what: str) -> None:
        self.said.append(what)


@pytest.fixture
def part(tmp_path) -> Part:
    rows = cl.data.arrays(torch.rand(20, 4), torch.arange(20) % 2).split_rows(2)
    graph = cl.vanilla(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), "0", clients=rows)
    study = cl.Study(graph=graph, optimizer=cl.optim.SGD(lr=0.1), batch_size=5, device={"server": "cuda:99"})
    return Part(study=study, party="client-1", host="server", data=rows.parties[1], folder=tmp_path)


def trainer_of(part: Part, notes: Notes) -> PartTrainer:
    go = Go(generation=1, position=(0, 0), rows=[{"train": 10}] * 2, leaves=[], cards={})
    keeping = Keeping(part.folder, lambda: None)
    return PartTrainer(
        part, go, RunLog(), keeping, notes, sent_bytes=lambda: 0, on_epoch=lambda epoch: None
    )  # fmt: skip


def test_only_ones_own_device_must_be_here(part):
    part.check()
    with pytest.raises(StudyError, match="server: there is no such GPU"):
        replace(part, party="server").check()


def test_a_snapshot_remembers_where_a_party_computed_and_another_place_is_said(part):
    notes = Notes()
    trainer = trainer_of(part, notes)
    assert trainer._memory()["device"] == "cpu"
    trainer._compare_devices("cpu")
    assert not notes.said
    trainer._compare_devices("cuda:1 (Some GPU)")
    assert notes.said == [
        "!! this party computed on cuda:1 (Some GPU) before and now on cpu: the last bits will differ; "
        "start it with --device cuda:1 to have the same"
    ]
